"""The key-value cache of decoding, and attention to it: prompts held once a group, responses in a ring.

    y = sum_s softmax_s(q . k_s / sqrt(K)) v_s        over the row's prompt and its own last n tokens

All rows write the ring at one column, clock mod S. A row's own entries are the last n columns, so a row begins anew by
setting its n to 0, and nothing is moved: positions are baked into the keys as they are written. Keys lie with their
columns last, which makes the scores a plain product of matrices.

Stored as "int8", what a head holds of a token has one scale, max|x| / 127; scores and weights are multiplied by it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from prerl_jax.models.attention import MASKED

Array = jax.Array
CACHE_DTYPES = (None, "bfloat16", "int8")
LINE = 16
"""float32 columns that fill a cache line of 64 bytes."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Held:
    """Keys [..., N, K, S] or values [..., N, S, K] of N heads of size K and S columns."""

    data: Array
    scale: Array | None
    """f32, 1 on the axis of size K; None where `data` is as it was computed."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    """Keys and values of Q prompts, each once, and of their Q * G rows' own tokens.

    Of every layer one `Held`, in a tuple; or one `Held` of all layers, stacked on a leading axis.
    """

    prompt_key: Any
    """[Q, N, K, P]."""
    prompt_value: Any
    """[Q, N, P, K]."""
    prompt_mask: Array
    """bool[Q, P]."""
    key: Any
    """[Q * G, N, K, S]."""
    value: Any
    """[Q * G, N, S, K]."""


def head_bytes(size: int, dtype: Any, compute_dtype: Any) -> int:
    """Bytes that a key or a value of one head takes, as `hold` stores it."""
    return size + 4 if dtype == "int8" else size * jnp.dtype(dtype or compute_dtype).itemsize


def whole_lines(columns: int) -> int:
    """So many columns or up to 15 more: a ring whose rows of keys begin where a line of the cache does.

    Scores of 2 x 32 by 32 x 53, read from memory, took XLA:CPU 1.7 times as long as of 2 x 32 by 32 x 64.
    """
    return -(-columns // LINE) * LINE


def hold(x: Array, axis: int, dtype: Any) -> Held:
    """`x` as it is stored: `axis` is that of the head's size, `dtype` one of CACHE_DTYPES."""
    if dtype != "int8":
        return Held(x if dtype is None else x.astype(dtype), None)
    wide = x.astype(jnp.float32)
    scale = jnp.maximum(jnp.abs(wide).max(axis=axis, keepdims=True), 1e-30) / 127
    return Held(jnp.round(wide / scale).astype(jnp.int8), scale)


def write(ring: Held, x: Array, column: Array, *, axis: int, columns: int, dtype: Any, layer: Array | None) -> Held:
    """The ring with the new token's x [B, N, K] at a column; `axis`, `columns`: of the head's size and the columns."""
    new = hold(jnp.expand_dims(x, columns), axis, dtype)

    def put(old: Array, new: Array) -> Array:
        start: list[Array | int] = [0] * new.ndim
        start[columns] = column
        if layer is not None:
            new, start = new[None], [layer, *start]
        return jax.lax.dynamic_update_slice(old, new.astype(old.dtype), start)

    scale = None if ring.scale is None or new.scale is None else put(ring.scale, new.scale)
    return Held(put(ring.data, new.data), scale)


def valid_columns(columns: int, lengths: Array, clock: Array) -> Array:
    """bool[B, S]: the last lengths[b] + 1 columns up to and including that of the clock."""
    age = (clock - jnp.arange(columns)) % columns
    return age <= lengths[:, None]


def attend_cached(
    query: Array, prompt_key: Held, prompt_value: Held, prompt_mask: Array, key: Held, value: Held, valid: Array
) -> Array:
    """Attention of one new token a row to its prompt, held once a group, and to its own tokens so far.

    Args:
      query: [Q * G, H, K], rows of a group side by side; query head h reads key head h // (H / N).
      prompt_key: [Q, N, K, P]; with prompt_value, what the group's G rows share.
      prompt_value: [Q, N, P, K].
      prompt_mask: bool[Q, P].
      key: [Q * G, N, K, S].
      value: [Q * G, N, S, K].
      valid: bool[Q * G, S], the row's own columns.

    Returns: [Q * G, H, K] in the dtype of `query`. The softmax is over both parts at once, in float32.
    """
    rows, heads, head_dim = query.shape
    groups, kv_heads = prompt_key.data.shape[:2]
    size, repeat = rows // groups, heads // kv_heads
    scaled = query * jnp.asarray(head_dim**-0.5, query.dtype)
    own = scaled.reshape(rows, kv_heads, repeat, head_dim)

    def together(x: Array) -> Array:
        """[Q * G, N, H / N, ...] -> [Q, N, G * H / N, ...]."""
        x = x.reshape(groups, size, kv_heads, repeat, *x.shape[3:]).swapaxes(1, 2)
        return x.reshape(groups, kv_heads, size * repeat, *x.shape[4:])

    def apart(x: Array) -> Array:
        x = x.reshape(groups, kv_heads, size, repeat, *x.shape[3:]).swapaxes(1, 2)
        return x.reshape(rows, kv_heads, repeat, *x.shape[4:])

    to_prompt = _scores(together(own), prompt_key, prompt_mask)
    to_own = _scores(own, key, valid)
    top = jnp.maximum(apart(to_prompt.max(axis=-1)), to_own.max(axis=-1))
    on_prompt, on_own = jnp.exp(to_prompt - together(top)[..., None]), jnp.exp(to_own - top[..., None])
    total = apart(on_prompt.sum(axis=-1)) + on_own.sum(axis=-1)
    y = apart(_weighted(on_prompt, prompt_value, query.dtype)) + _weighted(on_own, value, query.dtype)
    return (y / total[..., None]).astype(query.dtype).reshape(rows, heads, head_dim)


def _scores(query: Array, key: Held, valid: Array) -> Array:
    """f32[B, N, M, S] of queries [B, N, M, K], with MASKED where not valid [B, S]."""
    scores = jnp.einsum("bnmk,bnks->bnms", query, key.data.astype(query.dtype), preferred_element_type=jnp.float32)
    scores = scores if key.scale is None else scores * key.scale
    return jnp.where(valid[:, None, None, :], scores, MASKED)


def _weighted(weights: Array, value: Held, dtype: Any) -> Array:
    """f32[B, N, M, K], the sum of values by weights [B, N, M, S]."""
    weights = weights if value.scale is None else weights * value.scale[..., 0][:, :, None]
    return jnp.einsum(
        "bnms,bnsk->bnmk", weights.astype(dtype), value.data.astype(dtype), preferred_element_type=jnp.float32
    )
