"""The search of layouts by a model of bytes."""

import dataclasses

import jax
import pytest
import tiny_run
from hand_made import RATES

from prerl_jax import ContinuousBatching
from prerl_jax.models.hf import read_config
from prerl_jax.plan.abstract_setup import abstract_setup
from prerl_jax.plan.program import Lengths
from prerl_jax.plan.search import distinct, ranked
from prerl_jax.plan.topology import Slice
from prerl_jax.runtime.chips import GIB, chip_named
from prerl_jax.runtime.mesh import MeshSpec
from prerl_jax.runtime.state import bytes_per_device

PLACE = Slice("v5e:2x4", tuple(jax.devices()), dataclasses.replace(chip_named("v5e"), usable=16 * GIB))
PAIR = dataclasses.replace(PLACE, name="two chips", devices=PLACE.devices[:2])
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


def test_what_passes_between_chips(config):
    """Two sums of states a layer and token where decoding is split in two; four a layer and microbatch in training."""
    config = dataclasses.replace(config, sampling=dataclasses.replace(config.sampling, group_size=8))
    rates = dataclasses.replace(RATES, flops=1e30, bandwidth=1e30, links=1.0)  # seconds are bytes

    def sent(mesh, tensor, microbatches):
        wanted = mesh, ContinuousBatching(slots=64, tensor=tensor), microbatches
        return next(
            c.seconds for c in found if (c.config.mesh, c.config.sampling.engine, c.config.microbatches) == wanted
        )

    found = ranked(config, PAIR, rates, LENGTHS, 4)
    shape, model = read_config(config.model.path), abstract_setup(config, PAIR.devices[:1], 4).model
    params = bytes_per_device(model.abstract_params())
    states = shape.num_layers * shape.hidden_size * 4
    alone = sent(MeshSpec(2, 1, 1), None, 32)
    assert alone == pytest.approx(params), "gradients are summed over two: 2 (n - 1) / n is 1"
    assert sent(MeshSpec(2, 1, 1), 2, 32) - alone == pytest.approx(2 * states * 64 * LENGTHS.response)
    decoding, length = 2 * states * 64 * LENGTHS.response, 8 + 32
    parts = round(64 * (LENGTHS.prompt + LENGTHS.response) / length)
    assert sent(MeshSpec(1, 1, 2), None, 64) - decoding == pytest.approx(4 * parts * states * length)


def test_only_a_cache_that_grows_exists_twice(config):
    sampling = dataclasses.replace(config.sampling, max_new_tokens=201)

    def least(*rings):
        engine = ContinuousBatching(rings=rings)
        changed = dataclasses.replace(config, sampling=dataclasses.replace(sampling, engine=engine))
        return min(c.peak for c in ranked(changed, PAIR, RATES, LENGTHS, 4) if c.config.sampling.engine.slots == 32)

    model = abstract_setup(config, PAIR.devices, 4).model
    assert least(100, 200) - least(200) == model.cache_bytes(32, 100, None)


@pytest.mark.slow
def test_little_memory_rules_layouts_out_and_then_all(config):
    sizes = sorted(candidate.peak for candidate in ranked(config, PLACE, RATES, LENGTHS, 4))
    half = sizes[len(sizes) // 2]
    fewer = ranked(config, with_memory(half / 0.85), RATES, LENGTHS, 4)
    assert 0 < len(fewer) < len(sizes)
    assert max(candidate.peak for candidate in fewer) <= half
    with pytest.raises(ValueError, match="remat or moments fit v5e:2x4: the least"):
        ranked(config, with_memory(1000.0), RATES, LENGTHS, 4)
