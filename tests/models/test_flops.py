"""Model FLOPs against the compiler's count of a program without attention's softmax, and against counts by hand."""

import dataclasses

import jax
import numpy as np
import pytest

from prerl_jax.lab import architecture
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.flops import causal_pairs, forward_flops, sampling_flops, training_flops

CONFIG = architecture(50, 2, 64)


def test_matrix_products_are_two_per_weight_and_token():
    params = jax.eval_shape(Decoder(CONFIG).init, jax.random.key(0))
    matrices = [p for p in jax.tree.leaves(params["layers"]) if p.ndim >= 3]
    weights = sum(np.prod(p.shape) for p in matrices)
    assert forward_flops(CONFIG, 7, 0, 0) == 2 * 7 * weights
    assert forward_flops(CONFIG, 0, 0, 3) == 2 * 3 * 64 * 50
    assert forward_flops(CONFIG, 0, 11, 0) == 2 * 11 * CONFIG.num_heads * CONFIG.head_dim * 2 * CONFIG.num_layers
    deeper = dataclasses.replace(CONFIG, num_layers=4)
    assert forward_flops(deeper, 7, 11, 0) == 2 * forward_flops(CONFIG, 7, 11, 0)


def test_sampling_prefills_a_prompt_once_for_its_group():
    prompts, responses = np.array([3, 3, 5, 5]), np.array([2, 4, 1, 0])
    pairs = (6 + 15) + (2 * 3 + 3) + (4 * 3 + 10) + (1 * 5 + 1)
    assert sampling_flops(CONFIG, prompts, responses, 2) == forward_flops(CONFIG, 8 + 7, pairs, 2 + 7)


def test_training_is_three_forward_passes():
    assert causal_pairs(np.array([1, 4])) == 11
    assert training_flops(CONFIG, np.array([1, 4]), 3) == pytest.approx(3 * forward_flops(CONFIG, 5, 11, 3))
