"""The verdict: whether a run fits, and what mends it."""

import dataclasses

import jax
import pytest
import tiny_run
from hand_made import row

from prerl_jax import ContinuousBatching, dsrl
from prerl_jax.plan.advice import mend, verdict
from prerl_jax.plan.topology import Slice
from prerl_jax.runtime.chips import GIB, chip_named


@pytest.fixture
def place():
    return Slice("v5e:2x4", tuple(jax.devices()), chip_named("v5e"))


def sampling(**changes):
    return dataclasses.replace(tiny_run.config().sampling, **changes)


def test_a_run_that_fits(tiny, place):
    (line,) = verdict(tiny(), place, [row("train", peak=4), row("decode", peak=12)], 16 * GIB)
    assert line == "verdict: it fits. decode leaves least free: 25%."


def test_a_run_that_does_not(tiny, place):
    lines = verdict(tiny(), place, [row("prefill", peak=4), row("decode", peak=18)], 16 * GIB)
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
