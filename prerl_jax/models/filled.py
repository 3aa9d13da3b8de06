"""Attention of decoding on TPUs: a Pallas kernel that reads the filled columns of the cache, and no other.

    y = sum_s softmax_s(q . k_s / sqrt(K)) v_s        over the row's prompt and its own last n tokens, as `models.cache`

A row's columns are read in blocks. `Filled` lists the blocks that hold a token, row after row, and the kernel makes one
step for each: it reads the block's keys and values of all heads, and continues the row's softmax (in float32, as in
FlashAttention, https://arxiv.org/abs/2205.14135). A row without tokens has no block. So the time follows the tokens,
and a long ring costs memory alone.

The kernel reads the cache of all layers and takes the layer's number: a slice would be a copy. It wants the size of a
head as the minor dimension of keys and of values, and the columns as that of scales: see `ORDERS`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import Mesh, PartitionSpec

from prerl_jax.core.pytree import pytree
from prerl_jax.models.attention import MASKED
from prerl_jax.models.cache import Cache, Held, Read
from prerl_jax.models.layers import DecoderConfig
from prerl_jax.models.partitioning import Rules, part_count, partition_spec

Array = jax.Array
HEAD_DIMS = (64, 128, 256)
BLOCKS = (512, 256, 128)
"""Columns of a block; the first of which the keys fit into BLOCK_BYTES."""
BLOCK_BYTES = 512 * 1024
"""The most bytes of a block's keys: small enough that little is read in vain, large enough that steps are few. A v5e
reads as many keys and values in 1.3 us (at 819 GB/s). The number is not measured."""
KEPT: Any = (0, 1, 2, 3, 4)
SWAPPED: Any = (0, 1, 2, 4, 3)
ORDERS = Held(SWAPPED, KEPT), Held(KEPT, SWAPPED)
"""How keys and values of all layers must lie in memory: their dimensions, from the major to the minor one."""
HELD = ("layers", "batch", "kv_heads", None, None)
"""The logical axes of keys, values and scales of all layers."""


@pytree
class Filled:
    """The filled columns of rows of a cache, and the blocks of columns that hold them.

    Attributes:
      start: i32[B], the first filled column.
      count: i32[B], filled columns: `start` and those after it; after the last column comes column 0.
      row: i32[T], the row of each block, rising. T is rows times blocks of a row.
      block: i32[T], the block's number in its row.
      blocks: i32[1], how many of the T there are; at least 1.
      size: columns of a block.
    """

    start: Array
    count: Array
    row: Array
    block: Array
    blocks: Array
    size: int = dataclasses.field(metadata={"static": True})


def block_columns(columns: int, column_bytes: int) -> int:
    """Columns of a block, for a cache of this many columns, with this many bytes of a row's keys in a column."""
    return min(columns, next((b for b in BLOCKS if b * column_bytes <= BLOCK_BYTES), BLOCKS[-1]))


