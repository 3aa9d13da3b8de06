"""GSM8K's answer format: the number after the last "####" (Cobbe et al., 2021, arXiv 2110.14168)."""

from __future__ import annotations

import dataclasses
import re
from decimal import Decimal

from prerl_jax.data.problems import Problem

_NUMBER = re.compile(r"\s*+([-+]?)\s*+\$?\s*+([-+]?)([0-9][0-9,]*+(?:\.[0-9]++)?|\.[0-9]++)")


@dataclasses.dataclass(frozen=True)
class GSM8KAnswer:
    """1.0 if the number after the last marker equals the answer as a number, else 0.0.

    Thousands separators, a dollar sign, trailing zeros and the text after the number do not matter. The problem's
    answer may be the bare number, or a worked solution with the marker, as in the published files.

    Attributes:
        marker: the text before the number.
    """

    marker: str = "####"

    def __call__(self, problem: Problem, response: str) -> float:
        """The reward of one response; never raises on a response.

        Raises:
            ValueError: the problem's ground truth is not a number.
        """
        gold = self._gold(problem)
        _, marker, tail = response.rpartition(self.marker)
        return float(bool(marker) and number_at(tail) == gold)

    def check(self, problem: Problem) -> None:
        """Raises ValueError if the ground truth is not a number."""
        self._gold(problem)

    def _gold(self, problem: Problem) -> Decimal:
        gold = number_at(problem.answer.rsplit(self.marker, 1)[-1])
        if gold is None:
            raise ValueError(f"the ground truth is not a number: {problem}")
        return gold


def number_at(text: str) -> Decimal | None:
    """The exact value of the number at the start of the text, or None."""
    found = _NUMBER.match(text)
    if found is None or (found[1] and found[2]):
        return None
    return Decimal(found[1] + found[2] + found[3].replace(",", ""))
