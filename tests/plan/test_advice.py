"""The verdict: whether a run fits, and what mends it."""

import dataclasses

import jax
import pytest
import tiny_run
from hand_made import row

from prerl_jax import ContinuousBatching, dsrl
from prerl_jax.plan.abstract_setup import abstract_setup
from prerl_jax.plan.advice import mend, verdict
from prerl_jax.plan.topology import Slice
from prerl_jax.runtime.chips import GIB, chip_named
from prerl_jax.runtime.mesh import MeshSpec


@pytest.fixture
def place():
    return Slice("v5e:2x4", tuple(jax.devices()), dataclasses.replace(chip_named("v5e"), usable=16 * GIB))


def sampling(**changes):
    return dataclasses.replace(tiny_run.config().sampling, **changes)


def test_a_run_that_fits(tiny, place):
    (line,) = verdict(tiny(), place, [row("train", peak=4), row("decode", peak=12)])
    assert line == "verdict: it fits. decode leaves least free: 25%."


def test_a_run_that_does_not(tiny, place):
    lines = verdict(tiny(), place, [row("prefill", peak=4), row("decode", peak=18)])
    assert lines[:2] == [
        "verdict: it does not fit: 1 of 2 programs need more than a device has.",
        "decode: 18.00 of 16.00 GiB, 2.00 GiB too much",
    ]
    assert lines[2].startswith("change: decode fewer responses at once: sampling.engine.slots=")
    assert len(lines) == 3


def test_fewer_slots(tiny, place):
    """17 GiB of cache and temporaries where there is room for 15: 56 of 64 slots, which divide over four shards."""
    setup = tiny(sampling=sampling(prompts_per_step=16, engine=ContinuousBatching()))
    assert "sampling.engine.slots=56 (now 64)" in mend(setup, place, row("decode", peak=18), 16 * GIB)


def test_more_microbatches_or_fewer_activations(tiny, place):
    kept = dataclasses.replace(tiny_run.config().model, remat="none")
    full = dataclasses.replace(kept, remat="full")
    assert 'model.remat="full"' in mend(tiny(model=kept), place, row("train", peak=18), 16 * GIB)
    assert "microbatches=4 (now 2)" in mend(tiny(model=full, microbatches=2), place, row("train", peak=26), 16 * GIB)


def test_a_larger_slice(tiny, place):
    fixed = dataclasses.replace(row("decode", peak=40), parts={"parameters": 30 * GIB, "cache": 10 * GIB})
    assert "a larger slice, such as v5e:4x8" in mend(tiny(), place, fixed, 16 * GIB), "30 GiB on 8 chips, 8 on 30"


def test_alignment_can_be_left_out(tiny, place):
    full = dataclasses.replace(tiny_run.config().model, remat="full")
    setup = tiny(model=full, microbatches=4, phases=dsrl(warmup=1, total=2))
    assert "alignment.every=0" in mend(setup, place, row("align", peak=40), 16 * GIB)


@pytest.mark.parametrize(
    ("moments", "role", "change"),
    [
        ("float32", "train", 'optimizer.moments="bfloat16"'),
        ("bfloat16", "decode", 'optimizer.placement="host"'),
        ("bfloat16", "train", "a larger slice"),
    ],
)
def test_smaller_moments_where_they_are_enough(tiny, place, moments, role, change):
    """1 GiB too much, with 4 GiB of moments; the host's memory does not help an update."""
    given = dataclasses.replace(tiny_run.config().optimizer, moments=moments)
    held = dataclasses.replace(row(role, peak=17), parts={"parameters": 13 * GIB, "optimizer": 4 * GIB})
    assert change in mend(tiny(optimizer=given), place, held, 16 * GIB)


def test_replicas_of_a_slice_share_their_parameters(place):
    config = dataclasses.replace(tiny_run.config(), mesh=MeshSpec(data=2, fsdp=2, tensor=2))
    held = dataclasses.replace(row("prepare", peak=40), parts={"parameters": 40 * GIB})
    said = mend(abstract_setup(config, jax.devices(), 4), place, held, 16 * GIB)
    assert "mesh.data=1 mesh.fsdp=4 mesh.tensor=2 mesh.replica=1 (now data 2)" in said


def test_the_largest_slice_is_too_small(tiny):
    place = Slice("v5e:2x4", tuple(jax.devices()), dataclasses.replace(chip_named("v5e"), most=8))
    held = dataclasses.replace(row("prepare", peak=40), parts={"parameters": 40 * GIB})
    assert mend(tiny(), place, held, 16 * GIB).startswith("take chips with more memory: 40.00 GiB")


def test_devices_of_unknown_memory(tiny):
    place = Slice("this machine", tuple(jax.devices()), None)
    (line,) = verdict(tiny(), place, [row("train", peak=4), row("decode", peak=5)])
    assert line == (
        "verdict: not known, because the memory of cpu devices is not: decode needs most, 5.00 GiB a device."
    )
    lines = verdict(tiny(), place, [row("train", peak=4), row("decode", refused="too large")])
    assert lines == ["verdict: it does not fit: the compiler refuses 1 of 2 programs.", "decode: too large"]
