"""Token log-probabilities and entropies from hidden states, without an array of all logits.

    z_t = head(h_{t-1}) / temperature
    log p_t = z_t[y_t] - logsumexp(z_t),   H_t = logsumexp(z_t) - sum_v p_t[v] z_t[v]

    d log p_t / d z_t = onehot(y_t) - p_t,   d H_t / d z_t = -p_t (log p_t + H_t)

Tokens are processed in chunks of the time axis, inside a scan. The backward pass computes each chunk's logits again
from the hidden states, so the largest buffers are [B, chunk, V]. The backward pass is made of plain operations, so a
gradient of the gradient is right. JAX refuses forward mode (`jax.jvp`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from prerl_jax.core.head import Head
from prerl_jax.core.types import Array
from prerl_jax.core.xla_cpu import as_matrix, weight_gradient

LOGITS_BUDGET = 200 << 18
"""Logits held at once over all devices, when the chunk is chosen automatically: 200 MiB of float32."""


def chunk_length(rows: int, length: int, vocab: int, shards: int = 1) -> int:
    """The tokens of every row in one chunk: as many as keep rows * chunk * vocab within LOGITS_BUDGET, at least 1.

    Args:
      rows: B.
      length: T, the largest chunk.
      vocab: V.
      shards: number of devices that the logits are split over; the budget is for each.
    """
    return max(1, min(length, LOGITS_BUDGET * shards // max(1, rows * vocab)))


def token_logprobs(
    hidden: Array, head: Head, tokens: Array, *, temperature: float = 1.0, chunk: int | None = None
) -> tuple[Array, Array]:
    """The log-probability of every token given those before it, and the entropy of the distribution it was drawn from.

    Args:
      hidden: [B, T, D], the final hidden state at each token.
      head: turns hidden states into logits, see `Head`.
      tokens: i32[B, T].
      temperature: divides the logits; above 0.
      chunk: tokens of a row in one chunk; None chooses by LOGITS_BUDGET.

    Returns: (logprobs f32[B, T], entropy f32[B, T]), both differentiable in `hidden` and `head.weights`. Index t
      describes token t. Index 0 has nothing before it and is 0 in both. A token id that is not below `head.valid_ids`
      has log-probability -inf.
    """
    rows, length = tokens.shape
    if length < 2:
        return jnp.zeros(tokens.shape, jnp.float32), jnp.zeros(tokens.shape, jnp.float32)
    chunk = chunk or chunk_length(rows, length - 1, head.vocab_size)
    logprobs, entropy = _scores(hidden[:, :-1], head, tokens[:, 1:], temperature, chunk)
    return jnp.pad(logprobs, [(0, 0), (1, 0)]), jnp.pad(entropy, [(0, 0), (1, 0)])


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _scores(hidden, head, targets, temperature, chunk):
    return _forward(hidden, head, targets, temperature, chunk)[:2]


def _forward(hidden, head, targets, temperature, chunk):
    def score(hidden, targets):
        return statistics(logits_of(hidden, head, temperature), targets, head)

    return map_chunks(score, (hidden, targets), chunk)


def _scores_fwd(hidden, head, targets, temperature, chunk):
    hidden, head, targets = jax.tree.map(lambda x: x.value, (hidden, head, targets))
    logprobs, entropy, normaliser = _forward(hidden, head, targets, temperature, chunk)
    return (logprobs, entropy), (hidden, head, targets, normaliser, entropy)


def _scores_bwd(temperature, chunk, residuals, cotangents):
    hidden, head, targets, normaliser, entropy = residuals
    d_logprobs, d_entropy = (None if isinstance(c, SymbolicZero) else c for c in cotangents)
    d_logprobs = jnp.zeros_like(normaliser) if d_logprobs is None else d_logprobs

    def step(total, x):
        hidden, targets, normaliser, entropy, d_logprobs, *d_entropy = x
        scored = Scored(hidden, targets, logits_of(hidden, head, temperature), normaliser, entropy)
        d_hidden, d_weights = pull_back(scored, head, temperature, d_logprobs, *d_entropy)
        return total + d_weights, d_hidden

    arrays = (hidden, targets, normaliser, entropy, d_logprobs, *([] if d_entropy is None else [d_entropy]))
    start = jnp.zeros(head.weights.shape, jnp.float32)
    d_weights, d_hidden = over_chunks(step, start, arrays, chunk)
    return d_hidden, dataclasses.replace(head, weights=d_weights.astype(head.weights.dtype)), None


_scores.defvjp(_scores_fwd, _scores_bwd, symbolic_zeros=True)


# Pieces, of one chunk of C tokens a row


def logits_of(hidden: Array, head: Head, temperature: float) -> Array:
    """Hidden states [B, C, D] -> logits f32[B * C, V], divided by the temperature. A matrix, see `as_matrix`."""
    logits = head.logits(as_matrix(hidden))
    return logits if temperature == 1.0 else logits / temperature


def statistics(logits: Array, targets: Array, head: Head) -> tuple[Array, Array, Array]:
    """(log-probability of the target, entropy, logsumexp), f32[B, C] each, of logits f32[B * C, V]."""
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    chosen = jnp.take_along_axis(logits, targets.reshape(-1, 1), axis=-1)[:, 0]
    entropy = entropy_of(logits, normaliser, head)
    logprobs, entropy, normaliser = (x.reshape(targets.shape) for x in (chosen - normaliser, entropy, normaliser))
    return logprobs, entropy, normaliser


def entropy_of(logits: Array, normaliser: Array, head: Head) -> Array:
    """Logits f32[N, V] of a head, their logsumexp f32[N] -> entropies f32[N]."""
    p = jnp.exp(logits - normaliser[:, None])
    return normaliser - jnp.sum(p * head.fill_invalid(logits, 0.0), axis=-1)


class Scored(NamedTuple):
    """A chunk of C tokens a row, and the results of its forward pass.

    Attributes:
      hidden: [B, C, D].
      targets: i32[B, C].
      logits: f32[B * C, V], divided by the temperature.
      normaliser: f32[B, C], the logits' logsumexp.
      entropy: f32[B, C].
    """

    hidden: Array
    targets: Array
    logits: Array
    normaliser: Array
    entropy: Array


def pull_back(
    scored: Scored, head: Head, temperature: float, d_logprobs: Array, d_entropy: Array | None = None
) -> tuple[Array, Array]:
    """The backward pass of one chunk.

    Args:
      scored: the chunk and its forward pass.
      head: gave the logits.
      temperature: divided them.
      d_logprobs: f32[B, C], cotangents of the log-probabilities.
      d_entropy: f32[B, C], cotangents of the entropies; None where nothing depends on them.

    Returns: the cotangents of (hidden [B, C, D], head.weights f32[D, V]).
    """
    hidden, targets, logits, normaliser, entropy = scored
    logprobs = logits - normaliser.reshape(-1, 1)
    p = jnp.exp(logprobs)
    d_logits = d_logprobs.reshape(-1, 1) * ((jnp.arange(logits.shape[-1]) == targets.reshape(-1, 1)) - p)
    if d_entropy is not None:
        d_logits -= d_entropy.reshape(-1, 1) * p * (head.fill_invalid(logprobs, 0.0) + entropy.reshape(-1, 1))
    d_logits = (head.pull_back(d_logits, logits, temperature) / temperature).astype(hidden.dtype)
    d_hidden = to_hidden(d_logits, head).astype(hidden.dtype).reshape(hidden.shape)
    return d_hidden, weight_gradient(as_matrix(hidden), d_logits, jnp.float32)


def to_hidden(d_product: Array, head: Head) -> Array:
    """Cotangents [N, V] of `hidden @ head.weights` -> those of the hidden states, f32[N, D]."""
    return jnp.einsum("nv,dv->nd", d_product, head.weights, preferred_element_type=jnp.float32)


# Chunks of the time axis


def map_chunks(function: Callable, arrays: Any, chunk: int) -> Any:
    """`function(*arrays)`, computed in chunks of the second axis and joined again.

    Args:
      function: takes arrays [B, C, ...] and returns a tree of arrays [B, C, ...]; no token may depend on another.
      arrays: a tuple of arrays [B, T, ...].
      chunk: C.
    """
    return over_chunks(lambda _, x: (None, function(*x)), None, arrays, chunk)[1]


def over_chunks(step: Callable, carry: Any, arrays: Any, chunk: int) -> tuple[Any, Any]:
    """`jax.lax.scan` of `step` over chunks of the second axis.

    Args:
      step: (carry, arrays [B, C, ...]) -> (carry, results [B, C, ...]).
      carry: what the first chunk gets.
      arrays: a tree of arrays [B, T, ...], padded with zeros to whole chunks.
      chunk: the largest C.

    Returns: (the last carry, the results [B, T, ...]).
    """
    rows, length = jax.tree.leaves(arrays)[0].shape[:2]
    chunks = max(1, -(-length // chunk))
    if chunks == 1 and length:
        return step(carry, arrays)
    chunk = max(1, -(-length // chunks))  # rows without a token get one of padding: no step sees an empty array

    def split(x):
        x = jnp.pad(x, [(0, 0), (0, chunks * chunk - length)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(rows, chunks, chunk, *x.shape[2:]), 1, 0)

    def join(x):
        return jnp.moveaxis(x, 0, 1).reshape(rows, chunks * chunk, *x.shape[3:])[:, :length]

    carry, pieces = jax.lax.scan(step, carry, jax.tree.map(split, arrays))
    return carry, jax.tree.map(join, pieces)
