"""Causal attention within segments, with grouped queries and without repeating keys and values.

    y_t = sum_s softmax_s(q_t . k_s / sqrt(K)) v_s        over s <= t of t's own segment

`attend` chooses how it is computed. "xla" uses plain operations, in blocks of queries against the keys up to the end of
the block. The blocks of long rows are rematerialised in the backward pass, so no [T, T] array of scores is kept.
"splash" is the Pallas kernel of `models/splash.py`; it runs on TPUs. GPUs use "xla": cuDNN's attention knows the length
of a row but neither left padding nor segments, except as an array [T, T], which this module avoids. Padding attends to
nothing; its output is finite and unused.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh

from prerl_jax.models import splash
from prerl_jax.models.partitioning import DEFAULT_RULES, Rules

BACKENDS = ("auto", "xla", "splash")
NAME = "attention"
"""The name of attention's output in checkpoint policies."""
MASKED = -1e30
"""Score of a key that must not be attended to. It is finite, so a row with nothing to attend to has no NaN."""
QUERY_BLOCK = 512
"""Queries of a block, in rows longer than twice this."""
FEWEST_QUERIES, BLOCKS = 64, 4
"""Shorter rows have up to BLOCKS even blocks of at least FEWEST_QUERIES queries. With four, 0.6 of all scores are
computed."""
SPANS = 8
"""The most key lengths that the blocks of a long row have. Each is compiled, so there are few."""


def choose(backend: str, query: tuple[int, ...], kv_heads: int, mesh: Mesh | None, rules: Rules) -> str:
    """Chooses "xla" or "splash".

    Args:
      backend: one of BACKENDS. "auto" is splash where the devices are TPUs and the kernel supports the shapes.
      query: (B, T, H, K), the shape of the queries.
      kv_heads: N, the number of key heads.
      mesh: the devices; None for JAX's first device.
      rules: maps logical axes to mesh axes.

    Raises ValueError for an unknown backend, and for "splash" where it is not possible.
    """
    if backend not in BACKENDS:
        raise ValueError(f"attention must be one of {BACKENDS}, got {backend!r}.")
    if backend == "xla":
        return backend
    platform = (jax.devices() if mesh is None else mesh.devices.flat)[0].platform
    reason = f"the devices are {platform}, and the kernel is for tpu" if platform != "tpu" else None
    reason = reason or splash.misfit(query, kv_heads, mesh, rules)
    if reason and backend == "splash":
        raise ValueError(f'attention="splash" does not fit: {reason}. Use "auto" or "xla".')
    return "xla" if reason else "splash"


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segments: jax.Array,
    *,
    backend: str = "auto",
    mesh: Mesh | None = None,
    rules: Rules = DEFAULT_RULES,
) -> jax.Array:
    """Attention of packed rows.

    Args:
      query: [B, T, H, K]; query head h reads key head h // (H / N).
      key: [B, T, N, K].
      value: [B, T, N, K].
      segments: i32[B, T], 0 = padding.
      backend: one of BACKENDS, see `choose`.
      mesh: the devices that the arrays are sharded over; None for one device.
      rules: maps logical axes to mesh axes.

    Returns: [B, T, H, K] in the dtype of `value`; the softmax is in float32.
    """
    if choose(backend, query.shape, key.shape[2], mesh, rules) == "splash":
        return splash.attend(query, key, value, segments, mesh, rules, name=NAME)
    return checkpoint_name(_attend_in_blocks(query, key, value, segments), NAME)


def _attend_in_blocks(query, key, value, segments):
    length = query.shape[1]
    if length <= 2 * QUERY_BLOCK:
        return _attend_in_few_blocks(query, key, value, segments)
    padding = -length % QUERY_BLOCK
    blocks = (length + padding) // QUERY_BLOCK
    query, query_segments = _split(query, padding, blocks), _split(segments, padding, blocks)
    span = -(-blocks // SPANS)
    out = []
    for first in range(0, blocks, span):
        end = (first + span) * QUERY_BLOCK
        block = functools.partial(_attend_block, key=key[:, :end], value=value[:, :end], key_segments=segments[:, :end])
        body = jax.checkpoint(lambda _, x, block=block: (None, block(x[0], query_segments=x[1], start=x[2])))
        here = slice(first, first + span)
        starts = jnp.arange(blocks)[here] * QUERY_BLOCK
        out.append(jax.lax.scan(body, None, (query[here], query_segments[here], starts))[1])
    joined = jnp.moveaxis(jnp.concatenate(out), 0, 1)
    return joined.reshape(joined.shape[0], -1, *joined.shape[3:])[:, :length]


def _attend_in_few_blocks(query, key, value, segments):
    length = query.shape[1]
    size = -(-length // max(1, min(BLOCKS, length // FEWEST_QUERIES)))
    out = []
    for start in range(0, length, size):
        end = min(start + size, length)
        here = query[:, start:end], key[:, :end], value[:, :end]
        out.append(_attend_block(*here, segments[:, start:end], segments[:, :end], start))
    return jnp.concatenate(out, axis=1)


def _split(x: jax.Array, padding: int, blocks: int) -> jax.Array:
    """[B, T, ...] -> [blocks, B, QUERY_BLOCK, ...]."""
    x = jnp.pad(x, [(0, 0), (0, padding)] + [(0, 0)] * (x.ndim - 2))
    return jnp.moveaxis(x.reshape(x.shape[0], blocks, QUERY_BLOCK, *x.shape[2:]), 1, 0)


def _attend_block(query, key, value, query_segments, key_segments, start):
    # Heads stand before tokens, so both products are plain batches of matrices: XLA:CPU writes no transposed scores.
    batch, length, heads, head_dim = query.shape
    kv_heads = key.shape[2]
    grouped = query.reshape(batch, length, kv_heads, heads // kv_heads, head_dim).transpose(0, 2, 3, 1, 4)
    together = grouped.reshape(batch, kv_heads, -1, head_dim)
    key, value = key.swapaxes(1, 2), value.swapaxes(1, 2)
    scores = jnp.einsum("bnqk,bnsk->bnqs", together, key, preferred_element_type=jnp.float32) * head_dim**-0.5
    causal = (start + jnp.arange(length))[:, None] >= jnp.arange(key.shape[2])[None, :]
    same = (query_segments[:, :, None] == key_segments[:, None, :]) & (query_segments > 0)[:, :, None]
    scores = scores.reshape(*grouped.shape[:-1], -1)
    scores = jnp.where((causal & same)[:, None, None], scores, MASKED)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype).reshape(*together.shape[:-1], -1)
    out = jnp.einsum("bnqs,bnsk->bnqk", weights, value).reshape(grouped.shape)
    return out.transpose(0, 3, 1, 2, 4).reshape(batch, length, heads, head_dim)
