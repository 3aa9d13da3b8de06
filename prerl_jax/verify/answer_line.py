r"""The answer in a line of its own, "Answer: 42", as the prompts of DAPO's data set ask for it (arXiv 2503.14476)."""

from __future__ import annotations

import dataclasses
import re

from prerl_jax.data.problems import Problem
from prerl_jax.verify.boxed import equivalent, normal_form, require_answer
from prerl_jax.verify.judgement import Judgement, right_or_wrong
from prerl_jax.verify.math_forms import stated_value
from prerl_jax.verify.numbers import read_number, same_number
from prerl_jax.verify.spelling import LONGEST, respelled, undecorated

_LABEL = re.compile(r"(?<![A-Za-z])answer[*_`]{0,3}\s?:[*_`]{0,3}", re.IGNORECASE)

_BEFORE = re.compile(r"(?:[\s*_`]|\\[\[(]|\$+(?=\s))*")
r"""What may stand between the label and the answer: line breaks, Markdown, \[ and \(, dollars at the end of a line."""


@dataclasses.dataclass(frozen=True)
class AnswerLine:
    r"""Right if the text after the last "Answer:" equals the problem's answer.

    It reads to the end of the line, or the next line if this one is empty or only opens a formula (\[, $$). Capital
    letters, bold type, dollar signs, a box, a unit, and a full stop, comma or semicolon at the end do not matter. Two
    numbers are compared as numbers, so 1,000 is 1000 and 0.5 is 1/2; everything else by the string rule of BoxedAnswer.
    A last "Answer:" with nothing after it is no answer.
    """

    def __call__(self, problem: Problem, response: str) -> Judgement:
        """The judgement of one response; never raises on a response.

        Raises:
            ValueError: the problem's ground truth is empty, or stands for a missing answer.
        """
        require_answer(problem)
        line = last_line(response)
        answer, gold = _value(line or "", problem.answer), _value(problem.answer, problem.answer)
        if not answer:
            return right_or_wrong(False, format_ok=False)
        number, truth = read_number(answer), read_number(gold)
        if number and truth:
            return right_or_wrong(same_number(number, truth), str(number), format_ok=True)
        return right_or_wrong(equivalent(answer, gold), normal_form(answer), format_ok=True)

    def check(self, problem: Problem) -> None:
        """Raises ValueError if the ground truth is empty, stands for a missing answer, or does not fit into a line."""
        require_answer(problem)
        if self(problem, self.write(problem)).verdict != "right":
            raise ValueError(f"the ground truth cannot be written in a line: {problem}")

    def write(self, problem: Problem) -> str:
        """The ground truth after "Answer:"."""
        return f"Answer: {problem.answer.strip()}"


def last_line(text: str) -> str | None:
    """The text after the last "Answer:", to the end of its line; None if there is none, "" if nothing follows it."""
    text = respelled(text)
    *_, label = (None, *_LABEL.finditer(text))
    if label is None:
        return None
    before = _BEFORE.match(text, label.end())
    start = before.end() if before else label.end()
    return text[start:].partition("\n")[0][: LONGEST + 1].strip()


def _value(text: str, truth: str) -> str:
    return stated_value(undecorated(text.rstrip(" \t,;")), truth)
