"""Moving the cache of slots: into a longer ring, and into fewer slots.

A ring is the responses' part of the cache: keys and values with a fixed number of columns for each slot. At every step
all slots write the same column, number `clock % length`, so the newest tokens overwrite the oldest column. A row reads
only the last columns, as many as it has tokens. A slot can therefore take a new row at any step, without moving
anything. A ring that is as long as the longest row is long enough. It starts short, since attention reads the whole
ring, and is copied into a longer one when a row needs it. `models.cache` has the layout.

On a mesh the rows belong to the shard of the batch that their prompt lies on, and rows are moved only within a shard.
Indices of rows and slots count within their shard.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.layout import Format, Layout
from jax.sharding import NamedSharding

from prerl_jax.core.types import Array
from prerl_jax.models.cache import Cache
from prerl_jax.models.filled import HELD, ORDERS
from prerl_jax.models.partitioning import partition_spec
from prerl_jax.rollout.decode import SlotModel, Slots
from prerl_jax.runtime.mesh import batch_sharding, replicated

Ring = tuple[Array, Any, Any]
"""(clock i32[], keys as `Cache.key`, values as `Cache.value`)."""


# Rings


def ring_length(key: Any) -> int:
    """The number of columns of a ring of keys, `Cache.key`."""
    return jax.tree.leaves(key)[0].shape[-1]


def ring_of(slots: Slots) -> Ring:
    """The slots' ring."""
    return slots.clock, slots.cache.key, slots.cache.value


def with_ring(slots: Slots, ring: Ring) -> Slots:
    """The slots with another ring, which has the same contents."""
    clock, key, value = ring
    return dataclasses.replace(slots, clock=clock, cache=dataclasses.replace(slots.cache, key=key, value=value))


def grow_ring(ring: Ring, lengths: tuple[int, ...]) -> Ring:
    """The ring with the next of these lengths; its columns are rotated so that the oldest one comes first.

    The ring is full: every column was written.
    """
    clock, key, value = ring
    length = ring_length(key)
    oldest = clock % length
    return pad_ring((jnp.full_like(clock, length), _rotate(key, oldest, -1), _rotate(value, oldest, -2)), lengths)


def pad_ring(ring: Ring, lengths: tuple[int, ...]) -> Ring:
    """The ring with the next of these lengths, where its oldest column is already the first: empty columns follow."""
    clock, key, value = ring
    length = lengths[lengths.index(ring_length(key)) + 1]
    return clock, _pad(key, length, -1), _pad(value, length, -2)


def _rotate(ring: Any, first: Array, axis: int) -> Any:
    return jax.tree.map(lambda x: jnp.roll(x, -first, axis=axis), ring)


def _pad(ring: Any, length: int, axis: int) -> Any:
    def pad(x: Array) -> Array:
        widths = [(0, 0)] * x.ndim
        widths[axis] = (0, length - x.shape[axis])
        return jnp.pad(x, widths)

    return jax.tree.map(pad, ring)


# Slots


def select_slots(slots: Slots, which: Array, prompt: Array, shards: int) -> Slots:
    """The chosen slots alone, each with its own copy of its prompt's keys and values.

    Args:
      slots: S slots.
      which: i32[S'], the chosen slots of each shard.
      prompt: i32[S'], their prompts.
      shards: D, shards of the batch; it divides S and S'.
    """
    cache = slots.cache
    # A cache of fewer slots than rows, or of slots that were selected before, holds one prompt per slot, not one per
    # group.
    prompt_row = prompt if cache.prompt_mask.shape[0] < slots.done.shape[0] else which
    prompts = (cache.prompt_key, cache.prompt_value, cache.prompt_mask)
    prompt_key, prompt_value, prompt_mask = take_by_shard(prompts, prompt_row, shards)
    key, value = take_by_shard((cache.key, cache.value), which, shards)
    token, count, done = take_by_shard((slots.token, slots.count, slots.done), which, shards)
    return Slots(slots.clock, token, count, done, Cache(prompt_key, prompt_value, prompt_mask, key, value))


