"""Exact match: the response, or what follows its last marker, is the answer to the letter."""

from __future__ import annotations

import dataclasses

from prerl_jax.data.problems import Problem
from prerl_jax.verify.batch import require_truth


@dataclasses.dataclass(frozen=True)
class ExactMatch:
    r"""1.0 if the text compared equals the problem's answer, white space at both ends aside, else 0.0.

    Attributes:
        marker: None compares the whole response; otherwise what follows the marker's last occurrence, and a response
            without it gets 0.
        until: where that text ends; the end of the line by default, "" for the end of the response. Only with a marker.
        ignore_case: whether capital and small letters are the same.
    """

    marker: str | None = None
    until: str = "\n"
    ignore_case: bool = False

    def __post_init__(self) -> None:
        if self.marker == "":
            raise ValueError("ExactMatch's marker is empty; use None to compare the whole response")

    def __call__(self, problem: Problem, response: str) -> float:
        """The reward of one response; never raises on a response.

        Raises:
            ValueError: the problem's ground truth is empty.
        """
        self.check(problem)
        answer = response
        if self.marker is not None:
            _, found, answer = response.rpartition(self.marker)
            if not found:
                return 0.0
            answer = answer.lstrip()  # "Answer:\n42" is an answer too
            if self.until:
                answer = answer.split(self.until, 1)[0]
        return float(self._form(answer) == self._form(problem.answer))

    def check(self, problem: Problem) -> None:
        """Raises ValueError where the ground truth is empty."""
        require_truth(problem)

    def _form(self, text: str) -> str:
        return text.strip().casefold() if self.ignore_case else text.strip()
