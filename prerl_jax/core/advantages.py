"""From rewards to token weights: who is estimate_advantages with what, and how the mean is taken.

A credit gives every sample an advantage and says which samples are kept. With r the rewards, and means over i's group:

    GroupRelative     A_i = r_i - mean(r)   [ / (std(r, ddof=1) + 1e-6) ]               GRPO, arXiv 2402.03300
    LeaveOneOut       A_i = r_i - mean(r of the others)                                 RLOO, 2402.14740
    BatchNormalized   A_i = (c_i - mean(c)) / (std(c, ddof=1) + 1e-6) over the batch,   REINFORCE++, 2501.03262
                      c_i = r_i, or r_i - mean(r) with the group baseline
    ConstantBaseline  A_i = r_i - baseline                                              REINFORCE
    BinaryAdvantage           A_i = positive where r_i is right, -negative where it is wrong    RLVR-Decomposed, 2506.01347

Selection goes by the sign of the advantage (BinaryAdvantage's by the reward, which is the same) and never alters it. Rewards
that are all equal have advantage exactly 0 wherever a mean is taken off, whatever the rounding; a reward that is NaN
makes the advantages that it enters NaN. A weighing turns the kept samples into the weights w of the loss
sum_{i,t} w_{i,t} l_{i,t}, normalised over the global batch: dropped samples leave numerator and denominator.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from prerl_jax.core.reward_shaping import reward_on_last_token
from prerl_jax.core.types import AdvantageEstimator, Array, Rollouts

KEEP = ("all", "negative", "positive")


def _check_keep(advantage: object) -> None:
    if advantage.keep not in KEEP:
        raise ValueError(f"{type(advantage).__name__}.keep must be one of {KEEP}, got {advantage.keep!r}.")


@dataclasses.dataclass(frozen=True)
class GroupRelative:
    """Advantage relative to the group's mean (GRPO); contiguous blocks of `group_size` rows are a group.

    Attributes:
      normalize_std: divide by the group's sample standard deviation (ddof=1) + 1e-6.
      keep: "all", "negative" (advantage < 0, NSR) or "positive" (advantage > 0, PSR).
    """

    normalize_std: bool = True
    keep: str = "all"
    compares_groups: ClassVar[bool] = True

    def __post_init__(self):
        _check_keep(self)
        if self.normalize_std in KEEP:
            raise ValueError(f"GroupRelative's first argument is normalize_std; write keep={self.normalize_std!r}.")

    def __call__(self, rewards: Array, group_size: int) -> tuple[Array, Array]:
        """rewards f32[B] -> (advantages f32[B], keep bool[B]).

        Rewards that differ from their group's mean by rounding alone have advantage exactly 0. Raises ValueError for a
        group of one, and for a batch that groups do not divide.
        """
        grouped = groups(rewards, group_size)
        advantages = centred(grouped)
        if self.normalize_std:
            advantages = advantages / (jnp.std(grouped, axis=1, ddof=1, keepdims=True) + 1e-6)
        advantages = advantages.reshape(-1)
        return advantages, kept(advantages, self.keep)


@dataclasses.dataclass(frozen=True)
class LeaveOneOut:
    """Advantage relative to the mean of the group's other samples (RLOO), G / (G - 1) times that to the group's mean.

    Attributes:
      keep: "all", "negative" or "positive", by the sign of the advantage.
    """

    keep: str = "all"
    compares_groups: ClassVar[bool] = True

    def __post_init__(self):
        _check_keep(self)

    def __call__(self, rewards: Array, group_size: int) -> tuple[Array, Array]:
        """rewards f32[B] -> (advantages f32[B], keep bool[B]). Raises as GroupRelative does."""
        advantages = centred(groups(rewards, group_size)).reshape(-1) * group_size / (group_size - 1)
        return advantages, kept(advantages, self.keep)


@dataclasses.dataclass(frozen=True)
class BatchNormalized:
    """Rewards normalised over the whole batch (REINFORCE++), each sample counting once.

    Attributes:
      group_baseline: take the group's mean off first (REINFORCE++-baseline). Groups of equal reward then have advantage
        exactly 0; without it they have the batch's view of them.
      keep: "all", "negative" or "positive", by the sign of the advantage.
    """

    group_baseline: bool = False
    keep: str = "all"

    def __post_init__(self):
        _check_keep(self)

    @property
    def compares_groups(self) -> bool:
        return self.group_baseline

    def __call__(self, rewards: Array, group_size: int) -> tuple[Array, Array]:
        """rewards f32[B] -> (advantages f32[B], keep bool[B]).

        Raises ValueError for a batch of one and, with the group baseline, as GroupRelative does.
        """
        rewards = jnp.asarray(rewards, jnp.float32)
        if rewards.shape[0] < 2:
            raise ValueError("BatchNormalized compares the samples of a batch, and this batch has only one.")
        # Group-centred rewards have mean 0 as they are: to take their mean off would bring back its rounding.
        values = groups(rewards, group_size) if self.group_baseline else rewards[None]
        values = centred(values).reshape(-1)
        advantages = values / (jnp.std(values, ddof=1) + 1e-6)
        return advantages, kept(advantages, self.keep)


@dataclasses.dataclass(frozen=True)
class ConstantBaseline:
    """Reward minus a constant: plain REINFORCE. Groups do not matter, and may be of one.

    Attributes:
      baseline: what is taken off every reward.
      keep: "all", "negative" or "positive", by the sign of the advantage.
    """

    baseline: float = 0.0
    keep: str = "all"

    def __post_init__(self):
        _check_keep(self)

    def __call__(self, rewards: Array, group_size: int) -> tuple[Array, Array]:
        """rewards f32[B] -> (advantages f32[B], keep bool[B])."""
        advantages = jnp.asarray(rewards, jnp.float32) - self.baseline
        return advantages, kept(advantages, self.keep)


@dataclasses.dataclass(frozen=True)
class BinaryAdvantage:
    """Right or wrong, by the reward alone: no baseline, and groups that are all wrong or all right count.

    PSR is BinaryAdvantage(keep="positive"), NSR BinaryAdvantage(keep="negative"), W-REINFORCE BinaryAdvantage(positive=0.1).

    Attributes:
      positive: the advantage of a right response, above 0.
      negative: minus the advantage of a wrong one, above 0.
      keep: "all", "negative" (wrong ones) or "positive" (right ones).
      right: the reward from which on a response is right.
    """

    positive: float = 1.0
    negative: float = 1.0
    keep: str = "all"
    right: float = 1.0
    judges: ClassVar[bool] = True

    def __post_init__(self):
        _check_keep(self)
        if not (self.positive > 0 and self.negative > 0):
            raise ValueError(
                f"BinaryAdvantage needs positive > 0 and negative > 0, got {self.positive} and {self.negative}. "
                'To leave one kind out, use keep="negative" or keep="positive".'
            )

    def __call__(self, rewards: Array, group_size: int) -> tuple[Array, Array]:
        """rewards f32[B] -> (advantages f32[B], keep bool[B])."""
        rewards = jnp.asarray(rewards, jnp.float32)
        advantages = jnp.where(rewards >= self.right, self.positive, -self.negative)
        advantages = jnp.where(jnp.isnan(rewards), rewards, advantages)
        return advantages, kept(advantages, self.keep)


def centred(values: Array) -> Array:
    """f32[N, G] minus the mean of each row; what differs from it by rounding alone is exactly 0.

    The row's first value comes off before the mean is taken, so that equal values leave no rounding at any length.
    """
    shifted = values - values[:, :1]
    difference = shifted - shifted.mean(axis=1, keepdims=True)
    rounding = 8 * jnp.finfo(values.dtype).eps * jnp.abs(values).max(axis=1, keepdims=True)
    return jnp.where(jnp.abs(difference) <= rounding, 0.0, difference)


def groups(rewards: Array, group_size: int) -> Array:
    """f32[B] -> f32[B / G, G]; ValueError for groups of one and for a batch that groups do not divide."""
    if group_size < 2:
        raise ValueError(
            f"A group-relative advantage compares the samples of one prompt, and a group of {group_size} is always 0. "
            f"Sample at least 2 responses a prompt (group_size >= 2)."
        )
    if rewards.shape[0] % group_size:
        raise ValueError(f"{rewards.shape[0]} rewards do not divide into groups of {group_size}.")
    return jnp.asarray(rewards, jnp.float32).reshape(-1, group_size)


def kept(advantages: Array, keep: str) -> Array:
    """bool[B]: which samples take part, by the sign of their advantage."""
    if keep == "negative":
        return advantages < 0
    if keep == "positive":
        return advantages > 0
    return jnp.ones_like(advantages, bool)


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


@dataclasses.dataclass(frozen=True)
class DropTruncated:
    """Another credit, but truncated responses are not kept: nothing is learned from where they were cut.

    Attributes:
      credit: gives the advantages, truncated responses among its samples, and says which of the others are kept.
    """

    advantage: AdvantageEstimator
    needs_rollouts: ClassVar[bool] = True

    @property
    def compares_groups(self) -> bool:
        return getattr(self.advantage, "compares_groups", False)

    @property
    def judges(self) -> bool:
        return getattr(self.advantage, "judges", False)

    @property
    def needs_values(self) -> bool:
        return getattr(self.advantage, "needs_values", False)

    def __call__(self, rollouts: Rollouts, group_size: int, values: Array | None = None) -> tuple[Array, Array]:
        """(advantages f32[B] or f32[B, R], keep bool[B]); ValueError where `rollouts.truncated` is None."""
        if rollouts.truncated is None:
            raise ValueError(
                "DropTruncated needs Rollouts.truncated, bool[B]: which responses reached the limit unended."
            )
        advantages, keep = estimate_advantages(self.advantage, rollouts, group_size, values)
        return advantages, keep & ~rollouts.truncated

    def targets(self, rollouts: Rollouts, values: Array) -> Array:
        """What a critic learns, f32[B, R], of the responses that are kept; for a credit that reads values."""
        return self.advantage.targets(rollouts, values)


def estimate_advantages(
    advantage: AdvantageEstimator, rollouts: Rollouts, group_size: int, values: Array | None = None
) -> tuple[Array, Array]:
    """(advantages f32[B] or f32[B, R], keep bool[B]) of any kind of credit, see `AdvantageEstimator`.

    Rewards by token, f32[B, R], are summed for a credit that is given rewards alone. Raises ValueError where a critic's
    values f32[B, R] are needed and missing.
    """
    if getattr(advantage, "needs_values", False) and values is None:
        raise ValueError(
            f"{advantage} needs a critic's values f32[B, R], and there are none. Pass them (`values=`), or use a credit "
            "without a critic, such as GroupRelative()."
        )
    if getattr(advantage, "needs_rollouts", False):
        return advantage(rollouts, group_size, values)
    if getattr(advantage, "needs_values", False):
        return advantage(rollouts, values)
    rewards = rollouts.rewards
    return advantage(rewards if rewards.ndim == 1 else rewards.sum(axis=1), group_size)
