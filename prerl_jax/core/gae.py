"""Generalised advantage estimation and the critic's loss: PPO's pieces, as pure functions.

    delta_t = r_t + gamma V_{t+1} - V_t,      V = 0 after a response's last token
    A_t = delta_t + gamma lambda A_{t+1},     the critic's targets are A_t + V_t        (GAE, arXiv 1506.02438)
    critic  1/2 max((V - target)^2, (clip(V, V_old - c, V_old + c) - target)^2)         (PPO, 1707.06347; its code)

V_t is the value of what stands before token t is drawn; the reward of a response stands on its last token. At
gamma = lambda = 1 and V = 0, A is the return: the sum of the rewards from t on. A truncated response ends where it was
cut, like any other: its reward is 0, and no value stands in for what it might have earned.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from prerl_jax.core.kl import reward_on_last_token
from prerl_jax.core.types import Array, Rollouts


def gae(rewards: Array, values: Array, mask: Array, gamma: float, lam: float) -> tuple[Array, Array]:
    """(advantages f32[B, R], the critic's targets f32[B, R]); 0 where the mask is False.

    Args:
      rewards: f32[B, R], by token.
      values: f32[B, R]; whatever stands outside the mask is not read.
      mask: bool[B, R], the response's tokens, which are contiguous.
      gamma: discount.
      lam: the lambda of GAE.
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
    """Values of the mask minus their mean, over their standard deviation (ddof=1) + 1e-6; 0 outside the mask.

    Over the whole array, so over the global batch. Equal values become exactly 0.
    """
    count = mask.sum()
    shift = jnp.max(values, where=mask, initial=-jnp.inf)
    shifted = jnp.where(mask, values - jnp.where(count > 0, shift, 0.0), 0.0)
    difference = jnp.where(mask, shifted - shifted.sum() / jnp.maximum(count, 1), 0.0)
    return difference / (jnp.sqrt(jnp.sum(difference**2) / jnp.maximum(count - 1, 1)) + 1e-6)


def clipped_value_loss(values: Array, old_values: Array, targets: Array, clip: float | None = 0.2) -> Array:
    """The critic's loss by token, of the shape of `values`, differentiable by them.

    Args:
      values: f32[...], of the critic being trained.
      old_values: f32[...], of the critic that the targets were made with.
      targets: f32[...], see `gae`.
      clip: how far a value is rewarded for moving away from its old one; None for any distance.
    """
    plain = (values - targets) ** 2
    if clip is None:
        return plain / 2
    bounded = (old_values + jnp.clip(values - old_values, -clip, clip) - targets) ** 2
    return jnp.where(bounded > plain, bounded, plain) / 2  # not maximum: equal ones would share the gradient


@dataclasses.dataclass(frozen=True)
class GAE:
    """Advantages by token from a critic's values: PPO's credit.

    Attributes:
      gamma: discount, in [0, 1].
      lam: the lambda of GAE, in [0, 1].
      normalize: whiten the advantages over the tokens of the global batch. The critic's targets are not.
    """

    gamma: float = 1.0
    lam: float = 0.95
    normalize: bool = True
    needs_values: ClassVar[bool] = True

    def __post_init__(self):
        if not (0 <= self.gamma <= 1 and 0 <= self.lam <= 1):
            raise ValueError(f"GAE needs gamma and lam in [0, 1], got gamma={self.gamma}, lam={self.lam}.")

    def __call__(self, rollouts: Rollouts, values: Array) -> tuple[Array, Array]:
        """(advantages f32[B, R], keep bool[B], all True).

        Args:
          rollouts: B responses of up to R tokens; rewards f32[B] stand on the last token, f32[B, R] (see
            `kl.reward_with_kl`) where they are.
          values: f32[B, R] of the critic.
        """
        mask = rollouts.response_mask
        advantages, _ = self.estimate(rollouts, values)
        return whiten(advantages, mask) if self.normalize else advantages, jnp.ones(mask.shape[0], bool)

    def targets(self, rollouts: Rollouts, values: Array) -> Array:
        """What the critic learns, f32[B, R]: the advantages before they are whitened, plus the values."""
        return self.estimate(rollouts, values)[1]

    def estimate(self, rollouts: Rollouts, values: Array) -> tuple[Array, Array]:
        """(advantages f32[B, R] as they are, the critic's targets f32[B, R]); arguments as of a call."""
        rewards, mask = rollouts.rewards, rollouts.response_mask
        rewards = reward_on_last_token(rewards, mask) if rewards.ndim == 1 else rewards
        return gae(rewards, values, mask, self.gamma, self.lam)
