"""A regular expression of your own that finds the answer."""

from __future__ import annotations

import dataclasses
import functools
import re

from prerl_jax.data.problems import Problem
from prerl_jax.verify.batch import VerifierTraits, require_truth
from prerl_jax.verify.judgement import Judgement, right_or_wrong


@dataclasses.dataclass(frozen=True)
class RegexAnswer:
    r"""Right if the group of the pattern's last match equals the problem's answer, without white space at both ends.

    `RegexAnswer(r"<answer>(.*?)</answer>", "<answer>{answer}</answer>")`. It needs worker processes, because some
    patterns take any time on some responses: (a*)*b on many letters a.

    Attributes:
        pattern: a regular expression of Python with one group; "." matches no line break, unless it starts with (?s).
        written: how a right response is written, with "{answer}" in it. A run checks with it that the pattern accepts
            the answers of its problems.
        ignore_case: whether capital and small letters are equal in the answer. In the pattern, write (?i).

    Raises ValueError for a pattern that is wrong or has another number of groups, or no "{answer}" in `written`.
    """

    pattern: str
    written: str
    ignore_case: bool = False
    traits = VerifierTraits(needs_workers=True)

    def __post_init__(self) -> None:
        try:
            groups = _compiled(self.pattern).groups
        except re.error as error:
            raise ValueError(f"RegexAnswer.pattern {self.pattern!r} is no regular expression: {error}") from error
        if groups != 1:
            raise ValueError(
                f"RegexAnswer.pattern {self.pattern!r} needs one group, got {groups}; write (?:...) for the others"
            )
        if "{answer}" not in self.written:
            raise ValueError(f'RegexAnswer.written needs "{{answer}}" in it, got {self.written!r}')

    def __call__(self, problem: Problem, response: str) -> Judgement:
        """The judgement of one response; never raises on a response.

        Raises:
            ValueError: the problem's ground truth is empty.
        """
        require_truth(problem)
        last = None
        for last in _compiled(self.pattern).finditer(response):  # noqa: B007
            pass
        if last is None or last[1] is None:
            return right_or_wrong(False, format_ok=False)
        answer = self._form(last[1])
        return right_or_wrong(answer == self._form(problem.answer), answer, format_ok=True)

    def check(self, problem: Problem) -> None:
        """Raises ValueError if the ground truth is empty, or the pattern does not find it in `written`."""
        require_truth(problem)
        if self(problem, self.write(problem)).verdict != "right":
            raise ValueError(f"the pattern does not find the ground truth in {self.write(problem)!r}: {problem}")

    def write(self, problem: Problem) -> str:
        """The ground truth in the place of "{answer}"."""
        return self.written.replace("{answer}", problem.answer.strip())

    def _form(self, text: str) -> str:
        return text.strip().casefold() if self.ignore_case else text.strip()


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)
