"""What a step's work is, counted by hand, and where its time went."""

import dataclasses

import numpy as np
import pytest

from prerl_jax.core.types import Batch, Rollouts, Sequences, ValueBatch
from prerl_jax.models.flops import sampling_flops, scoring_flops, training_flops, value_flops
from prerl_jax.models.layers import DecoderConfig
from prerl_jax.runtime.row_share import ALONE
from prerl_jax.trainer.timing import MARKS, StepClock, TrainedTokens, Work

CONFIG = DecoderConfig(
    model_type="qwen3",
    vocab_size=50,
    hidden_size=64,
    intermediate_size=128,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
)


def rows(lengths, width):
    return np.arange(width) < np.array(lengths)[:, None]


def test_the_work_of_a_step():
    prompt, response = rows([2, 2], 3), rows([4, 1], 5)
    rollouts = Rollouts(prompt, prompt, response, response, np.zeros(2), np.zeros((2, 5)))
    segments = np.array([[1, 1, 1, 1, 1, 1, 2, 2], [1, 1, 0, 0, 0, 0, 0, 0]])  # three sequences in two rows
    weights = np.zeros((2, 8))
    weights[0, 2:5] = 0.1
    batch = Batch(Sequences(segments, segments, segments, segments > 0), weights, weights)
    trained = TrainedTokens.of(batch)
    assert (trained.lengths.tolist(), trained.tokens, trained.valued.tolist()) == ([6, 2, 2], 3, [])
    work = Work(CONFIG, (ALONE, ALONE), [rollouts], [trained], group_size=2)
    expected = sampling_flops(CONFIG, np.array([2, 2]), np.array([4, 1]), 2)
    expected += training_flops(CONFIG, np.array([6, 2, 2]), 3)
    assert work.sums == (5, 10, expected)
    again = Work(CONFIG, (ALONE, ALONE), [rollouts], [trained, trained], 2, scored=[6, 2])
    more = training_flops(CONFIG, np.array([6, 2, 2]), 3) + scoring_flops(CONFIG, [6, 2])
    assert again.sums == (5, 20, expected + more)
    valued = TrainedTokens.of(dataclasses.replace(batch, critic=ValueBatch(batch.sequences, *[weights] * 3)))
    of_critic = Work(CONFIG, (ALONE, ALONE), [rollouts], [valued], 2).sums[2] - expected
    assert of_critic == value_flops(CONFIG, np.array([6, 3])) + 3 * value_flops(CONFIG, np.array([6, 2, 2]))
    times = {"time/step": 2.0, "time/sample": 1.0, "time/train": 0.5, "time/align": 1.5}
    assert "time/mfu" not in work.metrics(times, peak=None)
    assert work.metrics(times, peak=expected) == {
        "train/flops": expected,
        "time/tokens_per_second": 2.5,
        "time/sampled_per_second": 5.0,
        "time/trained_per_second": 20.0,
        "time/mfu": pytest.approx(2.0),
    }


def test_the_parts_of_a_step():
    """A step that begins before the device is free does not count the wait; then one that begins after it."""
    times = StepClock()
    times.marks = dict(zip(MARKS, (1.0, 5.0, 6.0, 8.0, 9.0, 11.0, 21.0), strict=True))
    times.idle = [(1.0, 1.25), (3.0, 3.5)]
    parts = {"sample": 3, "verify": 1, "score": 2, "prepare": 1, "align": 2, "train": 10, "step": 19}
    expected = {f"time/{name}": value for name, value in parts.items()}
    assert times.metrics(free=2.0) == expected | {"time/wait": (0.5 + 1 + 1) / 19}
    later = times.metrics(free=0.5)
    assert (later["time/sample"], later["time/step"]) == (4, 20.5)
    assert later["time/wait"] == (0.5 + 0.25 + 0.5 + 1 + 1) / 20.5


def test_marks():
    times = StepClock()
    times.mark("prepared", "aligned")
    assert times.marks["prepared"] == times.marks["aligned"]
    before = times.marks["aligned"]
    times.mark_once("aligned")
    assert times.marks["aligned"] == before
    times.mark("aligned")
    assert times.marks["aligned"] > before


def test_the_device_is_idle_until_the_engine_is_called():
    clock = StepClock()
    clock.engine_begins()
    clock.engine_ends([(1.0, 2.0)])
    clock.engine_begins()
    first, of_engine, second = clock.idle
    assert first[0] == clock.marks["begun"]
    assert of_engine == (1.0, 2.0)
    assert second[0] == clock.marks["sampled"]
