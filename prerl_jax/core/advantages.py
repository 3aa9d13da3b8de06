"""Advantage estimators: how much better a response is than expected, and which responses are trained on.

With r the rewards, and means over the group of response i:

    GroupRelative     A_i = r_i - mean(r)   [ / (std(r, ddof=1) + 1e-6) ]               GRPO, arXiv 2402.03300
    LeaveOneOut       A_i = r_i - mean(r of the others)                                 RLOO, 2402.14740
    BatchNormalized   A_i = (c_i - mean(c)) / (std(c, ddof=1) + 1e-6) over the batch,   REINFORCE++, 2501.03262
                      c_i = r_i, or r_i - mean(r) with the group baseline
    ConstantBaseline  A_i = r_i - baseline                                              REINFORCE
    BinaryAdvantage   A_i = positive if the verdict is "right", -negative if "wrong"    RLVR-Decomposed, 2506.01347

GAE, which reads a critic's values, is in `gae`. Every estimator is called with `(rollouts, group_size, values=None)`
and returns (advantages, keep bool[B]). It selects responses by the sign of their advantage, and the selection changes
no advantage. If all rewards of a mean are equal, the advantages are exactly 0, whatever the rounding. A reward that is
NaN makes every advantage that it enters NaN.

A response with an unknown verdict has advantage 0 and is not kept. Its reward is not read: means and standard
deviations are over the known responses. Where fewer than two of them are compared, the advantage is exactly 0.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeGuard

import jax.numpy as jnp

from prerl_jax.core.grouping import centred, deviation, groups, over_known, response_rewards
from prerl_jax.core.traits import AdvantageTraits, check_traits
from prerl_jax.core.types import AdvantageEstimator, Array, Rollouts, ValueAdvantageEstimator

KEEP = ("all", "negative", "positive")


@dataclasses.dataclass(frozen=True)
class GroupRelative:
    """The reward minus the mean reward of the group, as in GRPO (arXiv 2402.03300).

    Rewards that differ from the mean by rounding alone have advantage exactly 0. A call returns advantages f32[B] and
    keep bool[B]; it raises ValueError for groups of one, and if `group_size` does not divide B.

    Attributes:
      normalize_std: divide by the group's sample standard deviation (ddof=1) + 1e-6.
      keep: "all", "negative" (advantage < 0, NSR) or "positive" (advantage > 0, PSR).

    Raises:
      ValueError: `keep` is not one of its choices, or was passed as `normalize_std`.
    """

    normalize_std: bool = True
    keep: str = "all"
    traits = AdvantageTraits(compares_group=True, reads_known=True)

    def __post_init__(self):
        _check_keep(self)
        if self.normalize_std in KEEP:
            raise ValueError(f"GroupRelative's first argument is normalize_std; write keep={self.normalize_std!r}.")

    def __call__(self, rollouts: Rollouts, group_size: int, values: Array | None = None) -> tuple[Array, Array]:
        rewards, known = groups(response_rewards(rollouts), group_size), groups(rollouts.known_mask, group_size)
        advantages = centred(rewards, known)
        if self.normalize_std:
            advantages = advantages / deviation(rewards, known)
        return _selected(advantages.reshape(-1), self.keep, rollouts)


@dataclasses.dataclass(frozen=True)
class LeaveOneOut:
    """The reward minus the mean reward of the group's other responses, as in RLOO (arXiv 2402.14740).

    With n known responses in the group, this is n / (n - 1) times the difference to the mean of all n. A call returns
    advantages f32[B] and keep bool[B]. It raises ValueError as GroupRelative does.

    Attributes:
      keep: "all", "negative" or "positive", by the sign of the advantage.
    """

    keep: str = "all"
    traits = AdvantageTraits(compares_group=True, reads_known=True)

    def __post_init__(self):
        _check_keep(self)

    def __call__(self, rollouts: Rollouts, group_size: int, values: Array | None = None) -> tuple[Array, Array]:
        rewards, known = groups(response_rewards(rollouts), group_size), groups(rollouts.known_mask, group_size)
        differences = centred(rewards, known)

        def of_others(where: Array | None) -> Array:
            count = group_size if where is None else where.sum(axis=1, keepdims=True)
            return differences * count / jnp.maximum(count - 1, 1)

        return _selected(over_known(of_others, known).reshape(-1), self.keep, rollouts)


@dataclasses.dataclass(frozen=True)
class BatchNormalized:
    """Rewards normalised over the global batch, as in REINFORCE++ (arXiv 2501.03262).

    A call returns advantages f32[B] and keep bool[B]. It raises ValueError for a batch of one response and, with the
    group baseline, where GroupRelative does.

    Attributes:
      group_baseline: first subtract the group's mean (REINFORCE++-baseline). A group of equal rewards then has
        advantage exactly 0; without the baseline its advantage depends on the rest of the batch.
      keep: "all", "negative" or "positive", by the sign of the advantage.
    """

    group_baseline: bool = False
    keep: str = "all"

    def __post_init__(self):
        _check_keep(self)

    @property
    def traits(self) -> AdvantageTraits:
        """What it declares, see AdvantageTraits."""
        return AdvantageTraits(compares_group=self.group_baseline, reads_known=True)

    def __call__(self, rollouts: Rollouts, group_size: int, values: Array | None = None) -> tuple[Array, Array]:
        rewards = response_rewards(rollouts)
        if rewards.shape[0] < 2:
            raise ValueError("BatchNormalized compares the responses of a batch, and this batch has only one.")
        # Rewards centred by group already have mean 0. Subtracting their mean again would bring its rounding back.
        compared = (rewards, rollouts.known_mask)
        rows = [groups(x, group_size) if self.group_baseline else x[None] for x in compared]
        differences = centred(*rows).reshape(-1)
        return _selected(differences / deviation(differences, rollouts.known_mask), self.keep, rollouts)


@dataclasses.dataclass(frozen=True)
class ConstantBaseline:
    """The reward minus a constant: plain REINFORCE. Groups play no role, and may have one response.

    A call returns advantages f32[B] and keep bool[B].

    Attributes:
      baseline: the constant.
      keep: "all", "negative" or "positive", by the sign of the advantage.
    """

    baseline: float = 0.0
    keep: str = "all"
    traits = AdvantageTraits(reads_known=True)

    def __post_init__(self):
        _check_keep(self)

    def __call__(self, rollouts: Rollouts, group_size: int, values: Array | None = None) -> tuple[Array, Array]:
        return _selected(response_rewards(rollouts) - self.baseline, self.keep, rollouts)


@dataclasses.dataclass(frozen=True)
class BinaryAdvantage:
    """One advantage for right responses and one for wrong ones, without a baseline (arXiv 2506.01347).

    It reads the verdict (`Rollouts.right_mask`), whatever the reward is. Groups whose responses are all right or all
    wrong are trained on, too. PSR is BinaryAdvantage(keep="positive"), NSR is BinaryAdvantage(keep="negative"),
    W-REINFORCE is BinaryAdvantage(positive=0.1). A call returns advantages f32[B] and keep bool[B].

    Attributes:
      positive: the advantage of a right response, above 0.
      negative: minus the advantage of a wrong response, above 0.
      keep: "all", "negative" (wrong responses) or "positive" (right responses).

    Raises:
      ValueError: an advantage is not above 0, or `keep` is not one of its choices.
    """

    positive: float = 1.0
    negative: float = 1.0
    keep: str = "all"
    traits = AdvantageTraits(needs_verdict=True, reads_known=True)

    def __post_init__(self):
        _check_keep(self)
        if not (self.positive > 0 and self.negative > 0):
            raise ValueError(
                f"BinaryAdvantage needs positive > 0 and negative > 0, got {self.positive} and {self.negative}. "
                'To leave one kind of response out, use keep="negative" or keep="positive".'
            )

    def __call__(self, rollouts: Rollouts, group_size: int, values: Array | None = None) -> tuple[Array, Array]:
        rewards = response_rewards(rollouts)
        advantages = jnp.where(rollouts.right_mask, self.positive, -self.negative)
        return _selected(jnp.where(jnp.isnan(rewards), rewards, advantages), self.keep, rollouts)


@dataclasses.dataclass(frozen=True)
class DropTruncated:
    """Another estimator, without truncated responses: the model does not learn from responses cut at the length limit.

    Truncated responses still enter the means of the other estimator. A call returns its advantages,
    f32[B] or f32[B, R], and keep bool[B]. It raises ValueError if `rollouts.truncated` is None.

    Attributes:
      advantage: the other estimator. Its traits are those of DropTruncated.
    """

    advantage: AdvantageEstimator

    def __post_init__(self):
        check_advantage(self.advantage)

    @property
    def traits(self) -> AdvantageTraits:
        """What it declares, see AdvantageTraits."""
        return self.advantage.traits

    def __call__(self, rollouts: Rollouts, group_size: int, values: Array | None = None) -> tuple[Array, Array]:
        if rollouts.truncated is None:
            raise ValueError("DropTruncated reads Rollouts.truncated, bool[B], and it is None.")
        advantages, keep = self.advantage(rollouts, group_size, values)
        return advantages, keep & ~rollouts.truncated

    def targets(self, rollouts: Rollouts, values: Array) -> Array:
        """The other estimator's targets for the critic, f32[B, R]; ValueError if it reads no values."""
        if not reads_values(self.advantage):
            raise ValueError(f"{self.advantage} reads no values of a critic, so it has no targets for one.")
        return self.advantage.targets(rollouts, values)


