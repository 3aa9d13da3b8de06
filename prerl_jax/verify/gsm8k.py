"""GSM8K's answer format: the number after the last "####" (Cobbe et al., 2021, arXiv 2110.14168)."""

from __future__ import annotations

import dataclasses

from prerl_jax.data.problems import Problem
from prerl_jax.verify.judgement import Judgement, right_or_wrong
from prerl_jax.verify.numbers import Number, leading_number, same_number


@dataclasses.dataclass(frozen=True)
class GSM8KAnswer:
    r"""Right if the number after the last marker equals the answer as a number.

    Thousands separators, a dollar sign, trailing zeros, bold type, a box, and words after the number do not matter. A
    sentence that names another number, or a calculation, has no number: "18 or 19", "9 * 2". The problem's answer may
    be the bare number, or a worked solution with the marker, as in the published files.

    Attributes:
        marker: the text before the number.

    Raises ValueError for an empty marker.
    """

    marker: str = "####"

    def __post_init__(self) -> None:
        if not self.marker:
            raise ValueError("GSM8KAnswer's marker is empty; the published files have '####'")

    def __call__(self, problem: Problem, response: str) -> Judgement:
        """The judgement of one response; never raises on a response.

        Raises:
            ValueError: the problem's ground truth is not a number.
        """
        gold = self._gold(problem)
        _, marker, tail = response.rpartition(self.marker)
        number = leading_number(tail) if marker else None
        if number is None:
            return right_or_wrong(False, format_ok=False)
        return right_or_wrong(same_number(number, gold), str(number), format_ok=True)

    def check(self, problem: Problem) -> None:
        """Raises ValueError if the ground truth is not a number."""
        self._gold(problem)

    def write(self, problem: Problem) -> str:
        """The marker, and the ground truth after it."""
        return f"{self.marker} {self._written(problem)}"

    def _written(self, problem: Problem) -> str:
        return problem.answer.rsplit(self.marker, 1)[-1].strip()

    def _gold(self, problem: Problem) -> Number:
        gold = leading_number(self._written(problem))
        if gold is None:
            raise ValueError(f"the ground truth is not a number: {problem}")
        return gold
