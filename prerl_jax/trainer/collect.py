"""Rollouts of many prompts, in calls of one shape, from and to the host of each process."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from prerl_jax.core.types import Array, Params, Prompts, Rollouts
from prerl_jax.rollout.engine import Engine
from prerl_jax.runtime.mesh import batch_sharding, global_rows, local_rows


def collect(engine: Engine, params: Params, prompts: Prompts, key: Array, mesh: Mesh, calls: int = 1) -> Rollouts:
    """Samples every prompt and brings the rollouts back to the host.

    Args:
      engine: what generates.
      params: of the policy.
      prompts: this process's prompts, numpy, ids included; all processes have the same number.
      key: the randomness of this collection.
      mesh: the devices that rows are sharded over.
      calls: how many calls the prompts are split into, to bound the cache; must divide them.

    Returns: this process's rollouts, numpy, in the order of its prompts.
    """
    rows = prompts.prompt.shape[0]
    if rows % calls:
        raise ValueError(f"{rows} prompts do not divide into {calls} calls.")
    size = rows // calls
    by_rows = _by_rows(mesh)
    parts = []
    for start in range(0, rows, size):
        part = jax.tree.map(lambda x: x[start : start + size], prompts)  # noqa: B023
        parts.append(local_rows(by_rows(engine(params, global_rows(mesh, part), key))))
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


@functools.cache
def _by_rows(mesh: Mesh) -> Callable[[Rollouts], Rollouts]:
    """Rollouts as an engine left them -> split over their rows, so that each process has its own.

    A single process sees every row as it is, and compiles nothing.
    """
    if jax.process_count() == 1:
        return lambda rollouts: rollouts
    return jax.jit(lambda rollouts: rollouts, out_shardings=batch_sharding(mesh))


def truncated(rollouts: Rollouts, stop_tokens: tuple[int, ...]) -> np.ndarray:
    """bool[B]: responses that reached the length limit without a stop token. Numpy."""
    full = rollouts.response_mask[:, -1]
    return full & ~np.isin(rollouts.response[:, -1], stop_tokens)


def texts(rollouts: Rollouts, decode: Callable[[list[list[int]]], list[str]]) -> list[str]:
    """The responses as text, by the tokenizer's batch decoding."""
    lengths = rollouts.response_mask.sum(axis=1)
    return decode([row[:n].tolist() for row, n in zip(rollouts.response, lengths, strict=True)])
