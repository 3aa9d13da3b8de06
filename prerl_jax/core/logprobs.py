"""Token log-probabilities and entropies from hidden states, without an array of all logits.

    log p_t = z_t[y_t] - logsumexp(z_t),   H_t = logsumexp(z_t) - sum_v p_t[v] z_t[v],   z_t = h_{t-1} W / temperature

The time axis is done in chunks inside a scan, each rematerialised in the backward pass: the largest buffer is
[B, chunk, V].
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from prerl_jax.core.types import Array

LOGITS_BUDGET = 1 << 25
"""Logits held at once over all devices, when the chunk is chosen automatically: 128 MiB of float32."""


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
    states, targets = hidden[:, :-1], tokens[:, 1:]
    chunk = min(chunk or chunk_length(rows, length - 1, unembedding.shape[1]), length - 1)
    # In float32, so that its gradient, a sum over chunks, is one in float32 whatever the compute dtype.
    wide, dtype = unembedding.astype(jnp.float32), unembedding.dtype
    score = jax.checkpoint(lambda h, y: _score(h, wide.astype(dtype), y, temperature))
    if chunk == length - 1:
        logprobs, entropy = score(states, targets)
    else:
        chunks = -(-(length - 1) // chunk)
        padding = chunks * chunk - (length - 1)

        def split(x):
            x = jnp.pad(x, [(0, 0), (0, padding)] + [(0, 0)] * (x.ndim - 2))
            return jnp.moveaxis(x.reshape(rows, chunks, chunk, *x.shape[2:]), 1, 0)

        _, pieces = jax.lax.scan(lambda _, x: (None, score(*x)), None, (split(states), split(targets)))
        logprobs, entropy = (jnp.moveaxis(x, 0, 1).reshape(rows, -1)[:, : length - 1] for x in pieces)
    return tuple(jnp.pad(x, [(0, 0), (1, 0)]) for x in (logprobs, entropy))


def _score(hidden: Array, unembedding: Array, targets: Array, temperature: float) -> tuple[Array, Array]:
    logits = jnp.einsum("btd,dv->btv", hidden, unembedding, preferred_element_type=jnp.float32) / temperature
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    entropy = normaliser - jnp.sum(jnp.exp(logits - normaliser[..., None]) * logits, axis=-1)
    return chosen - normaliser, entropy
