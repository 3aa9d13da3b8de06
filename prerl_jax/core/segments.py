"""Means over the sequences of packed rows, each token seeing that of its own segment."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from prerl_jax.core.types import Array


def segment_mean(values: Array, segments: Array, chosen: Array) -> Array:
    """For every token the mean of `values` over the chosen tokens of its segment.

    Args:
      values: f32[B, T].
      segments: i32[B, T], as in Sequences: 1, 2, ... within a row, 0 for padding; at most T.
      chosen: bool[B, T], the tokens that the mean is over; what stands elsewhere is not read.

    Returns: f32[B, T], 0 for segments without a chosen token and at padding. Gradients flow.
    """

    def row(values: Array, segments: Array, chosen: Array) -> Array:
        count = values.shape[0] + 1
        total = jax.ops.segment_sum(jnp.where(chosen, values, 0.0), segments, count)
        number = jax.ops.segment_sum(chosen.astype(values.dtype), segments, count)
        return (total / jnp.maximum(number, 1.0))[segments]

    return jnp.where(segments > 0, jax.vmap(row)(values, segments, chosen & (segments > 0)), 0.0)