def find_filled(start: Array, count: Array, columns: int, size: int) -> Filled:
    """Lists the blocks that hold the columns start .. start + count - 1, modulo `columns`, of each row.

    Args:
      start: i32[B].
      count: i32[B], at most `columns`; a row with 0 or less has no block.
      columns: S, columns of a row.
      size: columns of a block. The last block of a row may be shorter.
    """
    rows, each = start.shape[0], -(-columns // size)
    missing = jnp.where(start + count > columns, each * size - columns, 0)  # columns that the last block lacks
    needed = jnp.minimum((start % size + count + missing + size - 1) // size, each)
    needed = jnp.where(count > 0, needed, 0)
    ends = jnp.cumsum(needed)
    index = jnp.arange(rows * each, dtype=jnp.int32)
    row = jnp.minimum((ends <= index[:, None]).sum(axis=1, dtype=jnp.int32), rows - 1)
    number = (start[row] // size + index - (ends - needed)[row]) % each
    return Filled(start, count, row, number, jnp.maximum(ends[-1:], 1), size)


def misfit(config: DecoderConfig, mesh: Mesh | None, rules: Rules) -> str | None:
    """Why decoding does not use the kernel here; None if it does."""
    if mesh is None:
        return "there is no mesh, without which a program cannot say how its cache lies in memory"
    if (platform := mesh.devices.flat[0].platform) != "tpu":
        return f"the devices are {platform}, and the kernel is for tpu"
    if config.head_dim not in HEAD_DIMS:
        return f"head_dim is {config.head_dim}, and the kernel takes {', '.join(map(str, HEAD_DIMS))}"
    parts, kv_parts = (part_count(mesh, partition_spec(rules, (axis,))[0]) for axis in ("heads", "kv_heads"))
    if parts != kv_parts:
        return f"the rules split heads into {parts} parts and kv_heads into {kv_parts}"
    for axis, size in (("heads", config.num_heads), ("kv_heads", config.num_kv_heads)):
        if size % parts:
            return f"the {axis} axis of {size} does not divide into the {parts} parts of its rule"
    return None


def splits_rows(rows: int, mesh: Mesh | None, rules: Rules) -> bool:
    """Whether the devices have equally many of these rows. Others stay whole, and the kernel does not take them."""
    return mesh is None or rows % part_count(mesh, partition_spec(rules, ("batch",))[0]) == 0


def reader(cache: Cache, lengths: Array, clock: Array, mesh: Mesh | None, rules: Rules) -> Read:
    """`cache.reader`, reading only what is filled; for a cache of all layers."""
    filled = find(cache, lengths, clock, mesh, rules)
    return lambda query, prompt, ring, layer: attend(query, prompt, ring, layer, filled, mesh, rules)


def find(cache: Cache, lengths: Array, clock: Array, mesh: Mesh | None, rules: Rules) -> tuple[Filled, Filled]:
    """The filled columns of prompts and of responses, once for all layers.

    Args:
      cache: of Q prompts, padded on the left, and Q * G rows.
      lengths: i32[Q * G], tokens that each row had in the ring before this step; below 0: no column of it is read. A
        prompt is read if a row of it is.
      clock: i32[], the number of the step, whose token is in the ring.
      mesh: the devices that rows and heads are split over; None for one device.
      rules: maps logical axes to mesh axes.
    """

    def local(prompt: Array, lengths: Array, clock: Array, key: Any, prompt_key: Any) -> tuple[Filled, Filled]:
        count, padded, columns = lengths + 1, prompt_key.shape[-1], key.shape[-1]
        read = (count > 0).reshape(prompt.shape[0], -1).any(axis=1)
        return (
            find_filled(padded - prompt, jnp.where(read, prompt, 0), padded, _block(prompt_key)),
            find_filled((clock - lengths) % columns, count, columns, _block(key)),
        )

    rows, held = PartitionSpec(*partition_spec(rules, ("batch",))), partition_spec(rules, HELD)
    given = cache.prompt_mask.sum(axis=1, dtype=jnp.int32), lengths, clock, cache.key.data, cache.prompt_key.data
    return _on_each(local, mesh, (rows, rows, PartitionSpec(), held, held), rows)(*given)


def attend(
    query: Array,
    prompt: tuple[Held, Held],
    ring: tuple[Held, Held],
    layer: Array,
    filled: tuple[Filled, Filled],
    mesh: Mesh | None,
    rules: Rules,
    *,
    interpret: bool = False,
) -> Array:
    """`cache.attend_cached`, reading only what is filled.

    Args:
      query: [Q * G, H, K], the G rows of a group adjacent; query head h reads key head h // (H / N).
      prompt: keys [L, Q, N, K, P] and values [L, Q, N, P, K] of all layers.
      ring: keys [L, Q * G, N, K, S] and values [L, Q * G, N, S, K] of all layers.
      layer: i32[].
      filled: what `find` returns.
      mesh: the devices that rows and heads are split over; None for one device.
      rules: maps logical axes to mesh axes.
      interpret: runs the kernel's operations one by one, on any platform; for tests.

    Returns: [Q * G, H, K] in the dtype of `query`. A row with a length below 0 has numbers without a meaning.
    """
    local = functools.partial(_attend_both, interpret=interpret)
    rows, held = PartitionSpec(*partition_spec(rules, ("batch",))), partition_spec(rules, HELD)
    queries = partition_spec(rules, ("batch", "heads", None))
    specs = queries, held, held, PartitionSpec(), rows
    return _on_each(local, mesh, specs, queries)(query, prompt, ring, layer, filled)


def _attend_both(query, prompt, ring, layer, filled, *, interpret):
    """The softmax over both parts: each part's own, weighted by its share of the sum of exponentials."""
    (rows, heads, head_dim), (groups, kv_heads) = query.shape, prompt[0].data.shape[1:3]
    size, repeat = rows // groups, heads // kv_heads
    own = (query * jnp.asarray(head_dim**-0.5, query.dtype)).reshape(rows, kv_heads, repeat, head_dim)
    together = own.reshape(groups, size, kv_heads, repeat, head_dim).swapaxes(1, 2)
    together = together.reshape(groups, kv_heads, size * repeat, head_dim)

    def apart(x):
        """[Q, N, G * H / N, ...] -> [Q * G, N, H / N, ...]."""
        x = x.reshape(groups, kv_heads, size, repeat, *x.shape[3:]).swapaxes(1, 2)
        return x.reshape(rows, kv_heads, repeat, *x.shape[4:])

    of_prompt = map(apart, attend_filled(together, prompt[0], prompt[1], layer, filled[0], interpret=interpret))
    of_ring = attend_filled(own, ring[0], ring[1], layer, filled[1], interpret=interpret)
    (y, mass), (ring_y, ring_mass) = of_prompt, of_ring
    share = jax.nn.sigmoid(mass - ring_mass)[..., None]
    return (y * share + ring_y * (1 - share)).astype(query.dtype).reshape(rows, heads, head_dim)


def _on_each(function: Callable, mesh: Mesh | None, in_specs: Any, out_specs: Any) -> Callable:
    """The function on each device's part of its arguments."""
    if mesh is None or mesh.size == 1:
        return function
    return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def _block(key: Array) -> int:
    """Columns of a block of keys [L, B, N, K, S]."""
    return block_columns(key.shape[-1], key.shape[2] * key.shape[3] * key.dtype.itemsize)


def attend_filled(
    query: Array, key: Held, value: Held, layer: Array, filled: Filled, *, interpret: bool = False
) -> tuple[Array, Array]:
    """Attention to the filled columns of one layer's cache.

    Args:
      query: [B, N, M, K], scaled; M queries read the same keys.
      key: of all layers, [L, B, N, K, S].
      value: of all layers, [L, B, N, S, K].
      layer: i32[].
      filled: the columns to read.
      interpret: runs the kernel's operations one by one, on any platform; for tests.

    Returns: (out f32[B, N, M, K], the logarithm of the sum of the softmax's exponentials, f32[B, N, M]). A row without
      filled columns has 0 and MASKED.
    """
    rows, heads, size, head_dim = query.shape
    columns, block = value.data.shape[3], filled.size

    def of_row(i, layer, row, *_):
        return row[i], 0, 0, 0

    def columns_fourth(i, layer, row, block, *_):
        return layer[0], row[i], 0, block[i], 0

    def columns_last(i, layer, row, block, *_):
        return layer[0], row[i], 0, 0, block[i]

    data = pl.BlockSpec((1, 1, heads, block, head_dim), columns_fourth)
    scale = pl.BlockSpec((1, 1, heads, 1, block), columns_last)
    parts, specs = [key.data.swapaxes(3, 4), value.data], [data, data]
    if key.scale is not None and value.scale is not None:
        parts += [key.scale, value.scale.swapaxes(3, 4)]
        specs += [scale, scale]
    row_spec, sum_spec = pl.BlockSpec((1, heads, size, head_dim), of_row), pl.BlockSpec((1, heads, size, 1), of_row)
    out, sums = pl.pallas_call(
        functools.partial(_kernel, columns=columns),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=5,
            grid=(filled.blocks[0],),
            in_specs=[row_spec, *specs],
            out_specs=[row_spec, sum_spec],
            scratch_shapes=[pltpu.VMEM((heads, size, 1), jnp.float32)],
        ),
        out_shape=[jax.ShapeDtypeStruct((rows, heads, size, n), jnp.float32) for n in (head_dim, 1)],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("arbitrary",)),
        name="attend_filled",
        interpret=interpret,
    )(layer[None], filled.row, filled.block, filled.start, filled.count, query, *parts)
    some = (filled.count > 0)[:, None, None]
    return jnp.where(some[..., None], out, 0), jnp.where(some, sums[..., 0], MASKED)


def _kernel(layer, rows, blocks, start, count, query, key, value, *refs, columns):
    """One block of one row. `sums` is the sum of exponentials until the row's last block, then its logarithm."""
    *scales, out, sums, top = refs
    step, block = pl.program_id(0), key.shape[3]
    row = rows[step]

    @pl.when((step == 0) | (rows[jnp.maximum(step - 1, 0)] != row))
    def begin():
        out[...], sums[...], top[...] = jnp.zeros_like(out), jnp.zeros_like(sums), jnp.full_like(top, MASKED)

    def column(shape):
        return blocks[step] * block + jax.lax.broadcasted_iota(jnp.int32, shape, shape.index(block))

    age = column((1, 1, block)) - start[row]
    age = jnp.where(age < 0, age + columns, age)
    valid = (age < count[row]) & (column((1, 1, block)) < columns)
    q, v = query[0], value[0, 0].astype(query.dtype)
    if columns % block:  # what lies behind the last column may be anything
        v = jnp.where(column((1, block, 1)) < columns, v, 0)
    scores = jnp.einsum("nmk,nsk->nms", q, key[0, 0].astype(q.dtype), preferred_element_type=jnp.float32)
    scores = jnp.where(valid, scores * scales[0][0, 0] if scales else scores, MASKED)
    before, highest = top[...], jnp.maximum(top[...], scores.max(axis=-1, keepdims=True))
    weights, kept = jnp.exp(scores - highest), jnp.exp(before - highest)
    total = sums[0] * kept + weights.sum(axis=-1, keepdims=True)
    weights = jnp.where(valid, weights * scales[1][0, 0], 0) if scales else weights
    y = jnp.einsum("nms,nsk->nmk", weights.astype(q.dtype), v, preferred_element_type=jnp.float32)
    y = out[0] * kept + y
    last = (step == pl.num_programs(0) - 1) | (rows[jnp.minimum(step + 1, rows.shape[0] - 1)] != row)
    top[...] = highest
    out[0] = jnp.where(last, y / total, y)
    sums[0] = jnp.where(last, highest + jnp.log(total), total)
