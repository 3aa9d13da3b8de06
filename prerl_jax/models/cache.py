"""The key-value cache of decoding, and attention to it. A prompt is stored once for its group, responses in a ring.

    y = sum_s softmax_s(q . k_s / sqrt(K)) v_s        over the row's prompt and its own last n tokens

All rows write to the same column of the ring, clock mod S. The last n columns belong to the row's current response, so
a new response starts by setting n to 0. Nothing has to be moved, because keys are rotated by their positions when they
are written. Keys have their columns last, which makes the scores a plain product of matrices.

An "int8" cache has one scale for each token of each head, max|x| / 127. Scores and weights are multiplied by it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from prerl_jax.core.pytree import pytree
from prerl_jax.models.attention import MASKED

Array = jax.Array
CACHE_DTYPES = (None, "bfloat16", "int8")
LINE = 16
"""float32 columns of a cache line of 64 bytes."""


@pytree
class Held:
    """Keys or values as they are stored, of N heads of size K and S columns.

    Attributes:
      data: keys [..., N, K, S] or values [..., N, S, K].
      scale: f32, with size 1 on the axis of K; None where `data` has no scale (any dtype but int8).
    """

    data: Array
    scale: Array | None


@pytree
class Cache:
    """Keys and values of Q prompts, each stored once, and of the responses of their Q * G rows.

    The four fields of keys and values are each a tuple with one `Held` per layer, or one `Held` of all layers, stacked
    on a leading axis.

    Attributes:
      prompt_key: [Q, N, K, P].
      prompt_value: [Q, N, P, K].
      prompt_mask: bool[Q, P], True on the prompts' tokens.
      key: [Q * G, N, K, S], the ring.
      value: [Q * G, N, S, K], the ring.
    """

    prompt_key: Any
    prompt_value: Any
    prompt_mask: Array
    key: Any
    value: Any


Read = Callable[[Array, tuple[Held, Held], tuple[Held, Held], Any], Array]
"""(query [Q * G, H, K], the prompts' keys and values, the ring's, layer) -> attention [Q * G, H, K].

Keys and values are those of one layer, and the layer is None; or those of all layers, and the layer is its i32[]."""


def head_bytes(size: int, dtype: Any, compute_dtype: Any) -> int:
    """Bytes of one head's key or value of size `size`, as `hold` stores it."""
    return size + 4 if dtype == "int8" else size * jnp.dtype(dtype or compute_dtype).itemsize


def whole_lines(columns: int) -> int:
    """The columns rounded up to a multiple of LINE, so that each row of keys starts at the start of a cache line.

    XLA:CPU took 1.7 times as long for scores of 2 x 32 by 32 x 53, read from memory, as for 2 x 32 by 32 x 64.
    """
    return -(-columns // LINE) * LINE


def hold(x: Array, axis: int, dtype: Any) -> Held:
    """Keys or values `x` as they are stored.

    Args:
      x: keys or values.
      axis: the axis of the head's size, K.
      dtype: one of CACHE_DTYPES; None keeps that of `x`.
    """
    if dtype != "int8":
        return Held(x if dtype is None else x.astype(dtype), None)
    wide = x.astype(jnp.float32)
    scale = jnp.maximum(jnp.abs(wide).max(axis=axis, keepdims=True), 1e-30) / 127
    return Held(jnp.round(wide / scale).astype(jnp.int8), scale)


def write(ring: Held, x: Array, column: Array, *, axis: int, columns: int, dtype: Any, layer: Array | None) -> Held:
    """The ring with one more token.

    Args:
      ring: keys or values, of one layer or stacked.
      x: [B, N, K], the new token's keys or values.
      column: i32[], where it is written.
      axis: the ring's axis of the head's size, without the layer axis.
      columns: the ring's axis of the columns, without the layer axis.
      dtype: the dtype that `hold` stores the token in.
      layer: i32[], the layer of a stacked ring; None for a ring of one layer.
    """
    new = hold(jnp.expand_dims(x, columns), axis, dtype)

    def put(old: Array, new: Array) -> Array:
        start: list[Any] = [0] * new.ndim
        start[columns] = column
        if layer is not None:
            new, start = new[None], [layer, *start]
        return jax.lax.dynamic_update_slice(old, new.astype(old.dtype), start)

    return jax.tree.map(put, ring, new)


def append(ring: tuple[Held, Held], key: Array, value: Array, column: Array, layer: Array | None) -> tuple[Held, Held]:
    """The ring, keys and values, with the new token's keys and values [B, N, K] in a column; `layer` as in `write`."""
    dtype = "int8" if ring[0].scale is not None else None
    return (
        write(ring[0], key, column, axis=2, columns=3, dtype=dtype, layer=layer),
        write(ring[1], value, column, axis=3, columns=2, dtype=dtype, layer=layer),
    )


def valid_columns(columns: int, lengths: Array, clock: Array) -> Array:
    """bool[B, S]: True on the last lengths[b] + 1 of the S columns, up to and including that of the clock."""
    age = (clock - jnp.arange(columns)) % columns
    return age <= lengths[:, None]


def reader(cache: Cache, lengths: Array, clock: Array) -> Read:
    """The attention of one step, by plain operations, which read the whole ring.

    Args:
      cache: of Q prompts and Q * G rows.
      lengths: i32[Q * G], tokens that each row had in the ring before this step; below 0: none is read, nor this one.
      clock: i32[], the number of the step, whose token is in the ring.
    """
    valid = valid_columns(jax.tree.leaves(cache.key)[0].shape[-1], lengths, clock)

    def read(query: Array, prompt: tuple[Held, Held], ring: tuple[Held, Held], layer: Array | None) -> Array:
        if layer is not None:
            prompt, ring = jax.tree.map(lambda part: part[layer], (prompt, ring))
        return attend_cached(query, *prompt, cache.prompt_mask, *ring, valid)

    return read


def attend_cached(
    query: Array, prompt_key: Held, prompt_value: Held, prompt_mask: Array, key: Held, value: Held, valid: Array
) -> Array:
    """Attention of one new token in each row to its prompt and to its own tokens so far.

    Args:
      query: [Q * G, H, K], the G rows of a group adjacent; query head h reads key head h // (H / N).
      prompt_key: [Q, N, K, P], shared by the rows of a group.
      prompt_value: [Q, N, P, K].
      prompt_mask: bool[Q, P].
      key: [Q * G, N, K, S].
      value: [Q * G, N, S, K].
      valid: bool[Q * G, S], the columns that each row attends to.

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
    """Scores f32[B, N, M, S] of queries [B, N, M, K], with MASKED where not valid [B, S]."""
    scores = jnp.einsum("bnmk,bnks->bnms", query, key.data.astype(query.dtype), preferred_element_type=jnp.float32)
    scores = scores if key.scale is None else scores * key.scale
    return jnp.where(valid[:, None, None, :], scores, MASKED)


def _weighted(weights: Array, value: Held, dtype: Any) -> Array:
    """The weighted sum of values f32[B, N, M, K], by weights [B, N, M, S]."""
    weights = weights if value.scale is None else weights * value.scale[..., 0][:, :, None]
    return jnp.einsum(
        "bnms,bnsk->bnmk", weights.astype(dtype), value.data.astype(dtype), preferred_element_type=jnp.float32
    )
