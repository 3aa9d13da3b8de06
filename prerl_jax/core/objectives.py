"""Objectives: the loss of each token from its log-probability. The weights of the batch take the mean.

rho = exp(clip(log pi - log pi_old, -20, 20)),  sg = stop_gradient
ClippedPG:  max(-A rho, -A clip(rho, 1 - clip_low, 1 + clip_high)); for A < 0 at most -A dual_clip
                                                                         PPO, 1707.06347; dual clip, 1912.09729
GSPO:       ClippedPG with sg(s) pi / sg(pi) for rho,  s = exp(mean over the sequence of log pi / pi_old)   2507.18071
CISPO:      -A sg(clip(rho, 1 - clip_low, 1 + clip_high)) log pi                                            2506.13585
Reinforce:  -A log pi

Each is called with `(logprobs f32[B, T], batch, entropy f32[B, T])` and returns (loss f32[B, T], {metric: f32[B, T]}).
KL terms, entropy bonuses and the correction for the sampler wrap these, see `compose`.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from prerl_jax.core.kl import LOG_RATIO_LIMIT
from prerl_jax.core.traits import ObjectiveTraits
from prerl_jax.core.types import Array, Batch


def log_ratio(logprobs: Array, batch: Batch) -> Array:
    """log pi - log pi_old, f32[B, T], clamped to +-20. Without `batch.old_logprobs`, pi_old is the current policy."""
    old = jax.lax.stop_gradient(logprobs) if batch.old_logprobs is None else batch.old_logprobs
    return jnp.clip(logprobs - old, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def _check_range(objective: ClippedPG | GSPO | CISPO) -> None:
    low, high = objective.clip_low, objective.clip_high
    if not ((low is None or 0 <= low < 1) and high >= 0):
        raise ValueError(
            f"{type(objective).__name__} needs 0 <= clip_low < 1 and clip_high >= 0, got clip_low={low}, "
            f"clip_high={high}."
        )


@dataclasses.dataclass(frozen=True)
class ClippedPG:
    """The clipped policy gradient of PPO (arXiv 1707.06347), with an optional dual clip (1912.09729).

    A call takes log-probabilities f32[B, T], a batch and entropies f32[B, T], and returns losses f32[B, T].

    Attributes:
      clip_low: the ratio is clipped below at 1 - clip_low; 0 <= clip_low < 1.
      clip_high: the ratio is clipped above at 1 + clip_high; 0 or more.
      dual_clip: for a negative advantage A the loss is at most -A * dual_clip; above 1. None: no such bound.

    Raises:
      ValueError: a bound is out of its range.
    """

    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float | None = 10.0
    traits = ObjectiveTraits(elementwise=True, skips_zero_advantage=True, uses_ratio=True)

    def __post_init__(self):
        _check_range(self)
        if self.dual_clip is not None and self.dual_clip <= 1:
            raise ValueError(
                f"ClippedPG.dual_clip bounds the ratio from above and must exceed 1, got {self.dual_clip}."
            )

    def __call__(self, logprobs: Array, batch: Batch, entropy: Array) -> tuple[Array, dict[str, Array]]:
        log_rho, bounds = log_ratio(logprobs, batch), (self.clip_low, self.clip_high, self.dual_clip)
        loss, metrics = clipped_loss(batch.advantages, jnp.exp(log_rho), *bounds)
        return loss, metrics | {"kl_old": -log_rho}


def clipped_loss(
    advantages: Array, ratio: Array, clip_low: float, clip_high: float, dual_clip: float | None = None
) -> tuple[Array, dict[str, Array]]:
    """(the loss of ClippedPG, {"ratio", "clip_fraction"}), all f32[...], from advantages and ratios f32[...]."""
    plain = -advantages * ratio
    clipped = -advantages * jnp.clip(ratio, 1 - clip_low, 1 + clip_high)
    # Not jnp.maximum: where both are equal, it would split the gradient between them, and at clip_low = 0 the clipped
    # one has none.
    bounded = clipped > plain
    loss = jnp.where(bounded, clipped, plain)
    if dual_clip is not None:
        loss = jnp.where(advantages < 0, jnp.minimum(loss, -advantages * dual_clip), loss)
    return loss, {"ratio": ratio, "clip_fraction": bounded.astype(jnp.float32)}


@dataclasses.dataclass(frozen=True)
class GSPO:
    """The clipped policy gradient with one ratio per sequence, s = exp(mean of log rho) (GSPO, arXiv 2507.18071).

    The mean is over all scored tokens of the sequence (`Sequences.mask`), whatever their advantages and weights are.
    Each token's ratio has the value s and the gradient s grad log pi (GSPO-token), so advantages by token work too.
    With one advantage per sequence and SequenceMeanTokenMean, loss and gradient are those of GSPO.

    A call takes log-probabilities f32[B, T], a batch and entropies f32[B, T], and returns losses f32[B, T].

    Attributes:
      clip_low: the ratio is clipped below at 1 - clip_low; 0 <= clip_low < 1.
      clip_high: the ratio is clipped above at 1 + clip_high; 0 or more. Both are small, because a mean of log-ratios is
        small.
    """

    clip_low: float = 3e-4
    clip_high: float = 4e-4
    traits = ObjectiveTraits(skips_zero_advantage=True, uses_ratio=True)

    def __post_init__(self):
        _check_range(self)

    def __call__(self, logprobs: Array, batch: Batch, entropy: Array) -> tuple[Array, dict[str, Array]]:
        current = jax.lax.stop_gradient(logprobs)
        log_rho = jnp.zeros_like(current) if batch.old_logprobs is None else current - batch.old_logprobs
        mean = segment_mean(log_rho, batch.sequences.segments, batch.sequences.mask)
        ratio = jnp.exp(jnp.clip(mean, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT) + (logprobs - current))
        loss, metrics = clipped_loss(batch.advantages, ratio, self.clip_low, self.clip_high)
        return loss, metrics | {"kl_old": -log_rho}


@dataclasses.dataclass(frozen=True)
class CISPO:
    """The policy gradient times a clipped ratio; every token keeps its gradient (CISPO, arXiv 2506.13585).

    A call takes log-probabilities f32[B, T], a batch and entropies f32[B, T], and returns losses f32[B, T].

    Attributes:
      clip_low: the ratio is at least 1 - clip_low, 0 <= clip_low < 1. None: no such bound.
      clip_high: the ratio is at most 1 + clip_high; 0 or more.
    """

    clip_low: float | None = None
    clip_high: float = 4.0
    traits = ObjectiveTraits(elementwise=True, skips_zero_advantage=True, uses_ratio=True)

    def __post_init__(self):
        _check_range(self)

    def __call__(self, logprobs: Array, batch: Batch, entropy: Array) -> tuple[Array, dict[str, Array]]:
        log_rho = jax.lax.stop_gradient(log_ratio(logprobs, batch))
        ratio = jnp.exp(log_rho)
        weight = jnp.clip(ratio, None if self.clip_low is None else 1 - self.clip_low, 1 + self.clip_high)
        metrics = {"ratio": ratio, "clip_fraction": (weight != ratio).astype(jnp.float32), "kl_old": -log_rho}
        return -batch.advantages * weight * logprobs, metrics


@dataclasses.dataclass(frozen=True)
class Reinforce:
    """The plain policy gradient, -A log pi (Williams, 1992).

    It has no ratio that corrects for a policy that has moved since sampling, so a phase with several updates a step
    refuses it.

    A call takes log-probabilities f32[B, T], a batch and entropies f32[B, T], and returns losses f32[B, T].
    """

    traits = ObjectiveTraits(elementwise=True, skips_zero_advantage=True, on_policy=True)

    def __call__(self, logprobs: Array, batch: Batch, entropy: Array) -> tuple[Array, dict[str, Array]]:
        return -batch.advantages * logprobs, {"ratio": jnp.exp(log_ratio(logprobs, batch))}


def segment_mean(values: Array, segments: Array, chosen: Array) -> Array:
    """For each token, the mean of `values` over the chosen tokens of its segment. Gradients flow.

    Args:
      values: f32[B, T].
      segments: i32[B, T], as in Sequences: 1, 2, ... within a row, 0 for padding; at most T.
      chosen: bool[B, T], the tokens that the mean is taken over; values elsewhere are not read.

    Returns: f32[B, T], 0 at padding and in segments without a chosen token.
    """

    def row(values: Array, segments: Array, chosen: Array) -> Array:
        count = values.shape[0] + 1
        total = jax.ops.segment_sum(jnp.where(chosen, values, 0.0), segments, count)
        number = jax.ops.segment_sum(chosen.astype(values.dtype), segments, count)
        return (total / jnp.maximum(number, 1.0))[segments]

    return jnp.where(segments > 0, jax.vmap(row)(values, segments, chosen & (segments > 0)), 0.0)
