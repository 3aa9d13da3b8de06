"""Whether a run fits, and where it does not, which program, by how much, and the change of the config that mends it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from prerl_jax.plan.report import REST, Row
from prerl_jax.plan.topology import Slice
from prerl_jax.rollout.continuous import ContinuousBatching
from prerl_jax.runtime.chips import GIB
from prerl_jax.runtime.mesh import batch_shards
from prerl_jax.trainer.setup import Setup

SAMPLING = ("copy", "prefill", "decode", "grow", "shrink")


def verdict(setup: Setup, place: Slice, rows: Sequence[Row], usable: float) -> list[str]:
    """One line that says that all programs fit; or a line for each that does not, and then a line for each change.

    Args:
        setup: the run.
        place: the devices.
        rows: a row for each program.
        usable: bytes of a device that programs may use.
    """
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
    return change or _more_shards(setup) or _larger(place, fixed, usable)


def _larger(place: Slice, fixed: float, usable: float) -> str:
    """A slice on which what does not depend on slots and microbatches takes half of the memory, or the next larger."""
    if place.chip is None:
        return "take more devices, or devices with more memory."
    wanted = max(place.chips + 1, math.ceil(place.chips * fixed / (usable / 2)))
    shape = next((shape for shape in place.chip.shapes if math.prod(shape) >= wanted), None)
    larger = f"take a larger slice, such as {place.chip.name}:{'x'.join(map(str, shape))}" if shape else "take"
    return f"{larger}, or chips with more memory: {fixed / GIB:.2f} GiB depend on no slots and microbatches."


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
    mesh = setup.mesh.shape
    if mesh["data"] == 1:
        return None
    return f"split the parameters over all devices: mesh.data=1 mesh.fsdp=-1 (now data {mesh['data']})."
