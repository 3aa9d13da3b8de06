"""A batch of responses to rewards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from prerl_jax.data.problems import Problem


class Verifier(Protocol):
    """A config value that judges a response. Any frozen dataclass with this method works.

    One that also has `check(problem)` is asked before a run about every problem: it raises a ValueError for one that it
    could not judge a response to, such as a ground truth that is not of its kind.
    """

    def __call__(self, problem: Problem, response: str) -> float:
        """The reward, in [0, 1]."""


def verify_all(
    verifier: Verifier,
    problems: Sequence[Problem],
    responses: Sequence[str],
    truncated: Sequence[bool],
    before: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Rewards f32[B] of B responses.

    A truncated response (length limit reached, no stop token) gets 0 whatever it contains, and is not verified.
    `before` is called before each of the others.

    Raises:
        ValueError: lengths differ, or a reward is not a finite number in [0, 1].
    """
    require_same_length(problems, responses, truncated)
    rewards = np.zeros(len(problems), np.float32)
    for row, (problem, response) in enumerate(zip(problems, responses, strict=True)):
        if not truncated[row]:
            before()
            rewards[row] = checked(verifier(problem, response), verifier, problem)
    return rewards


def require_same_length(problems: Sequence[Problem], responses: Sequence[str], truncated: Sequence[bool]) -> None:
    """Raises ValueError where the lengths differ."""
    if not len(problems) == len(responses) == len(truncated):
        raise ValueError(
            f"{len(problems)} problems, {len(responses)} responses and {len(truncated)} truncation flags do not match"
        )


def require_truth(problem: Problem) -> None:
    """Raises ValueError where the ground truth is empty."""
    if not problem.answer.strip():
        raise ValueError(f"the ground truth is empty, which is an error in the data: {problem}")


def check_all(verifier: Verifier, problems: Sequence[Problem]) -> None:
    """Asks a verifier that has `check` whether it can judge responses to these problems.

    Raises:
        ValueError: it cannot, with the number of such problems and the first one's index, and the remedy.
    """
    check = getattr(verifier, "check", None)
    wrong = []
    for index, problem in enumerate(problems if check is not None else ()):
        try:
            check(problem)
        except ValueError as error:
            wrong.append((index, error))
    if wrong:
        index, error = wrong[0]
        raise ValueError(
            f"{verifier} cannot judge {len(wrong)} of the {len(problems)} problems, problem {index} (from 0) the first "
            f"of them: {error}. Mend or remove them, or choose another data.verifier."
        )


def checked(reward: Any, verifier: Any, problem: Problem) -> float:
    """The reward as a float.

    Raises:
        ValueError: it is not a finite number in [0, 1].
    """
    try:
        number = float(reward)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{verifier} returned {reward!r}, which is no number, for {problem}") from error
    if not 0.0 <= number <= 1.0:  # false for NaN as well
        raise ValueError(f"{verifier} returned {number}, which is not in [0, 1], for {problem}")
    return number
