"""Verifiers, and the rewards of a batch of responses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from prerl_jax.data.problems import Problem


class Verifier(Protocol):
    """A config value that verifies one response. Any frozen dataclass with this method works.

    A verifier may also be a `ChecksProblems`.
    """

    def __call__(self, problem: Problem, response: str) -> float:
        """The reward, in [0, 1]."""


@runtime_checkable
class ChecksProblems(Protocol):
    """A verifier that can say before a run which problems it cannot verify."""

    def check(self, problem: Problem) -> None:
        """Raises ValueError if no response to this problem can be verified, such as for an answer of the wrong kind."""


def verify_all(
    verifier: Verifier,
    problems: Sequence[Problem],
    responses: Sequence[str],
    truncated: Sequence[bool],
    before: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Rewards f32[B] of B responses.

    Args:
      verifier: verifies one response.
      problems: B, the problem of each response.
      responses: B texts.
      truncated: B flags: the response reached the length limit without a stop token. Its reward is 0 whatever it
        contains, and it is not verified.
      before: is called before each response that is verified; an exception ends the call.

    Raises ValueError if lengths differ, or a reward is not a finite number in [0, 1].
    """
    require_same_length(problems, responses, truncated)
    rewards = np.zeros(len(problems), np.float32)
    for row, (problem, response) in enumerate(zip(problems, responses, strict=True)):
        if not truncated[row]:
            before()
            rewards[row] = checked(verifier(problem, response), verifier, problem)
    return rewards


def require_same_length(problems: Sequence[Problem], responses: Sequence[str], truncated: Sequence[bool]) -> None:
    """Raises ValueError if the lengths differ."""
    if not len(problems) == len(responses) == len(truncated):
        raise ValueError(
            f"{len(problems)} problems, {len(responses)} responses and {len(truncated)} truncation flags do not match"
        )


def require_truth(problem: Problem) -> None:
    """Raises ValueError if the problem's answer, the ground truth, is empty."""
    if not problem.answer.strip():
        raise ValueError(f"the ground truth is empty, which is an error in the data: {problem}")


def check_all(verifier: Verifier, problems: Sequence[Problem]) -> None:
    """Checks that a verifier can verify responses to these problems, if it is a `ChecksProblems`.

    Raises ValueError if it cannot, with the number of such problems, the index of the first one, and the remedy.
    """
    if not isinstance(verifier, ChecksProblems):
        return
    wrong: list[tuple[int, ValueError]] = []
    for index, problem in enumerate(problems):
        try:
            verifier.check(problem)
        except ValueError as error:
            wrong.append((index, error))
    if wrong:
        first, reason = wrong[0]
        raise ValueError(
            f"{verifier} cannot verify {len(wrong)} of the {len(problems)} problems; the first is problem {first} "
            f"(counted from 0): {reason}. Correct or remove these problems, or choose another data.verifier."
        )


def checked(reward: Any, verifier: Any, problem: Problem) -> float:
    """The reward as a float; the other arguments are for the error message.

    Raises ValueError if it is not a finite number in [0, 1].
    """
    try:
        number = float(reward)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{verifier} returned {reward!r}, which is not a number, for {problem}") from error
    if not 0.0 <= number <= 1.0:  # false for NaN as well
        raise ValueError(f"{verifier} returned {number}, which is not in [0, 1], for {problem}")
    return number
