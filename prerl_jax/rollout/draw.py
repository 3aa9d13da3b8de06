"""Drawing a token from logits by inverting the cumulative distribution at one uniform number a row.

One number a row instead of one a vocabulary entry: the cost is a pass over the logits. The inversion is done in two
levels, first over blocks of the vocabulary, then within the block, so that sums stay short and exact to rounding.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from prerl_jax.core.types import Array

BLOCK = 128


def truncate(logits: Array, top_k: int | None, top_p: float | None) -> Array:
    """Logits f32[B, V] with -inf outside the top k, and outside the smallest set of the rest with mass >= top_p.

    What ties with the last one inside stays as well. top_p = 1 keeps all: cumulative sums would lose some to rounding.
    """
    top_p = None if top_p == 1 else top_p
    if top_k is None and top_p is None:
        return logits
    ordered = -jnp.sort(-logits, axis=-1)
    if top_k is not None:
        ordered = ordered[:, : min(top_k, logits.shape[-1])]
    if top_p is not None:
        probabilities = jax.nn.softmax(ordered, axis=-1)
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        ordered = jnp.where(before < top_p, ordered, jnp.inf)
    return jnp.where(logits >= ordered.min(axis=-1, keepdims=True), logits, -jnp.inf)


def categorical(logits: Array, uniform: Array) -> Array:
    """Tokens i32[B] ~ softmax(logits f32[B, V]), each by its row's uniform number in [0, 1).

    Of a row with a logit that is not a number, or is infinite, any token.
    """
    rows, vocab = logits.shape
    mass = jnp.exp(logits - logits.max(axis=-1, keepdims=True))
    blocks = jnp.pad(mass, [(0, 0), (0, -vocab % BLOCK)]).reshape(rows, -1, BLOCK)
    totals = blocks.sum(axis=-1)
    target = uniform * totals.sum(axis=-1)
    block, rest = _invert(totals, target)
    within = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]
    token, _ = _invert(within, rest)
    return jnp.minimum(block * BLOCK + token, vocab - 1)


def _invert(mass: Array, target: Array) -> tuple[Array, Array]:
    """The first index with any mass whose cumulative mass exceeds the target, and the target within it.

    Rounding may leave the target at or above the whole mass: then it is the last index that has any. It may also let
    a parallel sum grow where the mass is 0, so that the sum alone would not keep such an index out.
    """
    cumulative = jnp.cumsum(mass, axis=-1)
    last = mass.shape[-1] - 1 - jnp.argmax(mass[:, ::-1] > 0, axis=-1)
    above = (cumulative > target[:, None]) & (mass > 0)
    index = jnp.where(above.any(axis=-1), jnp.argmax(above, axis=-1), last).astype(jnp.int32)
    before = jnp.take_along_axis(cumulative - mass, index[:, None], axis=-1)[:, 0]
    return index, jnp.maximum(target - before, 0.0)
