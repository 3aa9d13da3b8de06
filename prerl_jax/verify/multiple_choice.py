r"""Multiple choice: the letter that the response chooses.

It is, in this order: the letter of the last \boxed, if there is one; else of the last "answer is X" or "answer: X" (or
choice, or option); else of the whole response, if it is a letter ("B", "(B)") or starts with a marked one ("B. Paris").
A response that names several at once ("A or B") chooses none.
"""

from __future__ import annotations

import dataclasses
import functools
import re

from prerl_jax.data.problems import Problem
from prerl_jax.verify.boxed import last_boxed


@dataclasses.dataclass(frozen=True)
class MultipleChoice:
    """1.0 if the response chooses the letter of the answer, else 0.0.

    Attributes:
        letters: the possible letters, two or more distinct capitals.

    Raises ValueError for other letters.
    """

    letters: str = "ABCDE"

    def __post_init__(self) -> None:
        if not re.fullmatch("[A-Z]{2,}", self.letters) or len(set(self.letters)) < len(self.letters):
            raise ValueError(f"MultipleChoice needs two or more distinct capital letters, got {self.letters!r}")

    def __call__(self, problem: Problem, response: str) -> float:
        """The reward of one response; never raises on a response.

        Raises:
            ValueError: the problem's ground truth is not one of the letters.
        """
        return float(choice(response, self.letters) == self._gold(problem))

    def check(self, problem: Problem) -> None:
        """Raises ValueError if the ground truth is not one of the letters."""
        self._gold(problem)

    def _gold(self, problem: Problem) -> str:
        gold = problem.answer.strip().strip("().").upper()
        if len(gold) != 1 or gold not in self.letters:
            raise ValueError(f"the ground truth is not one letter of {self.letters!r}: {problem}")
        return gold


def choice(response: str, letters: str) -> str | None:
    """The letter that the response chooses, or None."""
    boxed, stated, whole = _patterns(letters)
    box = last_boxed(response)
    if box is not None:
        found = boxed.fullmatch(box.strip())
        return found[1].upper() if found else None
    plain = response.replace("*", "").replace("$", "").strip()
    last = None
    for last in stated.finditer(plain):  # noqa: B007
        pass
    found = last or whole.match(plain)
    return found[1] if found else None


@functools.cache
def _patterns(letters: str) -> tuple[re.Pattern, re.Pattern, re.Pattern]:
    one = f"([{letters}])"
    # Possessive repetitions (*+): a failed match is not retried with fewer characters, so hostile text costs little.
    alone = rf"(?![A-Za-z0-9'])(?![).:]*+\s*+(?:or|and|,|/|&)\s*+\(?[{letters}]\b)"
    return (
        re.compile(rf"(?:\\(?:text|textbf|mathrm|mathbf)\{{)?\s*+\(?{one}\)?\.?\s*+\}}?", re.IGNORECASE),
        re.compile(
            rf"(?i:answer|option|choice)\s*+(?:(?i:is)\b\s*+:?|:)\s*+(?i:option\b|choice\b)?\s*+\(?{one}{alone}"
        ),
        re.compile(rf"\(?{one}{alone}(?:\)?[.:]?\Z|\)?[.:]\s|\)\s)"),
    )
