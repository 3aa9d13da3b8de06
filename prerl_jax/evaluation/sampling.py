"""Rollouts of many prompts, from and to the host of each process."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from prerl_jax.core.types import Array, Params, Prompts, Rollouts
from prerl_jax.rollout.continuous import OnComplete
from prerl_jax.rollout.engine import Engine
from prerl_jax.runtime.mesh import batch_sharding, global_rows, local_rows


def collect(
    engine: Engine, params: Params, prompts: Prompts, key: Array, mesh: Mesh, on_complete: OnComplete | None = None
) -> Rollouts:
    """Samples every prompt and brings the rollouts back to the host.

    Args:
      engine: what generates.
      params: of the policy.
      prompts: this process's prompts, numpy, ids included; all processes have the same number.
      key: the randomness of this collection.
      mesh: the devices that rows are sharded over.
      on_complete: hears of rows as they end, see `OnComplete`; of all at the end, where the engine does not tell.

    Returns: this process's rollouts, numpy, in the order of its prompts.
    """
    tells = getattr(engine, "reports_completed", False)
    how = {"on_complete": on_complete} if tells else {}
    rollouts = local_rows(_by_rows(mesh)(engine(params, global_rows(mesh, prompts), key, **how)))
    if on_complete is not None and not tells:
        lengths = rollouts.response_mask.sum(axis=1)
        on_complete(np.arange(len(lengths)), rollouts.response, lengths)
    return rollouts


@functools.cache
def _by_rows(mesh: Mesh) -> Callable[[Rollouts], Rollouts]:
    """Rollouts as an engine left them -> split over their rows, so that each process has its own.

    A single process sees every row as it is, and compiles nothing.
    """
    if jax.process_count() == 1:
        return lambda rollouts: rollouts
    return jax.jit(lambda rollouts: rollouts, out_shardings=batch_sharding(mesh))


def broken(rollouts: Rollouts) -> np.ndarray:
    """bool[B]: a sampled token's log-probability is not finite. Numpy."""
    return (~np.isfinite(rollouts.logprobs) & rollouts.response_mask).any(axis=1)


def require_whole(broken: np.ndarray, what: str) -> None:
    """Raises ValueError where one of some responses is `broken`, bool[B]; `what` they are, as in "of step 3"."""
    if broken.any():
        raise ValueError(
            f"{broken.sum()} of the {len(broken)} responses {what} have tokens whose log-probability is not finite: "
            "the policy's logits are infinite or not numbers, and what it says is noise. train/grad_norm and "
            "train/update_norm in metrics.jsonl say when that began; go on from an earlier checkpoint with a smaller "
            "learning rate. A model that does it from the start may need model.compute_dtype='float32'."
        )


def truncated(responses: np.ndarray, lengths: np.ndarray, stop_tokens: tuple[int, ...]) -> np.ndarray:
    """bool[B]: responses i32[B, R] that reached the length limit R without a stop token. Numpy."""
    return (lengths == responses.shape[1]) & ~np.isin(responses[:, -1], stop_tokens)


def texts(responses: np.ndarray, lengths: np.ndarray, decode: Callable[[list[list[int]]], list[str]]) -> list[str]:
    """Responses i32[B, R] of these lengths as text, by the tokenizer's batch decoding."""
    return decode([row[:n].tolist() for row, n in zip(responses, lengths, strict=True)])
