"""How what slots hold is moved: to fewer slots, and to a longer ring.

Rows belong to the part of the mesh that their prompt lies on, and whatever is moved is moved within a part; indices are
those within a part.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from prerl_jax.core.types import Array
from prerl_jax.models.cache import Cache
from prerl_jax.rollout.decode import Slots

Ring = tuple[Array, Any, Any]


def columns_of(key: Any) -> int:
    """Of a ring of keys."""
    return jax.tree.leaves(key)[0].shape[-1]


def ring_of(slots: Slots) -> Ring:
    """(clock, keys, values) of the responses' cache."""
    return slots.clock, slots.cache.key, slots.cache.value


def with_ring(slots: Slots, ring: Ring) -> Slots:
    """The slots with another ring of the same contents."""
    clock, key, value = ring
    return dataclasses.replace(slots, clock=clock, cache=dataclasses.replace(slots.cache, key=key, value=value))


def grown(ring: Ring, rings: tuple[int, ...]) -> Ring:
    """One of the next length, with the same contents, turned so that the oldest column is the first."""
    clock, key, value = ring
    old = columns_of(key)
    turned = clock % old
    return longer((jnp.full_like(clock, old), _turned(key, turned, -1), _turned(value, turned, -2)), rings)


def longer(ring: Ring, rings: tuple[int, ...]) -> Ring:
    """One of the next length, of a ring whose oldest column is the first: with room for more after the newest."""
    clock, key, value = ring
    columns = rings[rings.index(columns_of(key)) + 1]
    return clock, _padded(key, columns, -1), _padded(value, columns, -2)


def taken(slots: Slots, which: Array, prompt: Array, parts: int) -> Slots:
    """Those of each part that are told, each with a prompt of its own."""
    cache = slots.cache
    # A cache that has been shrunk before, or was refilled, holds a prompt for every slot.
    of_prompt = prompt if cache.prompt_mask.shape[0] < slots.done.shape[0] else which
    cache = Cache(
        *(of_parts(part, of_prompt, parts) for part in (cache.prompt_key, cache.prompt_value, cache.prompt_mask)),
        *(of_parts(part, which, parts) for part in (cache.key, cache.value)),
    )
    return Slots(slots.clock, *of_parts((slots.token, slots.count, slots.done), which, parts), cache)


def of_parts(tree: Any, index: Array, parts: int) -> Any:
    """Rows `index` i32[parts * m] of arrays [parts * n, ...] or [L, parts * n, ...], each part from its own."""

    def of(x: Array) -> Array:
        axis = max(x.ndim - 4, 0)
        apart = x.reshape(*x.shape[:axis], parts, -1, *x.shape[axis + 1 :])
        within = jax.vmap(lambda a, i: jnp.take(a, i, axis=axis), in_axes=(axis, 0), out_axes=axis)
        y = within(apart, index.reshape(parts, -1))
        return y.reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :])

    return jax.tree.map(of, tree)


def first_active(slots: Slots, count: int, parts: int) -> Array:
    """i32[count], of each part so many slots, within it: those that are not done, and others."""
    done = slots.done.reshape(parts, -1)
    return jnp.argsort(done, axis=1, stable=True)[:, : count // parts].reshape(-1).astype(jnp.int32)


def put_parts(tree: Any, taken: Any, index: Array, parts: int) -> Any:
    """Arrays [parts * n, ...] with rows `index` i32[parts * m] of each part from arrays [parts * m, ...]."""

    def of(x: Array, new: Array) -> Array:
        apart, new = (a.reshape(parts, -1, *a.shape[1:]) for a in (x, new))
        return jax.vmap(lambda a, i, b: a.at[i].set(b))(apart, index.reshape(parts, -1), new).reshape(x.shape)

    return jax.tree.map(of, tree, taken)


def cache_of_slots(cache: Cache, slots: int, columns: int) -> Cache:
    """Room for so many slots, each with a prompt of its own, like a cache of prompts; with nothing in it."""

    def like(tree: Any, axis: int | None) -> Any:
        def zeros(x: Array) -> Array:
            shape = list(x.shape)
            shape[max(x.ndim - 4, 0)] = slots
            if axis is not None:
                shape[axis] = columns
            return jnp.zeros(shape, x.dtype)

        return jax.tree.map(zeros, tree)

    prompts = (like(part, None) for part in (cache.prompt_key, cache.prompt_value, cache.prompt_mask))
    return Cache(*prompts, like(cache.prompt_key, -1), like(cache.prompt_value, -2))


def _turned(ring: Any, turned: Array, axis: int) -> Any:
    return jax.tree.map(lambda x: jnp.roll(x, -turned, axis=axis), ring)


def _padded(ring: Any, columns: int, axis: int) -> Any:
    def padded(x: Array) -> Array:
        pad = [(0, 0)] * x.ndim
        pad[axis] = (0, columns - x.shape[axis])
        return jnp.pad(x, pad)

    return jax.tree.map(padded, ring)
