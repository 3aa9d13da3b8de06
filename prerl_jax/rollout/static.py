"""Static batching: all responses are decoded together, until the longest one is complete."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from prerl_jax.core.types import Array, Params, Prompts, Rollouts
from prerl_jax.rollout.decode import SlotModel
from prerl_jax.rollout.engine import OnComplete, Sampled, on_host
from prerl_jax.rollout.sampler import SamplerConfig, make_sampler
from prerl_jax.runtime.mesh import batch_sharding, global_rows, local_rows, replicated


@dataclasses.dataclass(frozen=True)
class StaticBatching:
    """An `EngineSpec`: the whole batch is one compiled program, see `make_sampler`.

    It works for every `Model`. `ContinuousBatching` needs a `SlotModel`, and is faster where the lengths of responses
    differ.
    """

    def make(self, model: Any, config: SamplerConfig, group_size: int) -> StaticBatchingEngine:
        """An engine around `make_sampler`. Raises ValueError if `group_size` is below 1."""
        mesh = model.mesh if isinstance(model, SlotModel) else None
        return StaticBatchingEngine(make_sampler(model, config, group_size), mesh)

    def check(self, shards: int) -> None:
        """Accepts every mesh."""


@dataclasses.dataclass(frozen=True)
class StaticBatchingEngine:
    """An `Engine`, made by `StaticBatching`.

    Attributes:
      sampler: what `make_sampler` returns.
      mesh: the mesh that rows are split over; None for the default device.
    """

    sampler: Callable[[Params, Prompts, Array], Rollouts]
    mesh: Mesh | None

    def sample(self, params: Params, prompts: Prompts, key: Array, on_complete: OnComplete | None = None) -> Sampled:
        """See `Engine.sample`. `on_complete` is called once, with all rows, after the last one is complete.

        Raises ValueError if the prompts do not divide over the shards of the mesh, or have no ids on several processes.
        """
        prompts = on_host(prompts)
        if self.mesh is not None:
            prompts, key = global_rows(self.mesh, prompts), jax.device_put(key, replicated(self.mesh))
        rollouts = local_rows(_split_by_rows(self.mesh)(self.sampler(params, prompts, key)))
        if on_complete is not None:
            lengths = rollouts.response_mask.sum(axis=1)
            on_complete(np.arange(len(lengths)), rollouts.response, lengths)
        return Sampled(rollouts)


@functools.cache
def _split_by_rows(mesh: Mesh | None) -> Callable[[Rollouts], Rollouts]:
    """Rollouts as the sampler left them -> split over their rows, so that each process holds its own rows.

    A single process can read all rows as they are; nothing is compiled for it.
    """
    if mesh is None or jax.process_count() == 1:
        return lambda rollouts: rollouts
    return jax.jit(lambda rollouts: rollouts, out_shardings=batch_sharding(mesh))
