"""What becomes of rewards before credit is given, and of truncated responses.

OverlongPenalty   r - penalty * clip((|y| - (limit - buffer)) / buffer, 0, 1),   |y| in tokens     (DAPO, 2503.14476)
KLPenalty         r on the last token - coefficient * D(pi_old, pi_ref) on every token      (InstructGPT, 2203.02155)
DropTruncated     truncated responses are not kept; they still enter their group's mean
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from prerl_jax.core.kl import REWARD_ESTIMATORS, divergence
from prerl_jax.core.types import Array, RewardShaping, Rollouts


@dataclasses.dataclass(frozen=True)
class OverlongPenalty:
    """Takes from the reward of a response that runs into the last `buffer` tokens, in proportion.

    Attributes:
      buffer: tokens over which the penalty rises from 0 to its full value.
      limit: the length at which it is full; the maximum response length by default.
      penalty: the full value.
    """

    buffer: int
    limit: int | None = None
    penalty: float = 1.0

    def __post_init__(self):
        if self.buffer < 1 or not self.penalty > 0 or (self.limit is not None and self.limit < self.buffer):
            raise ValueError(
                f"OverlongPenalty needs buffer >= 1, penalty > 0 and limit >= buffer, got buffer={self.buffer}, "
                f"penalty={self.penalty}, limit={self.limit}."
            )

    def __call__(self, rollouts: Rollouts, response_length: int) -> Array:
        """The rewards f32[B] of responses of at most `response_length` tokens; ValueError where the limit is beyond."""
        limit = response_length if self.limit is None else self.limit
        if not self.buffer <= limit <= response_length:
            raise ValueError(
                f"OverlongPenalty(buffer={self.buffer}, limit={self.limit}) does not fit responses of at most "
                f"{response_length} tokens: it needs buffer <= limit <= {response_length}."
            )
        over = rollouts.response_mask.sum(axis=1) - (limit - self.buffer)
        return rollouts.rewards - self.penalty * jnp.clip(over / self.buffer, 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class KLPenalty:
    """Takes the divergence from the reference out of the reward, token by token, in the space that is trained in.

    A credit by token (GAE) sees each token's penalty where it stands; one by response (GroupRelative) sees their sum.
    No gradient flows through it; the policy is the one before the step's updates.

    Attributes:
      beta: coefficient of the divergence.
      estimator: "k1" (exact in a reward), "k2" or "k3", see `kl`.
      reward_shaping: another shape, which the reward has first.
    """

    beta: float
    estimator: str = "k1"
    reward_shaping: RewardShaping | None = None
    needs_reference: ClassVar[bool] = True

    def __post_init__(self):
        if self.estimator not in REWARD_ESTIMATORS or not self.beta >= 0:
            raise ValueError(
                f"KLPenalty needs a form of {REWARD_ESTIMATORS} and a coefficient >= 0, got {self.estimator!r} and "
                f"{self.beta}."
            )
        if getattr(self.reward_shaping, "needs_reference", False):
            raise ValueError(f"KLPenalty goes around a shape without a reference, got {self.reward_shaping}.")

    def __call__(self, rollouts: Rollouts, response_length: int, *, logprobs: Array, reference: Array) -> Array:
        """Rewards f32[B, R] of log-probabilities f32[B, R], see `RewardShaping`."""
        rewards = rollouts.rewards if self.reward_shaping is None else self.reward_shaping(rollouts, response_length)
        return reward_with_kl(rewards, rollouts.response_mask, logprobs, reference, self.beta, self.estimator)


def reward_with_kl(
    rewards: Array, mask: Array, logprobs: Array, reference: Array, beta: float, estimator: str = "k1"
) -> Array:
    """Token rewards f32[B, R]: the reward on a response's last token, minus beta * divergence on every token.

    Args:
      rewards: f32[B].
      mask: bool[B, R], the response's tokens.
      logprobs: f32[B, R] of the policy that sampled.
      reference: f32[B, R] of the reference.
      beta: of the divergence.
      estimator: "k1" (exact in a reward), "k2" or "k3".
    """
    if estimator not in REWARD_ESTIMATORS:
        raise ValueError(
            f"A divergence in the reward is of {REWARD_ESTIMATORS}, got {estimator!r}: no gradient flows through it."
        )
    penalty = beta * jax.lax.stop_gradient(divergence(estimator, logprobs, reference))
    return jnp.where(mask, reward_on_last_token(rewards, mask) - penalty, 0.0)


def reward_on_last_token(rewards: Array, mask: Array) -> Array:
    """f32[B] -> f32[B, R]: each reward on the last token of its response, 0 elsewhere."""
    after = jnp.cumsum(mask[:, ::-1], axis=1)[:, ::-1]
    return jnp.where(mask & (after == 1), jnp.asarray(rewards, jnp.float32)[:, None], 0.0)
