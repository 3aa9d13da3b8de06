"""The interface of engines, which generate the responses for training and evaluation.

An engine is given to a run as a config value, `SamplingSpec.engine`. Two come with the package: `ContinuousBatching`
and `StaticBatching`. An engine of your own is a frozen dataclass with the methods of `EngineSpec`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from prerl_jax.core.types import Array, Params, Prompts, Rollouts
from prerl_jax.rollout.sampler import SamplerConfig

OnComplete = Callable[[np.ndarray, np.ndarray, np.ndarray], None]
"""on_complete(rows i64[n], responses i32[n, R], lengths i64[n]): the responses of these rows are complete.

`rows` are row numbers in the `Sampled.rollouts` that the same call will return. Responses are right-padded with 0. The
callee may keep the arrays. It is called on the thread that samples, possibly while the device decodes the next tokens,
so it should return quickly: hand the work to another thread. An exception that it raises ends the call.
"""


@dataclasses.dataclass(frozen=True)
class Sampled:
    """The result of `Engine.sample`, on the host.

    Attributes:
      rollouts: numpy arrays of this process's Q * G rows; sample j of its prompt i is row i * G + j. Rewards are zero.
        `logprobs` are those of the policy at the sampling temperature, before top-k and top-p: the trainer compares
        them with its own.
      idle: (start, end) pairs of `time.perf_counter`, in order and disjoint: when the device had no work during the
        call. The metric `time/wait` counts them. Empty for an engine that does not measure it.
    """

    rollouts: Rollouts
    idle: tuple[tuple[float, float], ...] = ()


class IdleClock:
    """Measures `Sampled.idle`.

    Attributes:
      spans: the (start, end) pairs so far.
    """

    def __init__(self) -> None:
        self.spans: list[tuple[float, float]] = []
        self._since: float | None = None

    def start(self) -> None:
        """The device has no work from now on."""
        self._since = time.perf_counter()

    def stop(self) -> None:
        """The device has work again; no effect where the clock is not running."""
        if self._since is not None:
            self.spans.append((self._since, time.perf_counter()))
        self._since = None


class Engine(Protocol):
    """Samples `group_size` responses to each prompt."""

    def sample(self, params: Params, prompts: Prompts, key: Array, on_complete: OnComplete | None = None) -> Sampled:
        """Samples G responses to each of this process's prompts.

        Args:
          params: the policy's parameters, where training has them.
          prompts: this process's Q prompts, numpy arrays i32[Q, P]; the same Q on every process. Sample j of a prompt
            has the number `first_sample + j`.
          key: the randomness of the call, the same on every process.
          on_complete: called for every row exactly once, see `OnComplete`; several rows may share a call.

        Returns: the rollouts of these prompts, in their order.
        """


@runtime_checkable
class EngineSpec(Protocol):
    """A config value that makes engines. Any frozen dataclass with these two methods works."""

    def make(self, model: Any, config: SamplerConfig, group_size: int) -> Engine:
        """The engine for these settings. A run makes one for each temperature, and one for evaluation.

        Args:
          model: the policy, a `Decoder` in a run.
          config: how to sample.
          group_size: G, samples for each prompt.
        """

    def check(self, shards: int) -> None:
        """Raises ValueError if the engine cannot run on a mesh that splits a batch into `shards` shards (data x fsdp).

        It is called when a config is checked, before anything is loaded.
        """


def on_host(prompts: Prompts) -> Prompts:
    """The same prompts as numpy arrays.

    Raises ValueError if they have no ids and there are several processes: then their row numbers are not unique.
    """
    if prompts.ids is None and jax.process_count() > 1:
        raise ValueError("Prompts need ids on several processes, since row numbers repeat there; set Prompts.ids.")
    return jax.tree.map(np.asarray, prompts)
