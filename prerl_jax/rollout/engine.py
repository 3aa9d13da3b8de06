"""What the trainer asks of whatever generates: so that another engine can take the sampler's place."""

from __future__ import annotations

from typing import Protocol

from prerl_jax.core.types import Array, Params, Prompts, Rollouts


class Engine(Protocol):
    """(params, prompts of Q rows, key) -> Rollouts of Q * G rows, the G samples of a prompt side by side.

    Rewards are zero. `logprobs` must be those of the policy at the sampling temperature, before any truncation of the
    distribution: they are compared with the trainer's own. Sample j of a prompt is number `first_sample + j`.

    `reports_completed = True` declares that it takes `on_complete`, see `pool.OnComplete`. One that knows when the
    device has waited within its last call says so in `idle`, see `Pool.idle`: `time/wait` counts it.
    """

    def __call__(self, params: Params, prompts: Prompts, key: Array) -> Rollouts: ...