def active_first(slots: Slots, count: int, shards: int) -> Array:
    """i32[count], count / D slots of each of D shards: its active ones first, in their order."""
    done = slots.done.reshape(shards, -1)
    return jnp.argsort(done, axis=1, stable=True)[:, : count // shards].reshape(-1).astype(jnp.int32)


def empty_slot_cache(cache: Cache, slots: int, length: int) -> Cache:
    """A cache of zeros for this many slots, each with room for one prompt and a ring of this length.

    `cache` gives the shapes and dtypes: it holds prompts, without a response.
    """

    def zeros_like(tree: Any, axis: int | None) -> Any:
        def zeros(x: Array) -> Array:
            shape = list(x.shape)
            shape[max(x.ndim - 4, 0)] = slots
            if axis is not None:
                shape[axis] = length
            return jnp.zeros(shape, x.dtype)

        return jax.tree.map(zeros, tree)

    return Cache(
        prompt_key=zeros_like(cache.prompt_key, None),
        prompt_value=zeros_like(cache.prompt_value, None),
        prompt_mask=zeros_like(cache.prompt_mask, None),
        key=zeros_like(cache.prompt_key, -1),
        value=zeros_like(cache.prompt_value, -2),
    )


# Rows of each shard


def take_by_shard(tree: Any, index: Array, shards: int) -> Any:
    """Rows at index i32[D * m] of arrays [D * n, ...] or [L, D * n, ...]: [D * m, ...] or [L, D * m, ...].

    Each of the D shards takes m of its own n rows; indices count within the shard.
    """

    def take(x: Array) -> Array:
        if x.ndim > 4:  # layer by layer: at once, XLA would copy all layers into another layout first
            return jax.lax.map(take, x)
        within = jax.vmap(lambda a, i: jnp.take(a, i, axis=0))
        y = within(x.reshape(shards, -1, *x.shape[1:]), index.reshape(shards, -1))
        return y.reshape(-1, *x.shape[1:])

    return jax.tree.map(take, tree)


def put_by_shard(tree: Any, rows: Any, index: Array, shards: int) -> Any:
    """Arrays [D * n, ...] whose rows at index i32[D * m] are replaced by `rows` [D * m, ...], see `take_by_shard`."""

    def put(x: Array, new: Array) -> Array:
        by_shard, new = (a.reshape(shards, -1, *a.shape[1:]) for a in (x, new))
        return jax.vmap(lambda a, i, b: a.at[i].set(b))(by_shard, index.reshape(shards, -1), new).reshape(x.shape)

    return jax.tree.map(put, tree, rows)


# On the mesh


class SlotSharding:
    """Gives each array that passes between programs one fixed sharding, so that no program is compiled twice."""

    def __init__(self, model: SlotModel):
        self._model, self._mesh = model, model.mesh

    def rows(self, tree: Any) -> Any:
        """Arrays split over their rows; those of a cache over their heads as well."""
        mesh = self._mesh
        if mesh is None:
            return tree

        def pin(x: Array) -> Array:
            if x.ndim >= 4:
                return self._model.pin_cache(x)
            return jax.lax.with_sharding_constraint(x, batch_sharding(mesh) if x.ndim else replicated(mesh))

        return jax.tree.map(pin, tree)

    def replicated(self, x: Array) -> Array:
        """An array that every device holds whole."""
        return x if self._mesh is None else jax.lax.with_sharding_constraint(x, replicated(self._mesh))

    def slots(self, slots: Slots) -> Slots:
        """Slots split over their rows, with a replicated clock."""
        return dataclasses.replace(self.rows(slots), clock=self.replicated(slots.clock))


def cache_formats(model: SlotModel) -> Cache:
    """The layouts of the parts of a cache on a TPU, as decoding reads them; None for a part without one.

    In another layout, every program would hold the rings twice. Where only the filled columns are read, prompts and
    responses lie as the kernel wants them (`models.filled`); elsewhere rings lie as [L, S, N, B, K].
    """
    unspecified: Any = None
    if model.mesh is None or model.unroll_decode or model.mesh.devices.flat[0].platform != "tpu":
        return Cache(*[unspecified] * 5)
    sharding = NamedSharding(model.mesh, partition_spec(model.rules, HELD))

    def formats(order: Any) -> Any:
        return jax.tree.map(lambda o: Format(Layout(major_to_minor=o), sharding), order, is_leaf=_is_order)

    if model.reads_filled:
        key, value = map(formats, ORDERS)
        return Cache(key, value, unspecified, key, value)
    return Cache(unspecified, unspecified, unspecified, *map(formats, ((0, 4, 2, 1, 3), (0, 3, 2, 1, 4))))


def _is_order(x: Any) -> bool:
    return isinstance(x, tuple)
