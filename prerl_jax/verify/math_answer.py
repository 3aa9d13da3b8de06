r"""A tolerant rule for mathematical answers: the string rule first, then numbers, lists and words, then math-verify."""

from __future__ import annotations

import dataclasses
import importlib.util
import threading

from prerl_jax.data.problems import Problem
from prerl_jax.verify.batch import VerifierTraits
from prerl_jax.verify.boxed import require_answer
from prerl_jax.verify.boxes import last_answers
from prerl_jax.verify.judgement import Judgement, right_or_wrong
from prerl_jax.verify.math_forms import natural, same_answer, same_spelling, stated_value, tidy
from prerl_jax.verify.numbers import read_number, within
from prerl_jax.verify.symbolic import load, same_expression, time_limit, too_complex


@dataclasses.dataclass(frozen=True)
class MathAnswer:
    r"""Right if the last \boxed{...} has the value of the problem's answer, in a form that is worked out.

    It accepts 0.25 for 1/4, 1,000 for 1000, \text{13} for 13, 2\sqrt{3} for \sqrt{12}, and several boxes in a row as
    one list. It does not accept 2+3 or 10/2 for 5, or 6=5. Where the problem has a tolerance, a number is right if it
    differs by no more than that. docs/verifiers.md has the table.

    It needs worker processes, because SymPy may need any time and memory. An answer of more than 256 characters, 12
    nested brackets or 31 commas, or with exponents of 5 digits and the like, is compared as a string only: it is right
    if it is the ground truth as it is written, and else wrong. If the ground truth is such an answer, every response
    that does not write it as it is written is unknown.

    Attributes:
        seconds: time for one response. The verdict is unknown if it is not enough.

    Raises ValueError if math-verify is not installed, or for no time.
    """

    seconds: float = 5.0
    traits = VerifierTraits(needs_workers=True, imports=("math_verify", "sympy"))

    def __post_init__(self) -> None:
        if importlib.util.find_spec("math_verify") is None:
            raise ValueError("MathAnswer needs the package math-verify: pip install 'prerl_jax[math]'.")
        if not self.seconds > 0:
            raise ValueError(f"MathAnswer.seconds must be above 0, got {self.seconds}.")

    def __call__(self, problem: Problem, response: str) -> Judgement | None:
        """The judgement of one response; it never raises on a response.

        None, unknown, if the time is up, or the ground truth is too complex and the response does not write it.

        Raises:
            ValueError: the problem's ground truth is empty.
            RuntimeError: it is not called in the main thread of a process, as in a worker; it needs an alarm there.
        """
        require_answer(problem)
        answer = boxed_answer(response)
        if not answer:
            return right_or_wrong(False, format_ok=False)
        number = read_number(stated_value(answer, problem.answer))
        right = self._same(answer, tidy(problem.answer), problem.tolerance)
        return None if right is None else right_or_wrong(right, str(number) if number else answer, format_ok=True)

    def check(self, problem: Problem) -> None:
        """Raises ValueError if the ground truth is empty, or a word that stands for a missing answer ("proof")."""
        require_answer(problem)
        answer = boxed_answer(self.write(problem))
        if not answer or not same_spelling(answer, tidy(problem.answer)):
            raise ValueError(f"the ground truth cannot be written in a box: {problem}")

    def write(self, problem: Problem) -> str:
        """The ground truth in a box."""
        return rf"\boxed{{{problem.answer}}}"

    def _same(self, answer: str, gold: str, tolerance: float | None) -> bool | None:
        answer = natural(answer, gold)
        if same_spelling(answer, gold) or _near(answer, gold, tolerance):
            return True
        if too_complex(gold):
            return None
        if too_complex(answer):
            return False
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("MathAnswer needs the main thread of a worker process: set data.verify_workers.")
        load()
        same: bool | None = None
        with time_limit(self.seconds):
            same = same_answer(answer, gold, same_expression)
        return same


def _near(answer: str, gold: str, tolerance: float | None) -> bool:
    """Whether both are numbers that differ by no more than the tolerance."""
    if tolerance is None:
        return False
    number, truth = read_number(answer), read_number(gold)
    return number is not None and truth is not None and within(number, truth, tolerance)


def boxed_answer(response: str) -> str:
    """The answer in the last boxes, as a list if there are several; "" if there is none."""
    return ", ".join(dict.fromkeys(tidy(answer) for answer in last_answers(response)))
