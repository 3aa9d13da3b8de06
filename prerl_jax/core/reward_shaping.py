"""Reward shaping: changes the rewards before advantages are computed from them.

OverlongPenalty   r - penalty * clip((|y| - (limit - buffer)) / buffer, 0, 1),  |y| in tokens    (DAPO, 2503.14476)
KLPenalty         r on the last token - beta * D(pi_old, pi_ref) on every token          (InstructGPT, 2203.02155)

In a phase with `max_resamples`, a group of equal verifier rewards that found no replacement teaches nothing: a shaping
adds nothing to its rewards, so its advantages are exactly 0. A divergence from a reference is still subtracted (see
`divergence_alone`).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from prerl_jax.core.kl import REWARD_ESTIMATORS, divergence
from prerl_jax.core.traits import RewardShapingTraits, check_traits
from prerl_jax.core.types import Array, RewardShaping, Rollouts


@dataclasses.dataclass(frozen=True)
class OverlongPenalty:
    """Lowers the reward of a response that reaches into its last `buffer` tokens, linearly (DAPO, arXiv 2503.14476).

    DAPO's rewards are 1 and -1, and its penalty is at most 1: half of the difference between right and wrong. The
    rewards of this package's verifiers are 1 and 0, so the penalty is at most 0.5 by default, and after normalisation
    by the group's standard deviation the advantages are DAPO's. With rewards of 1 and -1, set penalty=1.0. In general,
    set half of the difference between the rewards of a right and of a wrong response; at the whole difference, a right
    response of full length counts as wrong.

    A call returns the rewards f32[B]. It raises ValueError if the limit is beyond the maximum response length.

    Attributes:
      buffer: the number of tokens over which the penalty rises from 0 to its full value, at least 1.
      limit: the length at which the penalty is full, at least `buffer`. None: the maximum response length.
      penalty: the full value, above 0.

    Raises:
      ValueError: a number is out of its range.
    """

    buffer: int
    limit: int | None = None
    penalty: float = 0.5
    traits = RewardShapingTraits()

    def __post_init__(self):
        if self.buffer < 1 or not self.penalty > 0 or (self.limit is not None and self.limit < self.buffer):
            raise ValueError(
                f"OverlongPenalty needs buffer >= 1, penalty > 0 and limit >= buffer, got buffer={self.buffer}, "
                f"penalty={self.penalty}, limit={self.limit}."
            )

    def __call__(self, rollouts: Rollouts, response_length: int) -> Array:
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
    """Subtracts the divergence from the reference from the reward, token by token (InstructGPT, arXiv 2203.02155).

    The divergence is that of the phase's space. GAE, which works by token, sees the penalty of each token where it
    is; estimators by response, such as GroupRelative, see the sum. No gradient flows through the penalty; the policy
    is the one before the first update. A call returns rewards f32[B, R]; it raises ValueError without the
    log-probabilities.

    Attributes:
      beta: coefficient of the divergence, 0 or more.
      estimator: "k1" (exact in a reward), "k2" or "k3", see `kl`.
      reward_shaping: another shaping, applied to the reward first; it must not need a reference itself.

    Raises:
      ValueError: `beta` is below 0, the estimator is not one of its choices, or the other shaping needs a reference.
    """

    beta: float
    estimator: str = "k1"
    reward_shaping: RewardShaping | None = None
    traits = RewardShapingTraits(needs_reference=True)

    def __post_init__(self):
        if self.estimator not in REWARD_ESTIMATORS or not self.beta >= 0:
            raise ValueError(
                f"KLPenalty needs an estimator of {REWARD_ESTIMATORS} and beta >= 0, got {self.estimator!r} and "
                f"{self.beta}."
            )
        if self.reward_shaping is None:
            return
        check_traits(self.reward_shaping, RewardShapingTraits)
        if self.reward_shaping.traits.needs_reference:
            raise ValueError(
                f"KLPenalty wraps a reward shaping that needs no reference, got {self.reward_shaping}. Use one of them."
            )

    def __call__(
        self,
        rollouts: Rollouts,
        response_length: int,
        *,
        logprobs: Array | None = None,
        reference: Array | None = None,
    ) -> Array:
        if logprobs is None or reference is None:
            raise ValueError("KLPenalty needs logprobs and reference, f32[B, R] each, of the response tokens.")
        rewards = rollouts.rewards if self.reward_shaping is None else self.reward_shaping(rollouts, response_length)
        return reward_with_kl(rewards, rollouts.trained_mask, logprobs, reference, self.beta, self.estimator)


def divergence_alone(shaping: RewardShaping) -> RewardShaping | None:
    """What is left of a shaping in a group of equal rewards: its divergence from a reference; None if it has none."""
    if not shaping.traits.needs_reference:
        return None
    return dataclasses.replace(shaping, reward_shaping=None) if isinstance(shaping, KLPenalty) else shaping


def reward_with_kl(
    rewards: Array, mask: Array, logprobs: Array, reference: Array, beta: float, estimator: str = "k1"
) -> Array:
    """Rewards f32[B, R]: the reward on the last token of each response, minus beta * divergence on every token.

    Args:
      rewards: f32[B].
      mask: bool[B, R], the trained tokens of the responses.
      logprobs: f32[B, R], under the policy that sampled.
      reference: f32[B, R], under the reference.
      beta: coefficient of the divergence.
      estimator: "k1" (exact in a reward), "k2" or "k3"; ValueError for another.
    """
    if estimator not in REWARD_ESTIMATORS:
        raise ValueError(
            f"A divergence in the reward has an estimator of {REWARD_ESTIMATORS}, got {estimator!r}: no gradient flows "
            "through a reward."
        )
    penalty = beta * jax.lax.stop_gradient(divergence(estimator, logprobs, reference))
    return jnp.where(mask, reward_on_last_token(rewards, mask) - penalty, 0.0)


def reward_on_last_token(rewards: Array, mask: Array) -> Array:
    """f32[B] -> f32[B, R]: each reward on the last token of its row's mask bool[B, R], 0 elsewhere."""
    after = jnp.cumsum(mask[:, ::-1], axis=1)[:, ::-1]
    return jnp.where(mask & (after == 1), jnp.asarray(rewards, jnp.float32)[:, None], 0.0)
