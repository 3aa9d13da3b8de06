"""Microbatches: the rows of a batch processed in parts, one after the other, in one compiled loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from prerl_jax.core.types import Array, Params


@dataclasses.dataclass(frozen=True)
class Replicas:
    """Parts of a mesh that hold the parameters whole, such as slices: their gradients are added up once.

    Attributes:
      axis: the mesh axis that counts them. The rows of a batch are split over it first, and no parameter is.
      count: the size of the axis.
    """

    axis: str
    count: int


def rows_per_microbatch(rows: int, microbatches: int) -> int:
    """The rows of one microbatch.

    Raises ValueError if there is less than one microbatch, or if they do not divide the rows.
    """
    if microbatches < 1:
        raise ValueError(f"microbatches must be at least 1, got {microbatches}.")
    if rows % microbatches:
        raise ValueError(f"{rows} rows do not divide into {microbatches} microbatches; pad the rows to a multiple.")
    return rows // microbatches


def row_order(rows: int, microbatches: int) -> np.ndarray:
    """i64[rows]: the numbers of the rows of the first microbatch, then those of the second, and so on.

    Microbatch i holds the rows i, i + microbatches, i + 2 microbatches, ..., so that each is spread over the devices in
    the same way as the whole batch.
    """
    return np.arange(rows).reshape(-1, microbatches).T.ravel()


def accumulate(
    function: Callable,
    microbatches: int,
    params: Params,
    rows: Any,
    needed: Array | None = None,
    replicas: Replicas | None = None,
) -> Any:
    """`function(params, rows)` summed over microbatches of the rows, one after the other in one compiled loop.

    Args:
      function: (params, rows of a microbatch) -> a tree of arrays that add up.
      microbatches: the number of parts; it must divide B. Which rows are in which part: see `row_order`.
      params: passed on.
      rows: a tree of arrays [B, ...].
      needed: bool[B], False for rows that `function` gives only zeros for. A part without a needed row is skipped. None
        computes all parts.
      replicas: the sums of each of them stay apart until the last microbatch is done, so that they pass between the
        replicas once. `function` must leave the axis alone. None: in every microbatch.

    Raises ValueError where the rows do not divide into microbatches, or a microbatch into the replicas.
    """
    if replicas is not None:
        part = rows_per_microbatch(jax.tree.leaves(rows)[0].shape[0], microbatches)
        if part % replicas.count:
            raise ValueError(
                f"the {part} rows of a microbatch do not divide over {replicas.count} replicas; use fewer microbatches."
            )
        found = accumulate(_of_each(function, replicas), microbatches, params, rows, needed)
        return jax.tree.map(lambda x: x.sum(axis=0), found)
    if microbatches == 1:
        return function(params, rows)
    parts = _split(rows, microbatches)
    wanted = jnp.ones(microbatches, bool) if needed is None else needed.reshape(-1, microbatches).any(axis=0)

    def add(total, part):
        return jax.tree.map(jnp.add, total, function(params, part))

    def body(total, x):
        wanted, part = x
        return (add(total, part) if needed is None else jax.lax.cond(wanted, add, lambda t, _: t, total, part)), None

    first = jax.tree.map(lambda x: x[0], parts)
    start = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(function, params, first))
    return jax.lax.scan(body, start, (wanted, parts))[0]


def _of_each(function: Callable, replicas: Replicas) -> Callable:
    """`function` of the rows of each replica: a tree of arrays [replicas, ...], one part on each replica."""
    each = jax.vmap(function, in_axes=(None, 0), spmd_axis_name=replicas.axis)
    return lambda params, rows: each(params, jax.tree.map(lambda x: x.reshape(replicas.count, -1, *x.shape[1:]), rows))


def map_microbatches(function: Callable, microbatches: int, rows: Any) -> Any:
    """`function(rows)` computed in microbatches and put together again.

    Args:
      function: takes rows [b, ...] to a tree of arrays [b, ...]; no row may depend on another.
      microbatches: the number of parts, as in `accumulate`.
      rows: a tree of arrays [B, ...].

    Raises ValueError where the rows do not divide.
    """
    if microbatches == 1:
        return function(rows)
    found = jax.lax.map(function, _split(rows, microbatches))
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), found)


def _split(rows: Any, microbatches: int) -> Any:
    """[B, ...] -> [microbatches, B / microbatches, ...]."""
    count = jax.tree.leaves(rows)[0].shape[0]
    return optax.microbatching.reshape_batch_axis(rows, rows_per_microbatch(count, microbatches))
