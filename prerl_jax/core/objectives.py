"""Per-token losses of log-probabilities: l(log pi, batch) -> f32[B, T]. They never reduce; the weights do.

rho = exp(clip(log pi - log pi_old, -20, 20))
ClippedPG:  max(-A rho, -A clip(rho, 1 - low, 1 + high)),  for A < 0 at most -A dual     (PPO; dual clip 1912.09729)
Reinforce:  -A log pi
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from prerl_jax.core.types import Array, Batch

LOG_RATIO_LIMIT = 20.0


def log_ratio(logprobs: Array, batch: Batch) -> Array:
    """log pi - log pi_old, f32[B, T], clamped to +-20; old is the current policy where the batch has none."""
    old = jax.lax.stop_gradient(logprobs) if batch.old_logprobs is None else batch.old_logprobs
    return jnp.clip(logprobs - old, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


@dataclasses.dataclass(frozen=True)
class ClippedPG:
    """The clipped policy gradient of PPO, with an optional dual clip for negative advantages.

    Attributes:
      low: the ratio is clipped at 1 - low.
      high: and at 1 + high.
      dual: for a negative advantage A the loss is at most -A * dual; None for no such bound.
    """

    low: float = 0.2
    high: float = 0.2
    dual: float | None = 10.0
    skips_zero_advantage: ClassVar[bool] = True

    def __post_init__(self):
        if not (0 <= self.low < 1 and self.high >= 0):
            raise ValueError(f"ClippedPG needs 0 <= low < 1 and high >= 0, got low={self.low}, high={self.high}.")
        if self.dual is not None and self.dual <= 1:
            raise ValueError(f"ClippedPG.dual bounds the ratio from above and must exceed 1, got {self.dual}.")

    def __call__(self, logprobs: Array, batch: Batch) -> tuple[Array, dict[str, Array]]:
        advantages = batch.advantages
        log_rho = log_ratio(logprobs, batch)
        ratio = jnp.exp(log_rho)
        plain = -advantages * ratio
        clipped = -advantages * jnp.clip(ratio, 1 - self.low, 1 + self.high)
        # Not maximum: where both are equal it would give the clipped one half of the gradient, none of it at low = 0.
        bounded = clipped > plain
        loss = jnp.where(bounded, clipped, plain)
        if self.dual is not None:
            loss = jnp.where(advantages < 0, jnp.minimum(loss, -advantages * self.dual), loss)
        metrics = {"ratio": ratio, "clip_fraction": bounded.astype(jnp.float32), "kl_old": -log_rho}
        return loss, metrics


@dataclasses.dataclass(frozen=True)
class Reinforce:
    """The plain policy gradient, -A log pi."""

    skips_zero_advantage: ClassVar[bool] = True

    def __call__(self, logprobs: Array, batch: Batch) -> tuple[Array, dict[str, Array]]:
        return -batch.advantages * logprobs, {"ratio": jnp.exp(log_ratio(logprobs, batch))}
