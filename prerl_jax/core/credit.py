"""From rewards to token weights: who is credited with what, and how the mean is taken.

A credit gives every sample an advantage and says which samples are kept. With r the rewards, and means over i's group:

    GroupRelative     A_i = r_i - mean(r)   [ / (std(r, ddof=1) + 1e-6) ]               GRPO, arXiv 2402.03300
    LeaveOneOut       A_i = r_i - mean(r of the others)                                 RLOO, 2402.14740
    BatchNormalized   A_i = (c_i - mean(c)) / (std(c, ddof=1) + 1e-6) over the batch,   REINFORCE++, 2501.03262
                      c_i = r_i, or r_i - mean(r) with the group baseline
    ConstantBaseline  A_i = r_i - baseline                                              REINFORCE
    Verdict           A_i = positive where r_i is right, -negative where it is wrong    RLVR-Decomposed, 2506.01347

Selection goes by the sign of the advantage (Verdict's by the reward, which is the same) and never alters it. Rewards
that are all equal have advantage exactly 0 wherever a mean is taken off, whatever the rounding; a reward that is NaN
makes the advantages that it enters NaN. A weighing turns the kept samples into the weights w of the loss
sum_{i,t} w_{i,t} l_{i,t}, normalised over the global batch: dropped samples leave numerator and denominator.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from prerl_jax.core.types import Array

KEEP = ("all", "negative", "positive")


def _check_keep(credit: object) -> None:
    if credit.keep not in KEEP:
        raise ValueError(f"{type(credit).__name__}.keep must be one of {KEEP}, got {credit.keep!r}.")


def _check_scale(weigh: object) -> None:
    if not 0 <= weigh.scale < float("inf"):
        raise ValueError(f"{type(weigh).__name__}.scale is {weigh.scale}; it must be 0 or more, and finite.")


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
class Verdict:
    """Right or wrong, by the reward alone: no baseline, and groups that are all wrong or all right count.

    PSR is Verdict(keep="positive"), NSR Verdict(keep="negative"), W-REINFORCE Verdict(positive=0.1).

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
                f"Verdict needs positive > 0 and negative > 0, got {self.positive} and {self.negative}. "
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


def _kept_tokens(mask: Array, keep: Array) -> tuple[Array, Array]:
    """(kept tokens f32[B, T], kept tokens of each row f32[B, 1])."""
    tokens = (mask & keep[:, None]).astype(jnp.float32)
    return tokens, tokens.sum(axis=1, keepdims=True)


def _share(numerator: Array, denominator: Array, scale: float) -> Array:
    """scale * numerator / denominator, and 0 where there is nothing to share among."""
    return jnp.where(denominator > 0, scale * numerator / jnp.maximum(denominator, 1), 0.0)


@dataclasses.dataclass(frozen=True)
class TokenMean:
    """The mean over all kept tokens of the global batch."""

    scale: float = 1.0

    def __post_init__(self):
        _check_scale(self)

    def __call__(self, mask: Array, keep: Array, response_length: int) -> Array:
        tokens, _ = _kept_tokens(mask, keep)
        return _share(tokens, tokens.sum(), self.scale)


@dataclasses.dataclass(frozen=True)
class SequenceMeanTokenMean:
    """The mean over kept sequences of their token means."""

    scale: float = 1.0

    def __post_init__(self):
        _check_scale(self)

    def __call__(self, mask: Array, keep: Array, response_length: int) -> Array:
        tokens, lengths = _kept_tokens(mask, keep)
        return _share(_share(tokens, lengths, 1.0), (lengths > 0).sum(), self.scale)


@dataclasses.dataclass(frozen=True)
class SequenceMeanTokenSum:
    """The mean over kept sequences of their token sums."""

    scale: float = 1.0

    def __post_init__(self):
        _check_scale(self)

    def __call__(self, mask: Array, keep: Array, response_length: int) -> Array:
        tokens, lengths = _kept_tokens(mask, keep)
        return _share(tokens, (lengths > 0).sum(), self.scale)


@dataclasses.dataclass(frozen=True)
class SequenceSumNorm:
    """The sum over kept sequences of their token sums, divided by the maximum response length R."""

    scale: float = 1.0

    def __post_init__(self):
        _check_scale(self)

    def __call__(self, mask: Array, keep: Array, response_length: int) -> Array:
        tokens, _ = _kept_tokens(mask, keep)
        return self.scale * tokens / response_length


@dataclasses.dataclass(frozen=True)
class SequenceMeanSumNorm:
    """The mean over kept sequences of their token sums, each divided by the maximum response length R."""

    scale: float = 1.0

    def __post_init__(self):
        _check_scale(self)

    def __call__(self, mask: Array, keep: Array, response_length: int) -> Array:
        tokens, lengths = _kept_tokens(mask, keep)
        return _share(tokens, response_length * (lengths > 0).sum(), self.scale)
