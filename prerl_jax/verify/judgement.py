"""What a verifier says about a response: its reward, and whether it is right, wrong or unknown."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from prerl_jax.data.problems import Problem

Verdict = Literal["right", "wrong", "unknown"]
"""Unknown means that nobody knows whether the response is right: a verifier missed its deadline, its process died, or
it returned None. A response with an unknown verdict is never trained on."""
VERDICTS = ("right", "wrong", "unknown")
LONGEST_ANSWER = 1000
"""The characters of an answer that are kept."""
LARGEST_REWARD = 1e15
"""The largest size of a reward. In float32, the standard deviation of a group's rewards overflows beyond about 1e19."""


class WrongAnswer(ValueError):
    """A verifier returned something that is no judgement of a response."""


def _number(value: Any) -> float | None:
    """The value as a float; None if it is no number."""
    try:
        return None if isinstance(value, str | bytes | bytearray) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _is_bool(value: Any) -> bool:
    """Whether it is one bool, of Python, NumPy or JAX."""
    return isinstance(value, bool | np.bool_) or (str(getattr(value, "dtype", "")) == "bool" and np.ndim(value) == 0)


@dataclasses.dataclass(frozen=True)
class Judgement:
    """The result of verifying one response.

    Training reads the reward, accuracy and pass@k read the verdict, and majority votes read the answer.

    Attributes:
        reward: a number from -1e15 to 1e15. It is not read where the verdict is unknown.
        verdict: "right", "wrong" or "unknown".
        answer: the answer that the verifier has found in the response, in the form in which it compares answers. None:
            it found none, or the verifier does not say. A run keeps its first 1,000 characters.
        format_ok: whether the response holds an answer in the format that the verifier asks for. None: the verifier
            does not say.

    Raises:
        ValueError: the reward is no number from -1e15 to 1e15, the verdict is not one of the three, the answer is no
            text, or `format_ok` is no bool.
    """

    reward: float
    verdict: Verdict
    answer: str | None = None
    format_ok: bool | None = None

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"Judgement.verdict must be one of {VERDICTS}, got {self.verdict!r}.")
        if (number := _number(self.reward)) is None or not math.isfinite(number):
            raise ValueError(f"Judgement.reward must be a finite number, got {self.reward!r}.")
        if abs(self.reward) > LARGEST_REWARD:
            raise ValueError(
                f"Judgement.reward must be between -{LARGEST_REWARD:g} and {LARGEST_REWARD:g}, got {self.reward!r}: "
                "the standard deviation of larger rewards overflows. Divide the rewards by a constant."
            )
        if not isinstance(self.answer, str | None):
            raise ValueError(f"Judgement.answer must be text or None, got {str(self.answer)[:80]!r}.")
        if not (self.format_ok is None or _is_bool(self.format_ok)):
            raise ValueError(f"Judgement.format_ok must be True, False or None, got {str(self.format_ok)[:80]!r}.")


UNKNOWN = Judgement(0.0, "unknown")
"""The judgement of a response on which there is no verdict."""


def truncated_judgement(reward: float = 0.0) -> Judgement:
    """The judgement of a response that reached the length limit without a stop token."""
    return Judgement(reward, "wrong", format_ok=False)


def right_or_wrong(right: bool, answer: str | None = None, format_ok: bool | None = None) -> Judgement:
    """The judgement of a verifier whose reward is 1 for a right response and 0 for a wrong one."""
    return Judgement(1.0, "right", answer, format_ok) if right else Judgement(0.0, "wrong", answer, format_ok)


NEEDS_VERDICTS = "This run needs to know which responses are right"
"""Why a reward outside [0, 1] is refused, in an error."""


def judged(
    value: Any, verifier: Any, problem: Problem, any_reward: bool = False, because: str = NEEDS_VERDICTS
) -> Judgement:
    """The judgement of what a verifier returned: a `Judgement`, a number, or None for an unknown verdict.

    A number is the reward; the response is right if it is at least 1. Numbers outside [0, 1] do not say for sure what
    is right, so they are accepted only where nothing but the reward is trained on.

    Args:
        value: what the verifier returned.
        verifier: is named in an error.
        problem: is named in an error.
        any_reward: whether numbers outside [0, 1] are accepted.
        because: says in an error why they are not.

    Raises:
        WrongAnswer: it is something else, or a number that is not finite or beyond
            1e15, or one outside [0, 1] that is not accepted.
    """
    if isinstance(value, Judgement):  # as plain values, whatever numbers and texts the verifier works with
        answer = None if value.answer is None else str(value.answer[:LONGEST_ANSWER])
        format_ok = None if value.format_ok is None else bool(value.format_ok)
        return Judgement(float(value.reward), value.verdict, answer, format_ok)
    if value is None:
        return UNKNOWN
    number, where = _number(value), f"for {str(problem)[:10_000]}"
    if number is None:
        kind = type(value).__name__
        raise WrongAnswer(
            f"{verifier} returned a {kind}, {str(value)[:80]!r}, and not a number or a Judgement, {where}"
        )
    if not math.isfinite(number):
        raise WrongAnswer(f"{verifier} returned {number}, which is not finite, {where}")
    if abs(number) > LARGEST_REWARD:
        raise WrongAnswer(
            f"{verifier} returned {number}, which is beyond {LARGEST_REWARD:g}, {where}. The standard deviation of "
            "such rewards overflows; divide them by a constant."
        )
    if not (0 <= number <= 1 or any_reward):
        raise WrongAnswer(
            f"{verifier} returned {number}, which is not in [0, 1], {where}. {because}: let the verifier return "
            "Judgement(reward, 'right' or 'wrong')."
        )
    return Judgement(number, "right" if number >= 1 else "wrong")


@dataclasses.dataclass(frozen=True)
class Verified:
    """The judgements of B responses.

    Attributes:
        judgements: B, in the order of the responses. A truncated response is wrong, and was not verified.
        timed_out: bool[B], True where verification missed its deadline. The verdict is unknown there.
        deaths: for each worker process that ended while it verified, one line that says how. The verdicts on its
            responses are unknown.
    """

    judgements: Sequence[Judgement]
    timed_out: np.ndarray
    deaths: tuple[str, ...] = ()

    @property
    def rewards(self) -> np.ndarray:
        """f32[B]; 0 where the verdict is unknown."""
        return np.array([0.0 if j.verdict == "unknown" else j.reward for j in self.judgements], np.float32)

    @property
    def right(self) -> np.ndarray:
        """bool[B], True where the verdict is "right"."""
        return np.array([j.verdict == "right" for j in self.judgements], bool)

    @property
    def known(self) -> np.ndarray:
        """bool[B], False where the verdict is "unknown"."""
        return np.array([j.verdict != "unknown" for j in self.judgements], bool)
