"""What the parts of a phase declare about themselves: one record for each kind of part, every field False by default.

    class MyObjective:
        traits = ObjectiveTraits(elementwise=True)

A part that wraps another derives its traits from it, with `dataclasses.replace`.
"""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class SpaceTraits:
    """What a space declares.

    Attributes:
      given_prompt: its log-probabilities are conditioned on the whole prompt, as the sampler's are.
      needs_key: it draws at random, and takes the keyword `key`, a PRNG key.
    """

    given_prompt: bool = False
    needs_key: bool = False


@dataclasses.dataclass(frozen=True)
class AdvantageTraits:
    """What an advantage estimator declares.

    Attributes:
      compares_group: it compares the responses of a group, so a group of one response is refused.
      needs_values: it reads a critic's values, and has the method `targets` (see ValueAdvantageEstimator).
      needs_verdict: it reads whether a response is right or wrong (`Rollouts.right_mask`), so rewards must not be
        shaped.
      reads_known: it leaves responses with an unknown verdict (`Rollouts.known_mask`) out of its means. Without it,
        such a response has the mean reward of the batch's known ones, and its whole group is left out of the update.
    """

    compares_group: bool = False
    needs_values: bool = False
    needs_verdict: bool = False
    reads_known: bool = False


@dataclasses.dataclass(frozen=True)
class RewardShapingTraits:
    """What a reward shaping declares.

    Attributes:
      needs_reference: it takes the keywords `logprobs` and `reference`, see RewardShaping. With `max_resamples`, the
        whole result of such a shaping stays in groups of equal rewards, as its divergence must. Only KLPenalty is split
        there: another shaping inside it is left out.
    """

    needs_reference: bool = False


@dataclasses.dataclass(frozen=True)
class ObjectiveTraits:
    """What an objective declares.

    Attributes:
      elementwise: the loss of a token depends on that token's entries alone; the loss is then computed together with
        its gradient, without an array [B, T, V]. An objective that is not elementwise sees the log-probabilities of all
        scored tokens of a sequence that has a trained token; an elementwise one sees those of the trained tokens alone.
      skips_zero_advantage: the loss is 0 where the advantage is 0; rows with no other token are then left out.
      needs_entropy: the gradient flows through the argument `entropy`; without it `entropy` is a constant.
      needs_reference: it reads `batch.ref_logprobs`.
      needs_sampler_logprobs: it reads `batch.sampler_logprobs`.
      uses_ratio: it reads the ratio of the policy to the policy that sampled.
      on_policy: its gradient is right only while the policy is the one that sampled, so a phase with several updates a
        step refuses it.
    """

    elementwise: bool = False
    skips_zero_advantage: bool = False
    needs_entropy: bool = False
    needs_reference: bool = False
    needs_sampler_logprobs: bool = False
    uses_ratio: bool = False
    on_policy: bool = False


def check_traits(part: Any, kind: Any) -> None:
    """Raises ValueError unless a part is callable and its `traits` are a `kind`, such as ObjectiveTraits."""
    name = type(part).__name__
    if isinstance(part, type):
        raise ValueError(f"{part.__name__} is a class, and an instance is needed: write {part.__name__}(...).")
    if not callable(part):
        raise ValueError(f"{part!r} cannot be called. Give the class {name} a method __call__.")
    found = part.traits if hasattr(part, "traits") else None
    if not isinstance(found, kind):
        names = ", ".join(field.name for field in dataclasses.fields(kind))
        raise ValueError(
            f"{name}.traits is {found!r}, and must be of the class {kind.__name__}. Add the line "
            f"`traits = {kind.__name__}()` to the class {name}, and set what holds to True: {names}."
        )
