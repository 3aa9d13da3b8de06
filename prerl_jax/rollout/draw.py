"""Drawing the next token of each row from its last hidden state.

On a mesh the logits are split over the vocabulary, in parts of consecutive ids. No device gathers them: each computes
sums over its part, and a candidate; the sums say which part the token is in. The token is that of one device, except
for ties within rounding.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from prerl_jax.core.head import Head
from prerl_jax.core.types import Array

BLOCK = 128
"""Tokens of the vocabulary that `categorical` sums up in its first step."""
OF_INFINITY, OF_MINUS_INFINITY = 0x7F800000, ~0x7F800000
"""The patterns of these floats, as integers in the order of the floats."""
Draw = Callable[[Array, Array], tuple[Array, Array]]
"""(hidden [S, D], index i32[S] of the token in its response) -> (token i32[S], log-probability f32[S])."""


def row_keys(key: Array, ids: Array, samples: Array) -> Array:
    """The keys [S] of rows with these prompt ids i32[S] and sample numbers i32[S]: fold_in(key, id, sample)."""
    return jax.vmap(lambda i, j: jax.random.fold_in(jax.random.fold_in(key, i), j))(ids, samples)


def make_draw(
    head: Head,
    keys: Array,
    temperature: Array | float | None,
    top_k: int | None,
    top_p: float | None,
    parts: int = 1,
) -> Draw:
    """The function that draws each row's next token, see `Draw`.

    Args:
      head: turns hidden states into logits.
      keys: [S], the rows' keys, see `row_keys`.
      temperature: divides the logits; None takes the most likely token, the first of several.
      top_k: draws among the k most likely tokens; None among all.
      top_p: draws among the most likely tokens with this probability mass; None among all.
      parts: into how many parts the mesh splits the vocabulary.

    Returns: a function whose log-probabilities are those at the temperature (1 where it is None), before top-k and
      top-p.
    """

    def draw(hidden: Array, index: Array) -> tuple[Array, Array]:
        logits = head.logits(hidden)
        if temperature is None:
            token = likeliest(logits, parts)
        else:
            logits = logits / temperature
            uniform = jax.vmap(lambda k, t: jax.random.uniform(jax.random.fold_in(k, t)))(keys, index)
            token = categorical(filter_logits(logits, top_k, top_p), uniform, parts)
        chosen = jnp.take_along_axis(logits, token[:, None], axis=-1)[:, 0]
        return token, chosen - jax.nn.logsumexp(logits, axis=-1)

    return draw


def likeliest(logits: Array, parts: int = 1) -> Array:
    """i32[B], the first of the tokens with the largest of the logits f32[B, V], which lie in so many parts."""
    split = logits.reshape(logits.shape[0], parts, -1)
    part = jnp.argmax(split.max(axis=-1), axis=-1)
    return _of_part(jnp.argmax(split, axis=-1), part, split.shape[-1])


def filter_logits(logits: Array, top_k: int | None, top_p: float | None) -> Array:
    """Logits f32[B, V] with -inf outside the top k, and outside the smallest set of the rest with mass >= top_p.

    Tokens as likely as the last one inside stay as well. top_p = 1 keeps all: with sums, rounding would remove some.
    """
    if top_k is not None and top_k < logits.shape[-1]:
        last = _last_inside(logits, jnp.ones_like(logits), jnp.full(logits.shape[:1], float(top_k)))
        logits = jnp.where(logits >= last, logits, -jnp.inf)
    if top_p is not None and top_p < 1:
        mass = jnp.exp(logits - logits.max(axis=-1, keepdims=True))
        last = _last_inside(logits, mass, top_p * mass.sum(axis=-1))
        logits = jnp.where(logits >= last, logits, -jnp.inf)
    return logits


def _last_inside(logits: Array, mass: Array, target: Array) -> Array:
    """f32[B, 1], the smallest logit such that all larger ones have less mass than the target, f32[B].

    Found by bisection over the 32-bit patterns of floats, in their order: sums over the vocabulary, without a sort.
    """
    bits = jax.lax.bitcast_convert_type(logits, jnp.int32)
    rank = jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # as integers, these are in the order of the logits

    def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low >> 1) + (high >> 1) + (low & high & 1)
        inside = jnp.where(rank > middle[:, None], mass, 0).sum(axis=-1) < target
        return jnp.where(inside, low, middle + 1), jnp.where(inside, middle, high)

    lowest, highest = (jnp.full(logits.shape[:1], rank, jnp.int32) for rank in (OF_MINUS_INFINITY, OF_INFINITY))
    _, found = jax.lax.fori_loop(0, 32, halve, (lowest, highest))
    found = jnp.where(found < 0, found ^ 0x7FFFFFFF, found)
    return jax.lax.bitcast_convert_type(found, jnp.float32)[:, None]


def categorical(logits: Array, uniform: Array, parts: int = 1) -> Array:
    """Tokens i32[B] ~ softmax(logits f32[B, V]), each by its row's uniform number, f32[B] in [0, 1).

    The cumulative distribution is inverted in steps: over the parts of the vocabulary, over blocks of BLOCK tokens of
    each part, and within one block. A row with a logit that is NaN or +inf gets an arbitrary token.
    """
    rows, vocab = logits.shape
    size = vocab // parts
    mass = jnp.exp(logits - logits.max(axis=-1, keepdims=True)).reshape(rows, parts, size)
    blocks = jnp.pad(mass, [(0, 0), (0, 0), (0, -size % BLOCK)]).reshape(rows, parts, -1, BLOCK)
    totals = blocks.sum(axis=-1)
    of_parts = totals.sum(axis=-1)
    part, rest = _invert_cumulative(of_parts, uniform * of_parts.sum(axis=-1))
    block, rest = _invert_cumulative(totals, jnp.broadcast_to(rest[:, None], of_parts.shape))
    within = jnp.take_along_axis(blocks, block[..., None, None], axis=-2)[..., 0, :]
    token, _ = _invert_cumulative(within, rest)
    return _of_part(jnp.minimum(block * BLOCK + token, size - 1), part, size)


def _of_part(candidates: Array, part: Array, size: int) -> Array:
    """The candidate, i32[B, parts] within their parts of so many tokens, of the part i32[B], as a token id i32[B]."""
    found = jnp.take_along_axis(candidates, part[:, None], axis=-1)[:, 0]
    return (part * size + found).astype(jnp.int32)


def _invert_cumulative(mass: Array, target: Array) -> tuple[Array, Array]:
    """(the first index with mass whose cumulative mass exceeds the target, the rest of the target at this index).

    `mass` is f32[..., N], `target` f32[...]. Rounding may leave the target at or above the whole mass: then the result
    is the last index with mass. Rounding may also let a parallel sum grow where the mass is 0. So the cumulative sum
    alone would not exclude such an index; `mass > 0` does.
    """
    cumulative = jnp.cumsum(mass, axis=-1)
    last = mass.shape[-1] - 1 - jnp.argmax(mass[..., ::-1] > 0, axis=-1)
    above = (cumulative > target[..., None]) & (mass > 0)
    index = jnp.where(above.any(axis=-1), jnp.argmax(above, axis=-1), last).astype(jnp.int32)
    before = jnp.take_along_axis(cumulative - mass, index[..., None], axis=-1)[..., 0]
    return index, jnp.maximum(target - before, 0.0)
