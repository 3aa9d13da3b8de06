"""Microbatches: the rows of a batch computed in parts, one after the other, in one compiled loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from prerl_jax.core.types import Array, Params


def accumulate(function: Callable, microbatches: int, params: Params, rows: Any, needed: Array | None = None):
    """`function(params, part)` summed over parts of `rows`, one after the other in one compiled loop.

    Part i is the rows i, i + microbatches, i + 2 microbatches, ..., so that each is spread over the devices as `rows`
    are. With `needed` bool[B], of the rows that give anything but zeros, a part without one is not computed.

    Raises ValueError where the rows do not divide.
    """
    if microbatches == 1:
        return function(params, rows)
    if microbatches < 1:
        raise ValueError(f"microbatches must be at least 1, got {microbatches}.")
    count = jax.tree.leaves(rows)[0].shape[0]
    if count % microbatches:
        raise ValueError(f"{count} rows do not divide into {microbatches} microbatches; pad the rows to a multiple.")
    parts = optax.microbatching.reshape_batch_axis(rows, count // microbatches)
    wanted = jnp.ones(microbatches, bool) if needed is None else needed.reshape(-1, microbatches).any(axis=0)

    def add(total, part):
        return jax.tree.map(jnp.add, total, function(params, part))

    def body(total, x):
        wanted, part = x
        return (add(total, part) if needed is None else jax.lax.cond(wanted, add, lambda t, _: t, total, part)), None

    first = jax.tree.map(lambda x: x[0], parts)
    start = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(function, params, first))
    return jax.lax.scan(body, start, (wanted, parts))[0]


def by_parts(function: Callable, microbatches: int, rows: Any) -> Any:
    """`function(rows)`, which takes every row by itself, computed in the parts of `accumulate` and put together again.

    Raises ValueError where the rows do not divide.
    """
    if microbatches == 1:
        return function(rows)
    count = jax.tree.leaves(rows)[0].shape[0]
    if count % microbatches:
        raise ValueError(f"{count} rows do not divide into {microbatches} microbatches; pad the rows to a multiple.")
    found = jax.lax.map(function, optax.microbatching.reshape_batch_axis(rows, count // microbatches))
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(count, *x.shape[2:]), found)
