"""Token log-probabilities and entropies from hidden states, without an array of all logits.

    log p_t = z_t[y_t] - logsumexp(z_t),   H_t = logsumexp(z_t) - sum_v p_t[v] z_t[v],   z_t = h_{t-1} W / temperature

    d log p_t / d z_t = onehot(y_t) - p_t,   d H_t / d z_t = -p_t (log p_t + H_t)

The time axis is done in chunks inside a scan, and again, from the hidden states, in the backward pass: the largest
buffers are [B, chunk, V]. A gradient of the gradient is right, since the backward pass is made of plain operations;
forward mode (`jax.jvp`) is refused by JAX.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from prerl_jax.core.types import Array
from prerl_jax.core.xla_cpu import weight_gradient

LOGITS_BUDGET = 200 << 18
"""Logits held at once over all devices, when the chunk is chosen automatically: 200 MiB of float32."""


def chunk_length(rows: int, length: int, vocab: int, shards: int = 1) -> int:
    """How many tokens of every row are done at once: as many as keep rows * chunk * vocab within the budget."""
    return max(1, min(length, LOGITS_BUDGET * shards // max(1, rows * vocab)))


def token_logprobs(
    hidden: Array, unembedding: Array, tokens: Array, *, temperature: float = 1.0, chunk: int | None = None
) -> tuple[Array, Array]:
    """Log-probability of every token given those before it, and the entropy of the distribution it was drawn from.

    Args:
      hidden: [B, T, D], the final hidden state at each token.
      unembedding: [D, V].
      tokens: i32[B, T].
      temperature: divides the logits.
      chunk: tokens of a row done at once; None chooses by LOGITS_BUDGET.

    Returns: (logprobs f32[B, T], entropy f32[B, T]); index t describes token t, so index 0, which has nothing before
      it, is 0 in both. The entropy's gradient flows too.
    """
    rows, length = tokens.shape
    if length < 2:
        return jnp.zeros(tokens.shape, jnp.float32), jnp.zeros(tokens.shape, jnp.float32)
    chunk = chunk or chunk_length(rows, length - 1, unembedding.shape[1])
    scored = _scores(hidden[:, :-1], unembedding, tokens[:, 1:], temperature, chunk)
    return tuple(jnp.pad(x, [(0, 0), (1, 0)]) for x in scored)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _scores(hidden, unembedding, targets, temperature, chunk):
    return _forward(hidden, unembedding, targets, temperature, chunk)[:2]


def _forward(hidden, unembedding, targets, temperature, chunk):
    def step(carry, x):
        return carry, statistics(logits_of(x[0], unembedding, temperature), x[1])

    return over_chunks(step, None, (hidden, targets), chunk)[1]


def _scores_fwd(hidden, unembedding, targets, temperature, chunk):
    hidden, unembedding, targets = (x.value for x in (hidden, unembedding, targets))
    logprobs, entropy, normaliser = _forward(hidden, unembedding, targets, temperature, chunk)
    return (logprobs, entropy), (hidden, unembedding, targets, normaliser, entropy)


def _scores_bwd(temperature, chunk, residuals, cotangents):
    hidden, unembedding, targets, normaliser, entropy = residuals
    d_logprobs, d_entropy = (None if isinstance(c, SymbolicZero) else c for c in cotangents)
    d_logprobs = jnp.zeros_like(normaliser) if d_logprobs is None else d_logprobs

    def step(total, x):
        hidden, targets, normaliser, entropy, d_logprobs, *d_entropy = x
        logits = logits_of(hidden, unembedding, temperature)
        scored = Scored(hidden, targets, logits, normaliser, entropy)
        pulled = pull_back(scored, unembedding, temperature, d_logprobs, *d_entropy)
        return total + pulled[1], pulled[0]

    arrays = (hidden, targets, normaliser, entropy, d_logprobs, *([] if d_entropy is None else [d_entropy]))
    start = jnp.zeros(unembedding.shape, jnp.float32)
    d_unembedding, d_hidden = over_chunks(step, start, arrays, chunk)
    return d_hidden, d_unembedding.astype(unembedding.dtype), None


_scores.defvjp(_scores_fwd, _scores_bwd, symbolic_zeros=True)


# Pieces, of one chunk of C tokens a row


def logits_of(hidden: Array, unembedding: Array, temperature: float) -> Array:
    """f32[B * C, V], whatever the model computes in.

    A matrix throughout: where XLA:CPU sees the shape change, it does not compute in place what has the logits' size.
    """
    logits = jnp.einsum("nd,dv->nv", _flat(hidden), unembedding, preferred_element_type=jnp.float32)
    return logits if temperature == 1.0 else logits / temperature


def statistics(logits: Array, targets: Array) -> tuple[Array, Array, Array]:
    """(log-probability of the target, entropy, logsumexp), f32[B, C] each, of logits f32[B * C, V]."""
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    chosen = jnp.take_along_axis(logits, targets.reshape(-1, 1), axis=-1)[:, 0]
    entropy = entropy_of(logits, normaliser)
    return tuple(x.reshape(targets.shape) for x in (chosen - normaliser, entropy, normaliser))


def entropy_of(logits: Array, normaliser: Array) -> Array:
    """Entropies f32[N] of logits f32[N, V] with their logsumexp f32[N]."""
    return normaliser - jnp.sum(jnp.exp(logits - normaliser[:, None]) * logits, axis=-1)


class Scored(NamedTuple):
    """A chunk of C tokens a row, and what its forward pass found."""

    hidden: Array
    """[B, C, D]."""
    targets: Array
    """i32[B, C]."""
    logits: Array
    """f32[B * C, V]."""
    normaliser: Array
    """f32[B, C]."""
    entropy: Array
    """f32[B, C]."""


def pull_back(
    scored: Scored, unembedding: Array, temperature: float, d_logprobs: Array, d_entropy: Array | None = None
) -> tuple[Array, Array]:
    """Cotangents of log-probabilities (and entropies) f32[B, C] -> of (hidden [B, C, D], unembedding f32[D, V])."""
    hidden, targets, logits, normaliser, entropy = scored
    logprobs = logits - normaliser.reshape(-1, 1)
    p = jnp.exp(logprobs)
    d_logits = d_logprobs.reshape(-1, 1) * ((jnp.arange(logits.shape[-1]) == targets.reshape(-1, 1)) - p)
    if d_entropy is not None:
        d_logits -= d_entropy.reshape(-1, 1) * p * (logprobs + entropy.reshape(-1, 1))
    d_logits = (d_logits / temperature).astype(hidden.dtype)
    d_hidden = to_hidden(d_logits, unembedding).astype(hidden.dtype).reshape(hidden.shape)
    return d_hidden, weight_gradient(_flat(hidden), d_logits, jnp.float32)


def to_hidden(d_logits: Array, unembedding: Array) -> Array:
    """f32[N, D] of the logits' cotangents [N, V] and the unembedding [D, V]."""
    return jnp.einsum("nv,dv->nd", d_logits, unembedding, preferred_element_type=jnp.float32)


def _flat(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


def over_chunks(step: Callable, carry: Any, arrays: Any, chunk: int) -> tuple[Any, Any]:
    """`jax.lax.scan` of `step` over chunks of the second axis of `arrays`; what it gives, [B, C, ...], is rejoined."""
    rows, length = jax.tree.leaves(arrays)[0].shape[:2]
    chunks = max(1, -(-length // chunk))
    if chunks == 1 and length:
        return step(carry, arrays)
    chunk = max(1, -(-length // chunks))  # of rows without a token, one of padding: no step need handle empty arrays

    def split(x):
        x = jnp.pad(x, [(0, 0), (0, chunks * chunk - length)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(rows, chunks, chunk, *x.shape[2:]), 1, 0)

    def join(x):
        return jnp.moveaxis(x, 0, 1).reshape(rows, chunks * chunk, *x.shape[3:])[:, :length]

    carry, pieces = jax.lax.scan(step, carry, jax.tree.map(split, arrays))
    return carry, jax.tree.map(join, pieces)
