"""Whether a run fits, and where it does not, which program, by how much, and the change of the config that mends it."""

from __future__ import annotations

from collections.abc import Sequence

from prerl_jax.plan.report import REST, Row
from prerl_jax.plan.topology import Slice
from prerl_jax.rollout.continuous import ContinuousBatching
from prerl_jax.runtime.chips import GIB
from prerl_jax.runtime.mesh import batch_shards
from prerl_jax.trainer.setup import Setup

SAMPLING = ("copy", "prefill", "decode", "grow", "shrink")


def verdict(setup: Setup, place: Slice, rows: Sequence[Row], usable: float) -> list[str]:
    """One line that says that all programs fit; or a line for each that does not, with what to change.

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
    lines = []
    for row in misfits:
        over = f"{(row.peak - usable) / GIB:.2f} GiB too much" if row.peak > usable else row.refused
        change = mend(setup, place, row, usable)
        lines.append(
            f"verdict: {row.name} does not fit: {row.peak / GIB:.2f} of {usable / GIB:.2f} GiB, {over}. {change}"
        )
    return lines


def mend(setup: Setup, place: Slice, row: Row, usable: float) -> str:
    """What makes room for a program: the cheapest change of the config that may be enough, else a larger slice."""
    fixed = sum(size for name, size in row.parts.items() if name not in (REST, "cache"))
    room, elastic = usable - fixed, max(row.peak - fixed, 1.0)
    if room > 0 and row.role in SAMPLING and (change := _fewer_slots(setup, room / elastic)):
        return change
    if row.role in ("train", "score", "values", "align") and (change := _smaller_parts(setup, room / elastic)):
        return change
    if row.role == "align":
        return "Set alignment.every=0, or measure on a larger slice."
    if (change := _more_shards(setup)) is not None:
        return change
    larger = [s for s in place.chip.shapes if _chips(s) > place.chips] if place.chip else []
    named = f", such as {place.chip.name}:{'x'.join(map(str, larger[0]))}" if place.chip and larger else ""
    return f"No change of slots or microbatches is enough: take a larger slice{named}, or chips with more memory."


def _chips(shape: tuple[int, ...]) -> int:
    total = 1
    for side in shape:
        total *= side
    return total


def _fewer_slots(setup: Setup, share: float) -> str | None:
    """Slots so that cache and temporaries take at most this share of what they take."""
    engine, shards = setup.config.sampling.engine, batch_shards(setup.mesh)
    if not isinstance(engine, ContinuousBatching):
        return "Sample with ContinuousBatching(slots=...), which bounds the cache: sampling.engine."
    slots = setup.rows if engine.slots is None else min(engine.slots, setup.rows)
    fewer = min(int(slots * share), slots - 1) // shards * shards
    return f"Decode fewer responses at once: sampling.engine.slots={fewer} (now {slots})." if fewer >= shards else None


def _smaller_parts(setup: Setup, share: float) -> str | None:
    """Microbatches so that temporaries take at most this share, or a policy that keeps fewer activations."""
    config, shards = setup.config, batch_shards(setup.mesh)
    if config.model.remat != "full":
        return f'Keep fewer activations: model.remat="full" (now "{config.model.remat}").'
    possible = [
        n
        for n in range(config.microbatches + 1, setup.rows // shards + 1)
        if setup.rows % n == 0 and setup.rows // n % shards == 0
    ]
    wanted = config.microbatches / share if share > 0 else float("inf")
    found = next((n for n in possible if n >= wanted), possible[-1] if possible else None)
    return None if found is None else f"Compute fewer rows at once: microbatches={found} (now {config.microbatches})."


def _more_shards(setup: Setup) -> str | None:
    """Replicas that hold whole parameters, where they could share them."""
    mesh = setup.mesh.shape
    if mesh["data"] == 1:
        return None
    return f"Split the parameters over all devices: mesh.data=1 mesh.fsdp=-1 (now data {mesh['data']})."
