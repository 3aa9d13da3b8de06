"""Generalised advantage estimation from the values of a critic (arXiv 1506.02438).

A_t = sum_{k >= 0} (gamma lam)^k delta_{t+k},    delta_t = r_t + gamma V_{t+1} - V_t
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from prerl_jax.core.reward_shaping import reward_on_last_token
from prerl_jax.core.traits import AdvantageTraits
from prerl_jax.core.types import AdvantageEstimator, Array, Rollouts


@dataclasses.dataclass(frozen=True)
class GAE:
    """Generalised advantage estimation from a critic's values, by token (arXiv 1506.02438); PPO uses it.

    Rewards f32[B] count at the last trained token of their response, rewards f32[B, R] at their own token. Tokens that
    `rollouts.loss_mask` excludes are skipped: the next value is that of the next trained token. A response with an
    unknown verdict has no trained token: its advantages and targets are 0. A call returns advantages f32[B, R] and keep
    bool[B], True where the verdict is known; it raises ValueError without values.

    Attributes:
      gamma: discount, in [0, 1].
      lam: lambda, in [0, 1].
      normalize: whiten the advantages over the trained tokens of the global batch. The critic's targets are computed
        before whitening.

    Raises:
      ValueError: `gamma` or `lam` is not in [0, 1].
    """

    gamma: float = 1.0
    lam: float = 0.95
    normalize: bool = True
    traits = AdvantageTraits(needs_values=True, reads_known=True)

    def __post_init__(self):
        if not (0 <= self.gamma <= 1 and 0 <= self.lam <= 1):
            raise ValueError(f"GAE needs gamma and lam in [0, 1], got gamma={self.gamma}, lam={self.lam}.")

    def __call__(self, rollouts: Rollouts, group_size: int, values: Array | None = None) -> tuple[Array, Array]:
        if values is None:
            raise missing_values(self)
        known = rollouts.known_mask
        advantages, _ = self.estimate(rollouts, values)
        mask = rollouts.trained_mask & known[:, None]
        return whiten(advantages, mask) if self.normalize else advantages, known

    def targets(self, rollouts: Rollouts, values: Array) -> Array:
        """The critic's targets f32[B, R]: the advantages before whitening, plus the values."""
        return self.estimate(rollouts, values)[1]

    def estimate(self, rollouts: Rollouts, values: Array) -> tuple[Array, Array]:
        """(advantages f32[B, R] before whitening, the critic's targets f32[B, R]) of values f32[B, R]."""
        rewards, mask = rollouts.rewards, rollouts.trained_mask & rollouts.known_mask[:, None]
        rewards = reward_on_last_token(rewards, mask) if rewards.ndim == 1 else rewards
        if rollouts.loss_mask is None:
            return gae(rewards, values, mask, self.gamma, self.lam)
        order = jnp.argsort(~mask, axis=1, stable=True)  # the trained tokens first, so that they are contiguous
        rewards, values, mask = (jnp.take_along_axis(x, order, axis=1) for x in (rewards, values, mask))
        found, back = gae(rewards, values, mask, self.gamma, self.lam), jnp.argsort(order, axis=1)
        advantages, targets = (jnp.take_along_axis(x, back, axis=1) for x in found)
        return advantages, targets


def gae(rewards: Array, values: Array, mask: Array, gamma: float, lam: float) -> tuple[Array, Array]:
    """(advantages f32[B, R], the critic's targets f32[B, R]); 0 where the mask is False.

    Args:
      rewards: f32[B, R], by token.
      values: f32[B, R]; values outside the mask are not read.
      mask: bool[B, R], contiguous in each row.
      gamma: discount.
      lam: lambda.
    """
    rewards, values = jnp.where(mask, rewards, 0.0), jnp.where(mask, values, 0.0)
    following = jnp.pad(values[:, 1:], [(0, 0), (0, 1)])
    deltas = rewards + gamma * following - values

    def join(later, earlier):
        return earlier[0] + earlier[1] * later[0], earlier[1] * later[1]

    decay = jnp.full_like(deltas, gamma * lam)
    advantages, _ = jax.lax.associative_scan(join, (deltas, decay), reverse=True, axis=1)
    advantages = jnp.where(mask, advantages, 0.0)
    return advantages, advantages + values


def whiten(values: Array, mask: Array) -> Array:
    """The masked values minus their mean, over their standard deviation (ddof=1) + 1e-6; 0 outside the mask.

    Mean and deviation are those of the whole array f32[B, R], so of the global batch. Equal values become exactly 0.
    """
    count = mask.sum()
    shift = jnp.max(values, where=mask, initial=-jnp.inf)
    shifted = jnp.where(mask, values - jnp.where(count > 0, shift, 0.0), 0.0)
    difference = jnp.where(mask, shifted - shifted.sum() / jnp.maximum(count, 1), 0.0)
    return difference / (jnp.sqrt(jnp.sum(difference**2) / jnp.maximum(count - 1, 1)) + 1e-6)


def missing_values(advantage: AdvantageEstimator) -> ValueError:
    """The error of an estimator that reads a critic's values and is given none."""
    return ValueError(
        f"{advantage} needs a critic's values f32[B, R], and there are none. Pass them (`values=`), or use an "
        "estimator without a critic, such as GroupRelative()."
    )
