"""The first step is the same in any number of microbatches and slots, and on one device or eight; and a run
compiles a handful of steps."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
import tiny_run

from prerl_jax import grpo, nsr_prerl
from prerl_jax.data import make_batches
from prerl_jax.runtime.mesh import MeshSpec
from prerl_jax.runtime.metrics import MetricsWriter
from prerl_jax.runtime.state import create_state
from prerl_jax.trainer.assembly import assemble
from prerl_jax.trainer.loop import Loop, Run
from prerl_jax.trainer.programs import Programs, row_bucket


def begin(config, devices=None):
    assembly = assemble(config, devices)
    state = create_state(assembly.load_params(), assembly.optimizer(assembly.phases[0]), assembly.mesh, config.seed)
    batches = make_batches(len(assembly.train), batch=config.sampling.prompts, seed=config.seed)
    return Run(Programs(assembly), state, batches, MetricsWriter("", enabled=False), None, None)


def first_step(config, devices=None):
    """(metrics, parameters afterwards) of a config's first step."""
    run = begin(config, devices)
    with Loop(run) as loop:
        loop.conclude(step := loop.step(1))
    return step.scalars, jax.device_get(run.state.params)


def tiny(**fields):
    return dataclasses.replace(tiny_run.config(), phases=grpo(steps=2), alignment_every=0, **fields)


@functools.cache
def plain():
    return first_step(tiny())


SAMPLING = dataclasses.replace(tiny_run.config().sampling, slots=8)
VARIANTS = {
    "two microbatches": lambda: first_step(tiny(microbatches=2)),
    "half the slots": lambda: first_step(tiny(sampling=SAMPLING)),
    "eight devices": lambda: first_step(tiny(mesh=MeshSpec(data=2, fsdp=2, tensor=2)), jax.devices()),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_first_step_is_the_same(variant):
    expected, params = plain()
    metrics, other = VARIANTS[variant]()
    assert 0 < metrics["train/reward"] < 1
    for name in ("reward", "accuracy", "length", "truncated", "kept", "computed", "tokens", "skipped"):
        assert metrics[f"train/{name}"] == expected[f"train/{name}"], name
    for name in ("grad_norm", "loss", "entropy", "logprob", "ratio", "sampler_logprob"):
        np.testing.assert_allclose(
            metrics[f"train/{name}"], expected[f"train/{name}"], rtol=1e-4, atol=1e-6, err_msg=name
        )
    rate = tiny_run.config().optimizer.learning_rate
    for a, b in zip(jax.tree.leaves(other), jax.tree.leaves(params), strict=True):
        # Adam's first step goes by the gradient's sign: where that is rounding, two can be two rates apart.
        np.testing.assert_allclose(a, b, atol=2.01 * rate)
        assert np.mean(np.abs(a - b) > 0.1 * rate) < 0.01


def test_a_run_compiles_a_handful_of_steps():
    config = dataclasses.replace(tiny_run.config(), phases=nsr_prerl(steps=12), alignment_every=0)
    run = begin(config)
    with Loop(run) as loop:
        steps = [loop.step(number) for number in range(1, 13)]
        for step in steps:
            loop.conclude(step)
    assert int(run.state.phase) == 1
    kept = {step.scalars["train/computed"] for step in steps}
    assert len(kept) > 4, "the number of rows that are computed changes from step to step"
    (phase,) = run.assembly.phases
    assert run.programs.step(phase)._cache_size() <= 6, "of the 8 buckets that up to 16 rows fall into"
    _, sampling = run.programs.engine(phase).programs(16)
    assert (sampling.prefill._cache_size(), sampling.decode._cache_size()) == (1, 1)


def test_phases_that_sample_alike_share_an_engine(assembly):
    programs = Programs(assembly)
    first, second = assembly.phases
    assert programs.engine(first) is programs.engine(second)
    assert programs.engine(first) is not programs.engine(dataclasses.replace(second, temperature=0.7))
    assert programs.step(first) is programs.step(first)


def test_row_buckets():
    """Up to a microbatch: shards x (1, 2, 3, 4, 6, 8, ...), at most all of it; past it: microbatches x the same."""
    assert [row_bucket(n, 1, 16) for n in (0, 1, 2, 3, 4, 5, 7, 9, 13, 16)] == [1, 1, 2, 3, 4, 6, 8, 12, 16, 16]
    assert [row_bucket(n, 4, 24) for n in (1, 5, 9, 13, 17, 24)] == [4, 8, 12, 16, 24, 24]
    assert [row_bucket(n, 4, 20) for n in (13, 17, 20)] == [16, 20, 20]
    assert [row_bucket(n, 2, 8) for n in (8, 9, 17, 25, 33, 49)] == [8, 16, 24, 32, 48, 64]