def _selected(advantages: Array, keep: str, rollouts: Rollouts) -> tuple[Array, Array]:
    """(advantages f32[B], 0 where the verdict is unknown; bool[B]: the known responses that `keep` selects)."""
    known = rollouts.known_mask
    advantages = jnp.where(known, advantages, 0.0)
    chosen = {"all": known, "negative": advantages < 0, "positive": advantages > 0}
    return advantages, chosen[keep]


def reads_values(advantage: AdvantageEstimator) -> TypeGuard[ValueAdvantageEstimator]:
    """Whether an estimator reads a critic's values, and so has `targets`."""
    return advantage.traits.needs_values


def check_advantage(advantage: AdvantageEstimator) -> None:
    """Raises ValueError unless an estimator has its traits, and `targets` if it reads a critic's values."""
    check_traits(advantage, AdvantageTraits)
    if reads_values(advantage) and not isinstance(advantage, ValueAdvantageEstimator):
        raise ValueError(
            f"{type(advantage).__name__} reads a critic's values, and does not define what the critic learns. Give it "
            "a method targets(rollouts, values) -> f32[B, R], as GAE has."
        )


def _check_keep(advantage: Any) -> None:
    if advantage.keep not in KEEP:
        raise ValueError(f"{type(advantage).__name__}.keep must be one of {KEEP}, got {advantage.keep!r}.")
