"""Causal attention within segments, with grouped queries and without repeating keys and values.

    y_t = sum_s softmax_s(q_t . k_s / sqrt(K)) v_s        over s <= t of t's own segment

Long rows are done in blocks of queries, each rematerialised in the backward pass, so that no [T, T] array of scores is
kept. Padding attends to nothing; its output is finite and unused.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

MASKED = -1e30
"""Score of what may not be attended to; finite, so that a row without anything to attend to has no NaN."""
QUERY_BLOCK = 512
"""Queries done at once in rows longer than twice this."""


def attend(query: jax.Array, key: jax.Array, value: jax.Array, segments: jax.Array) -> jax.Array:
    """Attention of packed rows.

    Args:
      query: [B, T, H, K]; query head h reads key head h // (H / N).
      key: [B, T, N, K].
      value: [B, T, N, K].
      segments: i32[B, T], 0 = padding.

    Returns: [B, T, H, K] in the dtype of `value`; softmax is taken in float32.
    """
    length = query.shape[1]
    if length <= 2 * QUERY_BLOCK:
        return _attend_block(query, key, value, segments, segments, 0)
    padding = -length % QUERY_BLOCK
    blocks = (length + padding) // QUERY_BLOCK
    query = _split(query, padding, blocks)
    query_segments = _split(segments, padding, blocks)

    @jax.checkpoint
    def block(_, x):
        q, s, start = x
        return None, _attend_block(q, key, value, s, segments, start)

    _, out = jax.lax.scan(block, None, (query, query_segments, jnp.arange(blocks) * QUERY_BLOCK))
    out = jnp.moveaxis(out, 0, 1)
    return out.reshape(out.shape[0], -1, *out.shape[3:])[:, :length]


def _split(x: jax.Array, padding: int, blocks: int) -> jax.Array:
    """[B, T, ...] -> [blocks, B, QUERY_BLOCK, ...]."""
    x = jnp.pad(x, [(0, 0), (0, padding)] + [(0, 0)] * (x.ndim - 2))
    return jnp.moveaxis(x.reshape(x.shape[0], blocks, QUERY_BLOCK, *x.shape[2:]), 1, 0)


def _attend_block(query, key, value, query_segments, key_segments, start):
    batch, length, heads, head_dim = query.shape
    kv_heads = key.shape[2]
    grouped = query.reshape(batch, length, kv_heads, heads // kv_heads, head_dim)
    scores = jnp.einsum("btngk,bsnk->bngts", grouped, key, preferred_element_type=jnp.float32) * head_dim**-0.5
    causal = (start + jnp.arange(length))[:, None] >= jnp.arange(key.shape[1])[None, :]
    same = (query_segments[:, :, None] == key_segments[:, None, :]) & (query_segments > 0)[:, :, None]
    scores = jnp.where((causal & same)[:, None, None], scores, MASKED)
    out = jnp.einsum("bngts,bsnk->btngk", jax.nn.softmax(scores, axis=-1).astype(value.dtype), value)
    return out.reshape(batch, length, heads, head_dim)


def attend_cached(query, prompt_key, prompt_value, prompt_mask, key, value, index) -> jax.Array:
    """Attention of one new token a row to its prompt, held once a group, and to its own response so far.

    Args:
      query: [Q * G, H, K], rows of a group side by side.
      prompt_key: [Q, N, P, K]; with prompt_value, what the group's G rows share.
      prompt_value: [Q, N, P, K].
      prompt_mask: bool[Q, P].
      key: [Q * G, N, R, K]; slots up to and including `index` are filled.
      value: [Q * G, N, R, K].
      index: i32[].

    Returns: [Q * G, H, K].
    """
    rows, heads, head_dim = query.shape
    groups, kv_heads, prompt_length, _ = prompt_key.shape
    size, repeat = rows // groups, heads // kv_heads
    own = query.reshape(rows, kv_heads, repeat, head_dim)
    shared = own.reshape(groups, size, kv_heads, repeat, head_dim).swapaxes(1, 2)
    shared = shared.reshape(groups, kv_heads, size * repeat, head_dim)

    to_prompt = jnp.einsum("pnqk,pnsk->pnqs", shared, prompt_key, preferred_element_type=jnp.float32)
    to_prompt = jnp.where(prompt_mask[:, None, None, :], to_prompt * head_dim**-0.5, MASKED)
    to_prompt = to_prompt.reshape(groups, kv_heads, size, repeat, prompt_length).swapaxes(1, 2)
    to_prompt = to_prompt.reshape(rows, kv_heads, repeat, prompt_length)
    to_own = jnp.einsum("bnrk,bnsk->bnrs", own, key, preferred_element_type=jnp.float32)
    to_own = jnp.where(jnp.arange(key.shape[2]) <= index, to_own * head_dim**-0.5, MASKED)

    weights = jax.nn.softmax(jnp.concatenate([to_prompt, to_own], axis=-1), axis=-1).astype(value.dtype)
    on_prompt, on_own = weights[..., :prompt_length], weights[..., prompt_length:]
    on_prompt = on_prompt.reshape(groups, size, kv_heads, repeat, prompt_length).swapaxes(1, 2)
    on_prompt = on_prompt.reshape(groups, kv_heads, size * repeat, prompt_length)
    from_prompt = jnp.einsum("pnqs,pnsk->pnqk", on_prompt, prompt_value)
    from_prompt = from_prompt.reshape(groups, kv_heads, size, repeat, head_dim).swapaxes(1, 2)
    out = from_prompt.reshape(rows, kv_heads, repeat, head_dim) + jnp.einsum("bnrs,bnsk->bnrk", on_own, value)
    return out.reshape(rows, heads, head_dim)
