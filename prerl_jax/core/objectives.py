"""Per-token losses of log-probabilities: l(log pi, batch) -> f32[B, T]. They never reduce; the weights do.

rho = exp(clip(log pi - log pi_old, -20, 20)),  sg = stop_gradient
ClippedPG:  max(-A rho, -A clip(rho, 1 - low, 1 + high)),  for A < 0 at most -A dual     PPO, 1707.06347; 1912.09729
GSPO:       the same with sg(s) pi / sg(pi) for rho,  s = exp(mean over the sequence of log pi / pi_old)   2507.18071
CISPO:      -A sg(clip(rho, 1 - low, 1 + high)) log pi                                             2506.13585
Reinforce:  -A log pi

An objective that declares `elementwise` reads of the batch nothing but the token's own entries. KL terms, entropy
bonuses and the sampler's ratio go around these, see `compose`.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from prerl_jax.core.kl import LOG_RATIO_LIMIT
from prerl_jax.core.types import Array, Batch


def log_ratio(logprobs: Array, batch: Batch) -> Array:
    """log pi - log pi_old, f32[B, T], clamped to +-20; old is the current policy where the batch has none."""
    old = jax.lax.stop_gradient(logprobs) if batch.old_logprobs is None else batch.old_logprobs
    return jnp.clip(logprobs - old, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def _check_range(objective: ClippedPG | GSPO | CISPO) -> None:
    low, high = objective.clip_low, objective.clip_high
    if not ((low is None or 0 <= low < 1) and high >= 0):
        raise ValueError(
            f"{type(objective).__name__} needs 0 <= clip_low < 1 and clip_high >= 0, got clip_low={low}, clip_high={high}."
        )


@dataclasses.dataclass(frozen=True)
class ClippedPG:
    """The clipped policy gradient of PPO, with an optional dual clip for negative advantages.

    Attributes:
      clip_low: the ratio is clipped at 1 - clip_low.
      clip_high: and at 1 + clip_high.
      dual_clip: for a negative advantage A the loss is at most -A * dual_clip; None for no such bound.
    """

    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float | None = 10.0
    skips_zero_advantage: ClassVar[bool] = True
    elementwise: ClassVar[bool] = True
    uses_ratio: ClassVar[bool] = True

    def __post_init__(self):
        _check_range(self)
        if self.dual_clip is not None and self.dual_clip <= 1:
            raise ValueError(
                f"ClippedPG.dual_clip bounds the ratio from above and must exceed 1, got {self.dual_clip}."
            )

    def __call__(self, logprobs: Array, batch: Batch) -> tuple[Array, dict[str, Array]]:
        log_rho = log_ratio(logprobs, batch)
        loss, metrics = clipped_loss(batch.advantages, jnp.exp(log_rho), self.clip_low, self.clip_high, self.dual_clip)
        return loss, metrics | {"kl_old": -log_rho}


def clipped_loss(advantages: Array, ratio: Array, low: float, high: float, dual: float | None = None):
    """(the clipped loss f32[...], {"ratio", "clip_fraction"}), of advantages and ratios f32[...]; see ClippedPG."""
    plain = -advantages * ratio
    clipped = -advantages * jnp.clip(ratio, 1 - low, 1 + high)
    # Not maximum: where both are equal it would give the clipped one half of the gradient, none of it at low = 0.
    bounded = clipped > plain
    loss = jnp.where(bounded, clipped, plain)
    if dual is not None:
        loss = jnp.where(advantages < 0, jnp.minimum(loss, -advantages * dual), loss)
    return loss, {"ratio": ratio, "clip_fraction": bounded.astype(jnp.float32)}


@dataclasses.dataclass(frozen=True)
class GSPO:
    """The clipped policy gradient with one ratio a sequence, s = exp(mean of log rho over its trained tokens).

    Each token's ratio has the value s and the gradient s grad log pi (GSPO-token), so that advantages by token work.
    With one advantage a sequence and SequenceMeanTokenMean, loss and gradient are GSPO's.

    Attributes:
      clip_low: the ratio is clipped at 1 - clip_low.
      clip_high: and at 1 + clip_high. Means of log-ratios are small, and so are these.
    """

    clip_low: float = 3e-4
    clip_high: float = 4e-4
    skips_zero_advantage: ClassVar[bool] = True
    uses_ratio: ClassVar[bool] = True

    def __post_init__(self):
        _check_range(self)

    def __call__(self, logprobs: Array, batch: Batch) -> tuple[Array, dict[str, Array]]:
        now = jax.lax.stop_gradient(logprobs)
        gap = jnp.zeros_like(now) if batch.old_logprobs is None else now - batch.old_logprobs
        trained = batch.sequences.mask & (batch.weights != 0)
        mean = jnp.clip(segment_mean(gap, batch.sequences.segments, trained), -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
        ratio = jnp.exp(mean + (logprobs - now))
        loss, metrics = clipped_loss(batch.advantages, ratio, self.clip_low, self.clip_high)
        return loss, metrics | {"kl_old": -gap}


@dataclasses.dataclass(frozen=True)
class CISPO:
    """The policy gradient weighted by a clipped ratio: no token is left without a gradient.

    Attributes:
      clip_low: the weight is at least 1 - clip_low; None for no such bound.
      clip_high: and at most 1 + clip_high.
    """

    clip_low: float | None = None
    clip_high: float = 4.0
    skips_zero_advantage: ClassVar[bool] = True
    elementwise: ClassVar[bool] = True
    uses_ratio: ClassVar[bool] = True

    def __post_init__(self):
        _check_range(self)

    def __call__(self, logprobs: Array, batch: Batch) -> tuple[Array, dict[str, Array]]:
        log_rho = jax.lax.stop_gradient(log_ratio(logprobs, batch))
        ratio = jnp.exp(log_rho)
        weight = jnp.clip(ratio, None if self.clip_low is None else 1 - self.clip_low, 1 + self.clip_high)
        metrics = {"ratio": ratio, "clip_fraction": (weight != ratio).astype(jnp.float32), "kl_old": -log_rho}
        return -batch.advantages * weight * logprobs, metrics


@dataclasses.dataclass(frozen=True)
class Reinforce:
    """The plain policy gradient, -A log pi."""

    skips_zero_advantage: ClassVar[bool] = True
    elementwise: ClassVar[bool] = True

    def __call__(self, logprobs: Array, batch: Batch) -> tuple[Array, dict[str, Array]]:
        return -batch.advantages * logprobs, {"ratio": jnp.exp(log_ratio(logprobs, batch))}


def segment_mean(values: Array, segments: Array, chosen: Array) -> Array:
    """For every token the mean of `values` over the chosen tokens of its segment.

    Args:
      values: f32[B, T].
      segments: i32[B, T], as in Sequences: 1, 2, ... within a row, 0 for padding; at most T.
      chosen: bool[B, T], the tokens that the mean is over; what stands elsewhere is not read.

    Returns: f32[B, T], 0 for segments without a chosen token and at padding. Gradients flow.
    """

    def row(values: Array, segments: Array, chosen: Array) -> Array:
        count = values.shape[0] + 1
        total = jax.ops.segment_sum(jnp.where(chosen, values, 0.0), segments, count)
        number = jax.ops.segment_sum(chosen.astype(values.dtype), segments, count)
        return (total / jnp.maximum(number, 1.0))[segments]

    return jnp.where(segments > 0, jax.vmap(row)(values, segments, chosen & (segments > 0)), 0.0)
