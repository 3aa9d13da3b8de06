"""The first step is the same in any number of microbatches and slots, and on one device or eight; and a run
compiles one."""

import dataclasses
import functools
import types

import jax
import numpy as np
import pytest
import tiny_run
import toy

import prerl_jax as pj
from prerl_jax import grpo, nsr_prerl
from prerl_jax.config import AlignmentSpec
from prerl_jax.core.types import Batch, Sequences
from prerl_jax.runtime.mesh import MeshSpec
from prerl_jax.trainer.programs import Programs
from prerl_jax.trainer.setup import set_up

GRPO = grpo(steps=2)
UPDATES = (
    pj.Phase(
        "updates",
        2,
        objective=pj.WithKL(pj.ClippedPG(), 0.1),
        reward_shaping=pj.KLPenalty(0.5),
        reference=pj.InitialModel(),
        epochs=2,
        minibatches=2,
    ),
)
"""Their updates are compared, so the gradient is not divided by its own size: rounding would be."""


def first_step(config, devices=None):
    """(metrics, parameters afterwards) of a config's first step."""
    _, state, (metrics,) = tiny_run.steps(config, 1, devices)
    return metrics, jax.device_get(state.params)


def tiny(phases, **fields):
    config = tiny_run.config()
    smooth = dataclasses.replace(config.optimizer, learning_rate=0.1, eps=1.0)
    if phases is UPDATES:
        fields["optimizer"] = smooth
    return dataclasses.replace(config, phases=phases, alignment=AlignmentSpec(), **fields)


@functools.cache
def plain(phases):
    return first_step(tiny(phases))


SAMPLING = dataclasses.replace(tiny_run.config().sampling, engine=pj.ContinuousBatching(slots=8))
VARIANTS = {
    "two microbatches": lambda phases: first_step(tiny(phases, microbatches=2)),
    "half the slots": lambda phases: first_step(tiny(phases, sampling=SAMPLING)),
    "eight devices": lambda phases: first_step(tiny(phases, mesh=MeshSpec(2, 2, 2)), jax.devices()),
}


@pytest.mark.parametrize("variant", ["two microbatches", pytest.param("eight devices", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_several_updates_are_the_same(variant):
    expected, params = plain(UPDATES)
    metrics, other = VARIANTS[variant](UPDATES)
    assert abs(expected["train/ratio"] - 1) > 1e-3
    assert expected["train/reference_kl"] > 1e-4
    for name in (
        "grad_norm",
        "loss",
        "entropy",
        "ratio",
        "clip_fraction",
        "reference_kl",
        "kept_fraction",
        "tokens",
        "skipped",
    ):
        np.testing.assert_allclose(metrics[f"train/{name}"], expected[f"train/{name}"], rtol=1e-3, atol=1e-6)
    toy.assert_close(other, params, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["two microbatches", "half the slots", "eight devices"])
def test_the_first_step_is_the_same(variant):
    expected, params = plain(GRPO)
    metrics, other = VARIANTS[variant](GRPO)
    assert 0 < metrics["train/reward"] < 1
    for name in ("reward", "accuracy", "length", "truncated", "kept_fraction", "trained_fraction", "tokens", "skipped"):
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


@pytest.mark.slow
def test_a_smaller_cache_samples_from_a_policy_near_the_one_that_is_scored():
    sampling = dataclasses.replace(tiny_run.config().sampling, cache_dtype="int8")
    config = tiny(GRPO, sampling=sampling)
    programs = Programs(set_up(config))
    assert [e.config.cache_dtype for e in (programs.evaluation_engine, programs.engine(GRPO[0]))] == ["int8", "int8"]
    metrics, params = first_step(config)
    assert 0 < metrics["train/accuracy"] < 1
    assert plain(GRPO)[0]["train/sampler_logprob_diff"] < 1e-5 < metrics["train/sampler_logprob_diff"] < 0.05
    assert metrics["train/grad_norm"] > 0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))


@pytest.mark.slow
def test_a_run_compiles_one_step_for_any_number_of_rows():
    config = dataclasses.replace(tiny_run.config(), phases=nsr_prerl(steps=12), alignment=AlignmentSpec())
    _, state, metrics = tiny_run.steps(config, 12)
    assert int(state.phase) == 1
    trained = {of_step["train/trained_fraction"] for of_step in metrics}
    assert len(trained) > 4, "the number of rows that are computed changes from step to step"
    # The last step ends the phase, and is the first one that evaluates.
    assert all(of_step["time/compile"] == 0 for of_step in metrics[1:-1]), "all are compiled in the first step"


def test_phases_that_sample_alike_share_an_engine(setup):
    programs = Programs(setup)
    first, second = setup.phases
    assert programs.engine(first) is programs.engine(second)
    assert programs.engine(first) is not programs.engine(dataclasses.replace(second, temperature=0.7))
    assert programs.step(first) is programs.step(first)


@pytest.mark.parametrize(
    ("microbatches", "prompts", "shards", "rows"),
    [(1, 4, 1, 2), (1, 4, 2, 2), (1, 3, 1, 2), (2, 4, 1, 2), (16, 4, 1, 1), (1, 2, 2, 2), (1, 5, 5, 5), (4, 10, 5, 5)],
)
def test_rows_of_a_part(setup, microbatches, prompts, shards, rows):
    """Groups are of 4: a microbatch, an eighth of the batch, or the next larger part that divides over the shards."""
    config, mesh = setup.config, types.SimpleNamespace(shape={"data": shards, "fsdp": 1, "tensor": 1})
    sampling = dataclasses.replace(config.sampling, prompts_per_step=prompts)
    config = dataclasses.replace(config, microbatches=microbatches, sampling=sampling)
    assert dataclasses.replace(setup, config=config, mesh=mesh).part_rows == rows


@pytest.mark.parametrize(
    ("microbatches", "measured", "shards", "parts"),
    [(1, 4, 1, 1), (2, 4, 1, 2), (2, 3, 1, 2), (4, 3, 1, 3), (4, 4, 4, 4), (3, 3, 1, 3), (16, 2, 1, 8)],
)
def test_alignment_is_measured_in_parts_of_a_microbatch_at_most(setup, microbatches, measured, shards, parts):
    mesh = types.SimpleNamespace(shape={"data": 1, "fsdp": shards, "tensor": 1})
    config = dataclasses.replace(
        setup.config, microbatches=microbatches, alignment=dataclasses.replace(setup.config.alignment, prompts=measured)
    )
    assert dataclasses.replace(setup, config=config, mesh=mesh).alignment_parts == parts


def test_used_rows_come_first(setup):
    """Part i of the step is every 8th row from i on: three packed rows are the two of part 0 and one of part 1."""
    programs, phase = Programs(setup), setup.phases[1]
    tokens = np.ones(programs.batching.shape, np.int32)
    mask = np.arange(len(tokens))[:, None] < 3
    sequences = Sequences(tokens, tokens.cumsum(axis=1, dtype=np.int32) - 1, tokens, tokens * mask > 0)
    packed = programs.batching.pack(phase, Batch(sequences, np.float32(tokens * mask), np.float32(tokens)))
    assert packed.weights.shape == programs.batching.shape == (16, 40)
    assert np.flatnonzero(packed.weights.any(axis=1)).tolist() == [0, 1, 8]
