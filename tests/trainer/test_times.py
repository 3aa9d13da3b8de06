"""What a step's work is, counted by hand."""

import numpy as np
import pytest

from prerl_jax.core.types import Batch, Rollouts, Sequences
from prerl_jax.models.flops import sampling_flops, scoring_flops, training_flops
from prerl_jax.models.layers import DecoderConfig
from prerl_jax.trainer.times import Work

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
    work = Work(CONFIG, [rollouts], [batch], group_size=2)
    assert (work.sampled, work.trained) == (5, 10)
    expected = sampling_flops(CONFIG, np.array([2, 2]), np.array([4, 1]), 2)
    expected += training_flops(CONFIG, np.array([6, 2, 2]), 3)
    assert work.flops == expected
    again = Work(CONFIG, [rollouts], [batch, batch], 2, scored=[6, 2])
    assert again.trained == 20
    assert again.flops == expected + training_flops(CONFIG, np.array([6, 2, 2]), 3) + scoring_flops(CONFIG, [6, 2])
    times = {"time/step": 2.0, "time/sample": 1.0, "time/train": 0.5, "time/align": 1.5}
    assert work.metrics(times, peak=expected) == {
        "train/flops": expected,
        "time/tokens_per_second": 2.5,
        "time/sampled_per_second": 5.0,
        "time/trained_per_second": 20.0,
        "time/mfu": pytest.approx(2.0),
    }
