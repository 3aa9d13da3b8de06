"""Whether a run fits, and where it does not, which program, by how much, and the change of the config that mends it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from prerl_jax.plan.report import REST, Row
from prerl_jax.plan.topology import Slice
from prerl_jax.rollout.continuous import ContinuousBatching
from prerl_jax.runtime.chips import GIB
from prerl_jax.runtime.mesh import batch_shards
from prerl_jax.trainer.meshes import slice_count
from prerl_jax.trainer.setup import Setup

SAMPLING = ("copy", "prefill", "decode", "grow", "shrink")


def verdict(setup: Setup, place: Slice, rows: Sequence[Row]) -> list[str]:
    """One line that says that all programs fit, or that this is not known; or a line for each program that does not
    fit, and then a line for each change.

    Args:
        setup: the run.
        place: the devices.
        rows: a row for each program.
    """
    usable = place.usable
    if usable is None:
        return _of_unknown(place, rows)
    misfits = [row for row in rows if not row.fits(usable)]
    if not misfits:
        tightest = min(rows, key=lambda row: row.free(usable))
        return [f"verdict: it fits. {tightest.name} leaves least free: {tightest.free(usable):.0%}."]
    lines = [f"verdict: it does not fit: {len(misfits)} of {len(rows)} programs need more than a device has."]
    for row in misfits:
        over = f"{(row.peak - usable) / GIB:.2f} GiB too much" if row.peak > usable else row.refused
        lines.append(f"{row.name}: {row.peak / GIB:.2f} of {usable / GIB:.2f} GiB, {over}")
    changes = dict.fromkeys(mend(setup, place, row, usable) for row in misfits)
    return lines + [f"change: {text}" for text in changes]


def _of_unknown(place: Slice, rows: Sequence[Row]) -> list[str]:
    """The verdict for devices whose memory is not known."""
    refused = [f"{row.name}: {row.refused}" for row in rows if row.refused]
    if refused:
        return [f"verdict: it does not fit: the compiler refuses {len(refused)} of {len(rows)} programs.", *refused]
    most = max(rows, key=lambda row: row.peak)
    return [
        f"verdict: not known, because the memory of {place.devices[0].device_kind} devices is not: {most.name} needs "
        f"most, {most.peak / GIB:.2f} GiB a device."
    ]


def mend(setup: Setup, place: Slice, row: Row, usable: float) -> str:
    """What makes room for a program: the cheapest change of the config that may be enough, else a larger slice."""
    fixed = sum(size for name, size in row.parts.items() if name not in (REST, "cache"))
    room, elastic = usable - fixed, max(row.peak - fixed, 1.0)
    change = None
    if room > 0 and row.role in SAMPLING:
        change = _fewer_slots(setup, room / elastic)
    if room > 0 and row.role in ("train", "score", "values", "align"):
        change = _smaller_parts(setup, room / elastic)
    if change is None and row.role == "align" and room > 0:
        change = "set alignment.every=0, or measure on a larger slice."
    return change or _smaller_moments(setup, place, row, usable) or _more_shards(setup) or _larger(place, fixed, usable)


def _smaller_moments(setup: Setup, place: Slice, row: Row, usable: float) -> str | None:
    """A change of the optimizer's moments that makes enough room."""
    over, held, spec = row.peak - usable, row.parts.get("optimizer", 0.0), setup.config.optimizer
    if spec.moments == "float32" and 0 < over <= held / 2:
        return 'store moments in half of the bytes: optimizer.moments="bfloat16" (now "float32").'
    if place.chip is not None and row.role != "train" and 0 < over <= held:
        return 'keep moments with the host between updates: optimizer.placement="host" (now "device").'
    return None


def _larger(place: Slice, fixed: float, usable: float) -> str:
    """A slice on which what does not depend on slots and microbatches takes half of the memory, or the next larger."""
    if place.chip is None:
        return "take more devices, or devices with more memory."
    wanted = max(place.chips + 1, math.ceil(place.chips * fixed / (usable / 2)))
    shape = next((shape for shape in place.chip.shapes if math.prod(shape) >= wanted), None)
    larger = f"take a larger slice, such as {place.chip.name}:{'x'.join(map(str, shape))}, or" if shape else "take"
    return f"{larger} chips with more memory: {fixed / GIB:.2f} GiB depend on no slots and microbatches."


def _fewer_slots(setup: Setup, share: float) -> str | None:
    """Slots so that cache and temporaries take at most this share of what they take."""
    engine, shards = setup.config.sampling.engine, batch_shards(setup.mesh)
    if not isinstance(engine, ContinuousBatching):
        return "sample with ContinuousBatching(slots=...), which bounds the cache: sampling.engine."
    slots = setup.rows if engine.slots is None else min(engine.slots, setup.rows)
    fewer = min(int(slots * share), slots - 1) // shards * shards
    return f"decode fewer responses at once: sampling.engine.slots={fewer} (now {slots})." if fewer >= shards else None


def _smaller_parts(setup: Setup, share: float) -> str | None:
    """Microbatches so that temporaries take at most this share, or a policy that keeps fewer activations."""
    config, shards = setup.config, batch_shards(setup.mesh)
    if config.model.remat != "full":
        return f'keep fewer activations: model.remat="full" (now "{config.model.remat}").'
    possible = [
        n
        for n in range(config.microbatches + 1, setup.rows // shards + 1)
        if setup.rows % n == 0 and setup.rows // n % shards == 0
    ]
    wanted = config.microbatches / share if share > 0 else float("inf")
    found = next((n for n in possible if n >= wanted), possible[-1] if possible else None)
    return None if found is None else f"compute fewer rows at once: microbatches={found} (now {config.microbatches})."


def _more_shards(setup: Setup) -> str | None:
    """Replicas that hold whole parameters, where they could share them."""
    mesh, replica = setup.mesh.shape, slice_count(setup.mesh.devices.flat)
    data = mesh["data"] // replica
    if data == 1:
        return None
    changed = f"mesh.data=1 mesh.fsdp={data * mesh['fsdp']} mesh.tensor={mesh['tensor']} mesh.replica={replica}"
    return f"split the parameters over all devices of a slice: {changed} (now data {mesh['data']})."
