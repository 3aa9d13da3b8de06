"""The search of layouts by a model of bytes."""

import dataclasses

import jax
import pytest
import tiny_run
from hand_made import RATES

from prerl_jax import ContinuousBatching
from prerl_jax.plan.program import Lengths
from prerl_jax.plan.search import distinct, ranked
from prerl_jax.plan.topology import Slice
from prerl_jax.runtime.chips import GIB, chip_named

PLACE = Slice("v5e:2x4", tuple(jax.devices()), dataclasses.replace(chip_named("v5e"), usable=16 * GIB))
LENGTHS = Lengths(8, 16)


def with_memory(usable):
    return dataclasses.replace(PLACE, chip=dataclasses.replace(PLACE.chip, usable=usable))


@pytest.fixture(scope="module")
def config():
    tiny = tiny_run.config()
    sampling = dataclasses.replace(tiny.sampling, prompts_per_step=8, engine=ContinuousBatching())
    return dataclasses.replace(tiny, sampling=sampling, alignment=dataclasses.replace(tiny.alignment, every=0))


def test_the_fastest_come_first_and_fit(config):
    found = ranked(config, PLACE, RATES, LENGTHS, 4)
    meshes = {c.config.mesh for c in found}
    assert {mesh.data for mesh in meshes} == {1, 2, 4, 8}
    assert {mesh.tensor for mesh in meshes} == {1, 2}, "the lab has two key-value heads"
    assert {c.config.optimizer for c in found} == {config.optimizer}, "the moments need not change"
    assert all(candidate.peak <= 0.85 * PLACE.usable for candidate in found)
    seconds = [round(candidate.seconds, 2) for candidate in found]
    assert seconds == sorted(seconds)
    best = distinct(found, 3)
    assert len({(c.config.mesh, c.config.sampling.engine) for c in best}) == 3
    with_slots = [c for c in found if any(change == "sampling.engine.slots=8" for change in c.changes)]
    assert with_slots
    assert all(c.config.sampling.engine.slots == 8 for c in with_slots)


@pytest.mark.slow
def test_little_memory_rules_layouts_out_and_then_all(config):
    sizes = sorted(candidate.peak for candidate in ranked(config, PLACE, RATES, LENGTHS, 4))
    half = sizes[len(sizes) // 2]
    fewer = ranked(config, with_memory(half / 0.85), RATES, LENGTHS, 4)
    assert 0 < len(fewer) < len(sizes)
    assert max(candidate.peak for candidate in fewer) <= half
    with pytest.raises(ValueError, match="remat or moments fit v5e:2x4: the least"):
        ranked(config, with_memory(1000.0), RATES, LENGTHS, 4)
