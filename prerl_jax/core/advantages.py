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
            advantages = advantages / _deviation(rewards, known)
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
        count = known.sum(axis=1, keepdims=True, dtype=jnp.float32)
        advantages = centred(rewards, known) * count / jnp.maximum(count - 1, 1)
        return _selected(advantages.reshape(-1), self.keep, rollouts)


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
        differences = centred(*rows).reshape(1, -1)
        advantages = differences / _deviation(differences, rollouts.known_mask[None])
        return _selected(advantages.reshape(-1), self.keep, rollouts)


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


def response_rewards(rollouts: Rollouts) -> Array:
    """The reward of each response, f32[B]; rewards by token are summed."""
    rewards = jnp.asarray(rollouts.rewards, jnp.float32)
    return rewards if rewards.ndim == 1 else rewards.sum(axis=1)


def centred(values: Array, known: Array) -> Array:
    """f32[N, G] minus the mean of each row's known values, bool[N, G]; 0 where a value is not known.

    Differences that are rounding alone become exactly 0. A row's first known value is subtracted before the mean is
    taken, so equal values leave no rounding at any length. Values that are not known are not read.
    """
    shifted = jnp.where(known, values - first_known(values, known), 0.0)
    difference = shifted - shifted.mean(axis=1, keepdims=True, where=known)
    size = jnp.abs(values).max(axis=1, keepdims=True, where=known, initial=0.0)
    rounding = 8 * jnp.finfo(values.dtype).eps * size
    return jnp.where(known & ~(jnp.abs(difference) <= rounding), difference, 0.0)


def first_known(values: Array, known: Array) -> Array:
    """[N, 1], the first known value of each row [N, G], bool[N, G]; the row's first value if none is known."""
    return jnp.take_along_axis(values, jnp.argmax(known, axis=1, keepdims=True), axis=1)


def equal_groups(rollouts: Rollouts, group_size: int) -> Array:
    """bool[B], True in groups whose known rewards are all equal, and in groups with fewer than two of them."""
    rewards, known = by_group(response_rewards(rollouts), group_size), by_group(rollouts.known_mask, group_size)
    equal = ((rewards == first_known(rewards, known)) | ~known).all(axis=1)
    return jnp.repeat(equal, group_size)


def groups(rewards: Array, group_size: int) -> Array:
    """[B] -> [B / G, G]; ValueError for groups of one, and if the group size does not divide B."""
    if group_size < 2:
        raise ValueError(
            f"A group-relative advantage compares the responses to one prompt; with group_size = {group_size} it is "
            "always 0. Sample at least 2 responses a prompt (group_size >= 2)."
        )
    return by_group(rewards, group_size)


def by_group(values: Array, group_size: int) -> Array:
    """[B] -> [B / G, G]; ValueError if the group size does not divide B."""
    if values.shape[0] % group_size:
        raise ValueError(f"{values.shape[0]} rewards do not divide into groups of {group_size}.")
    return values.reshape(-1, group_size)


def _deviation(values: Array, known: Array) -> Array:
    """f32[N, 1], the sample standard deviation (ddof=1) of each row's known values + 1e-6; 1 for fewer than two."""
    deviation = jnp.std(values, axis=1, ddof=1, keepdims=True, where=known)
    return jnp.where(known.sum(axis=1, keepdims=True) > 1, deviation + 1e-6, 1.0)


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
