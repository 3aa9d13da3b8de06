"""What becomes of rewards before credit is given, and of truncated responses.

OverlongPenalty   r - penalty * clip((|y| - (limit - buffer)) / buffer, 0, 1),   |y| in tokens     (DAPO, 2503.14476)
KLPenalty         r on the last token - coefficient * D(pi_old, pi_ref) on every token      (InstructGPT, 2203.02155)
DropTruncated     truncated responses are not kept; they still enter their group's mean
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from prerl_jax.core.kl import REWARD_FORMS, reward_with_kl
from prerl_jax.core.types import Array, Credit, Rollouts, Shape


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
      coefficient: of the divergence.
      form: "k1" (exact in a reward), "k2" or "k3", see `kl`.
      shape: another shape, which the reward has first.
    """

    coefficient: float
    form: str = "k1"
    shape: Shape | None = None
    needs_reference: ClassVar[bool] = True

    def __post_init__(self):
        if self.form not in REWARD_FORMS or not self.coefficient >= 0:
            raise ValueError(
                f"KLPenalty needs a form of {REWARD_FORMS} and a coefficient >= 0, got {self.form!r} and "
                f"{self.coefficient}."
            )
        if getattr(self.shape, "needs_reference", False):
            raise ValueError(f"KLPenalty goes around a shape without a reference, got {self.shape}.")

    def __call__(self, rollouts: Rollouts, response_length: int, *, logprobs: Array, reference: Array) -> Array:
        """Rewards f32[B, R] of log-probabilities f32[B, R], see `Shape`."""
        rewards = rollouts.rewards if self.shape is None else self.shape(rollouts, response_length)
        return reward_with_kl(rewards, rollouts.response_mask, logprobs, reference, self.coefficient, self.form)


@dataclasses.dataclass(frozen=True)
class DropTruncated:
    """Another credit, but truncated responses are not kept: nothing is learned from where they were cut.

    Attributes:
      credit: gives the advantages, truncated responses among its samples, and says which of the others are kept.
    """

    credit: Credit
    needs_rollouts: ClassVar[bool] = True

    @property
    def compares_groups(self) -> bool:
        return getattr(self.credit, "compares_groups", False)

    @property
    def judges(self) -> bool:
        return getattr(self.credit, "judges", False)

    @property
    def needs_values(self) -> bool:
        return getattr(self.credit, "needs_values", False)

    def __call__(self, rollouts: Rollouts, group_size: int, values: Array | None = None) -> tuple[Array, Array]:
        """(advantages f32[B] or f32[B, R], keep bool[B]); ValueError where `rollouts.truncated` is None."""
        if rollouts.truncated is None:
            raise ValueError(
                "DropTruncated needs Rollouts.truncated, bool[B]: which responses reached the limit unended."
            )
        advantages, keep = credited(self.credit, rollouts, group_size, values)
        return advantages, keep & ~rollouts.truncated

    def targets(self, rollouts: Rollouts, values: Array) -> Array:
        """What a critic learns, f32[B, R], of the responses that are kept; for a credit that reads values."""
        return self.credit.targets(rollouts, values)


def credited(credit: Credit, rollouts: Rollouts, group_size: int, values: Array | None = None) -> tuple[Array, Array]:
    """(advantages f32[B] or f32[B, R], keep bool[B]) of any kind of credit, see `Credit`.

    Rewards by token, f32[B, R], are summed for a credit that is given rewards alone. Raises ValueError where a critic's
    values f32[B, R] are needed and missing.
    """
    if getattr(credit, "needs_values", False) and values is None:
        raise ValueError(
            f"{credit} needs a critic's values f32[B, R], and there are none. Pass them (`values=`), or use a credit "
            "without a critic, such as GroupRelative()."
        )
    if getattr(credit, "needs_rollouts", False):
        return credit(rollouts, group_size, values)
    if getattr(credit, "needs_values", False):
        return credit(rollouts, values)
    rewards = rollouts.rewards
    return credit(rewards if rewards.ndim == 1 else rewards.sum(axis=1), group_size)
