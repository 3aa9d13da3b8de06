"""Means by segment of packed rows."""

import jax
import jax.numpy as jnp
import numpy as np

from prerl_jax.core.objectives import segment_mean

SEGMENTS = jnp.asarray([[0, 1, 1, 2, 2, 2], [1, 1, 2, 3, 4, 0]])
CHOSEN = jnp.asarray([[1, 1, 1, 0, 1, 1], [0, 1, 0, 1, 1, 1]], bool)
VALUES = jnp.asarray([[9, 1, 2, jnp.nan, 5, 7], [jnp.inf, 4, 5, 6, 7, 8.0]])


def test_every_token_sees_the_mean_of_its_segment():
    found = jax.jit(segment_mean)(VALUES, SEGMENTS, CHOSEN)
    np.testing.assert_allclose(found, [[0, 1.5, 1.5, 6, 6, 6], [4, 4, 0, 6, 7, 0]])
    one_each = jnp.arange(1, 7) * jnp.ones((2, 1), int)
    np.testing.assert_allclose(segment_mean(VALUES, one_each, CHOSEN), jnp.where(CHOSEN, VALUES, 0))


def test_gradients_flow_to_the_chosen_tokens_alone():
    gradient = jax.grad(lambda x: (segment_mean(x, SEGMENTS, CHOSEN) ** 2).sum())(VALUES)
    # the sum over a segment of n tokens, c of them chosen, of m^2: 2 n m / c for a chosen one
    np.testing.assert_allclose(gradient, [[0, 3, 3, 0, 18, 18], [0, 16, 0, 12, 14, 0]])
