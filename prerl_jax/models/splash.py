"""Causal attention within segments on TPUs: Pallas splash attention, forward and backward in blocks, one row at a time.

Only one block of scores at a time is in the chip's own memory. Blocks above the diagonal are never computed. Keys and
values are not repeated for the query heads that share them. Rows are padded to whole blocks with segment 0.
Source: jax.experimental.pallas.ops.tpu.splash_attention.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as pallas
from jax.sharding import Mesh, PartitionSpec

from prerl_jax.models.partitioning import Rules, part_count, partition_spec

LANES = 128
"""Block sizes are multiples of this."""
LARGEST_BLOCK = 1024
HEAD_DIMS = (64, 128, 256)
STEP_COST = 2 * LANES**2
"""The cost of a block beside its scores, in scores. Without it, smaller blocks would always seem better."""


def misfit(query: tuple[int, ...], kv_heads: int, mesh: Mesh | None, rules: Rules) -> str | None:
    """Why the kernel does not support queries of shape (B, T, H, K) with `kv_heads` key heads here; None if it does."""
    rows, length, heads, head_dim = query
    if head_dim not in HEAD_DIMS:
        return f"head_dim is {head_dim}, and the kernel takes {', '.join(map(str, HEAD_DIMS))}"
    if length < LANES:
        return f"rows have {length} tokens, less than the smallest block of {LANES}"
    if mesh is None:
        return None
    count = {a: part_count(mesh, partition_spec(rules, (a,))[0]) for a in ("batch", "length", "heads", "kv_heads")}
    if count["length"] > 1:
        return f"the rules split a row's tokens into {count['length']} parts, and the kernel needs them whole"
    if count["heads"] != count["kv_heads"]:
        return f"the rules split heads into {count['heads']} parts and kv_heads into {count['kv_heads']}"
    for axis, size in (("batch", rows), ("heads", heads), ("kv_heads", kv_heads)):
        if size % count[axis]:
            return f"the {axis} axis of {size} does not divide into the {count[axis]} parts of its rule"
    return None


def block_size(length: int) -> int:
    """The block size with the least cost for a row: few scores above the diagonal, and few blocks."""

    def cost(block: int) -> int:
        blocks = -(-length // block)
        return blocks * (blocks + 1) // 2 * (block**2 + STEP_COST)

    return min(range(LANES, LARGEST_BLOCK + 1, LANES), key=cost)


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segments: jax.Array,
    mesh: Mesh | None,
    rules: Rules,
    *,
    name: str | None = None,
    interpret: bool = False,
) -> jax.Array:
    """`attention.attend`, for shapes that `misfit` returns None for.

    Args:
      query: [B, T, H, K].
      key: [B, T, N, K].
      value: [B, T, N, K].
      segments: i32[B, T], 0 = padding.
      mesh: the devices that rows and heads are sharded over; None for one device.
      rules: maps logical axes to mesh axes.
      name: the name of the output and its normalisers in checkpoint policies.
      interpret: runs the kernel's operations one by one, on any platform; for tests.

    Returns: [B, T, H, K] in the dtype of `value`.
    """

    def local(query, key, value, segments):
        return _rows(query, key, value, segments, name, interpret)

    if mesh is not None and mesh.size > 1:
        axes = (("batch", "length", heads, "head_dim") for heads in ("heads", "kv_heads", "kv_heads"))
        specs = [partition_spec(rules, a, "attention") for a in axes]
        specs.append(PartitionSpec(*specs[0][:2]))
        local = jax.shard_map(local, mesh=mesh, in_specs=tuple(specs), out_specs=specs[0], check_vma=False)
    return local(query, key, value, segments)


def _rows(query, key, value, segments, name, interpret):
    length, heads, head_dim = query.shape[1:]
    block = block_size(length)
    padding = -length % block
    mask = pallas.CausalMask((length + padding, length + padding))
    sizes: dict[str, Any] = dict.fromkeys(("block_q", "block_kv", "block_kv_compute"), block)
    sizes |= dict.fromkeys(("block_q_dkv", "block_kv_dkv", "block_kv_dkv_compute", "block_q_dq", "block_kv_dq"), block)
    kernel = pallas.make_splash_mha(
        pallas.MultiHeadMask([mask] * heads),
        block_sizes=pallas.BlockSizes(**sizes),
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name=name,
        interpret=interpret,
    )

    def padded(x):
        return jnp.pad(x, [(0, 0), (0, padding)] + [(0, 0)] * (x.ndim - 2))

    q, k, v = (padded(x).swapaxes(1, 2) for x in (query * head_dim**-0.5, key, value))
    ids = padded(segments)
    out = jax.vmap(kernel)(q.astype(key.dtype), k, v, segment_ids=pallas.SegmentIds(ids, ids))
    return out.swapaxes(1, 2)[:, :length].astype(value.dtype)
