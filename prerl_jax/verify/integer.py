r"""Whole numbers in a box, as AIME asks for them: 004 is 4."""

from __future__ import annotations

import dataclasses

from prerl_jax.data.problems import Problem
from prerl_jax.verify.batch import require_truth
from prerl_jax.verify.boxes import last_answers
from prerl_jax.verify.judgement import Judgement, right_or_wrong
from prerl_jax.verify.math_forms import stated_value
from prerl_jax.verify.numbers import read_number


@dataclasses.dataclass(frozen=True)
class IntegerAnswer:
    r"""Right if the last \boxed{...} holds the problem's answer, a whole number, exactly.

    Leading zeros, ".0", separators of thousands, \text{...}, a unit and "x = " do not matter. Several boxes in a row as
    one list are no whole number.
    """

    def __call__(self, problem: Problem, response: str) -> Judgement:
        """The judgement of one response; never raises on a response.

        Raises:
            ValueError: the problem's ground truth is no whole number.
        """
        gold = self._gold(problem)
        answers = {integer(answer, problem.answer) for answer in last_answers(response)}
        answer = answers.pop() if len(answers) == 1 else None
        if answer is None:
            return right_or_wrong(False, format_ok=False)
        return right_or_wrong(answer == gold, str(answer), format_ok=True)

    def check(self, problem: Problem) -> None:
        """Raises ValueError if the ground truth is no whole number."""
        self._gold(problem)

    def write(self, problem: Problem) -> str:
        """The ground truth in a box."""
        return rf"\boxed{{{self._gold(problem)}}}"

    def _gold(self, problem: Problem) -> int:
        require_truth(problem)
        gold = integer(problem.answer, problem.answer)
        if gold is None:
            raise ValueError(f"the ground truth is not a whole number: {problem}")
        return gold


def integer(text: str, truth: str) -> int | None:
    """The whole number that a text is, also as the value of a name, see `stated_value`; None if it is anything else."""
    number = read_number(stated_value(text, truth))
    if number is None or number.percent or number.base or number.value.denominator != 1:
        return None
    return number.value.numerator
