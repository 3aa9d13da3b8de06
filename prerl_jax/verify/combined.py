"""Several rewards in one: a weighted sum, and gates that a response must pass."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from prerl_jax.data.problems import Problem
from prerl_jax.verify.batch import Verifier, asked_judgements, check_problem, require_verifier, written
from prerl_jax.verify.judgement import UNKNOWN, Judgement

_SAYS_WHAT_IS_RIGHT = "The first part of a CombinedReward and its gates say which responses are right"


@dataclasses.dataclass(frozen=True)
class Weighted:
    """A verifier and the weight of its reward.

    Attributes:
        verifier: verifies a response.
        weight: a finite number; below 0 for a penalty.

    Raises ValueError for a weight that is not finite, or for what is no verifier.
    """

    verifier: Verifier
    weight: float = 1.0

    def __post_init__(self) -> None:
        require_verifier(self.verifier, "Weighted.verifier")
        if not math.isfinite(self.weight):
            raise ValueError(f"Weighted.weight is {self.weight}; it must be a finite number.")


@dataclasses.dataclass(frozen=True)
class CombinedReward:
    """`CombinedReward((Weighted(BoxedAnswer()), Weighted(style, 0.1)), gates=(format,))`: a sum of rewards.

    A response passes a gate if the gate's verdict is right. For a response that passes all gates, the reward is the sum
    of weight * reward over the parts, and the verdict, the answer and `format_ok` are those of the first part. If the
    verdict of one part is unknown, the whole is unknown. A response that a gate calls wrong is wrong, gets
    `gated_reward`, and is not shown to the parts. A response on which a gate is unknown, and that no gate calls wrong,
    is unknown.

    The first part and the gates say what is right: they return a Judgement, or a number in [0, 1]. The other parts may
    return any finite number. So may the whole, since its verdict is always known.

    Attributes:
        parts: 1 or more; the first one gives the verdict.
        gates: verifiers that a response must pass.
        gated_reward: the reward of a response that does not pass.

    Raises ValueError if there is no part, a gate is no verifier, or `gated_reward` is not finite.
    """

    parts: tuple[Weighted, ...]
    gates: tuple[Verifier, ...] = ()
    gated_reward: float = 0.0

    def __post_init__(self) -> None:
        if not self.parts or not math.isfinite(self.gated_reward):
            raise ValueError(
                f"CombinedReward needs 1 part or more and a finite gated_reward, got {len(self.parts)} parts and "
                f"{self.gated_reward}."
            )
        for gate in self.gates:
            require_verifier(gate, "a gate of CombinedReward")

    def delegates(self, problem: Problem | None = None) -> tuple[Verifier, ...]:
        """The verifiers of the parts, and the gates."""
        return (*(part.verifier for part in self.parts), *self.gates)

    def verify_batch(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[Judgement]:
        """The judgements of B responses. Each part and each gate is asked once."""
        says = _SAYS_WHAT_IS_RIGHT
        by_gate = [asked_judgements(gate, problems, responses, False, says) for gate in self.gates]
        judgements = [self._gated([gate[row] for gate in by_gate]) for row in range(len(responses))]
        rows = [row for row, judgement in enumerate(judgements) if judgement is None]
        passed = [problems[row] for row in rows], [responses[row] for row in rows]
        by_part = [asked_judgements(part.verifier, *passed, i > 0, says) for i, part in enumerate(self.parts)]
        for row, *of_parts in zip(rows, *by_part, strict=True):
            judgements[row] = self._sum(of_parts)
        return [judgement for judgement in judgements if judgement is not None]

    def _gated(self, of_gates: Sequence[Judgement]) -> Judgement | None:
        """The judgement of a response that does not pass the gates; None of one that passes."""
        verdicts = {judgement.verdict for judgement in of_gates}
        if "wrong" in verdicts:
            return Judgement(self.gated_reward, "wrong")
        return UNKNOWN if "unknown" in verdicts else None

    def _sum(self, of_parts: Sequence[Judgement]) -> Judgement:
        if any(judgement.verdict == "unknown" for judgement in of_parts):
            return UNKNOWN
        reward = math.fsum(part.weight * j.reward for part, j in zip(self.parts, of_parts, strict=True))
        return dataclasses.replace(of_parts[0], reward=reward)

    def check(self, problem: Problem) -> None:
        """Raises ValueError if a part or a gate cannot verify the problem."""
        for verifier in self.delegates(problem):
            check_problem(verifier, problem)

    def write(self, problem: Problem) -> str | None:
        """What the first part writes. It does not always pass the gates."""
        return written(self.parts[0].verifier, problem)
