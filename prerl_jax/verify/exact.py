"""Exact match: the response, or the text after its last marker, equals the answer."""

from __future__ import annotations

import dataclasses

from prerl_jax.data.problems import Problem
from prerl_jax.verify.batch import require_truth
from prerl_jax.verify.judgement import Judgement, right_or_wrong


@dataclasses.dataclass(frozen=True)
class ExactMatch:
    r"""Right if the compared text equals the problem's answer, except for white space at both ends.

    Attributes:
        marker: None compares the whole response. With a marker, the text after its last occurrence is compared, and a
            response without it is wrong.
        until: the text that ends the compared text; by default the end of the line, "" for the end of the response. It
            has no effect without a marker.
        ignore_case: whether capital and small letters are equal.

    Raises ValueError for an empty marker.
    """

    marker: str | None = None
    until: str = "\n"
    ignore_case: bool = False

    def __post_init__(self) -> None:
        if self.marker == "":
            raise ValueError("ExactMatch's marker is empty; use None to compare the whole response")

    def __call__(self, problem: Problem, response: str) -> Judgement:
        """The judgement of one response; never raises on a response.

        Raises:
            ValueError: the problem's ground truth is empty.
        """
        require_truth(problem)
        answer = response
        if self.marker is not None:
            _, found, answer = response.rpartition(self.marker)
            if not found:
                return right_or_wrong(False, format_ok=False)
            answer = answer.lstrip()  # "Answer:\n42" is an answer too
            if self.until:
                answer = answer.split(self.until, 1)[0]
        answer = self._form(answer)
        return right_or_wrong(answer == self._form(problem.answer), answer, format_ok=bool(answer))

    def check(self, problem: Problem) -> None:
        """Raises ValueError if the ground truth is empty, or holds the marker or the text that ends an answer."""
        require_truth(problem)
        if self(problem, self.write(problem)).verdict != "right":
            raise ValueError(
                f"the ground truth holds {self.marker!r} or {self.until!r}, so no response is right: {problem}"
            )

    def write(self, problem: Problem) -> str:
        """The ground truth, after the marker if there is one."""
        answer = problem.answer.strip()
        return answer if self.marker is None else f"{self.marker} {answer}{self.until}"

    def _form(self, text: str) -> str:
        return text.strip().casefold() if self.ignore_case else text.strip()
