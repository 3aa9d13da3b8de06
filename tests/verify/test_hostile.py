"""No response makes a verifier raise, and each gets a verdict."""

from __future__ import annotations

import random

import pytest

from prerl_jax.data import Problem
from prerl_jax.verify import (
    AnswerLine,
    BoxedAnswer,
    ExactMatch,
    GSM8KAnswer,
    IntegerAnswer,
    MathAnswer,
    MultipleChoice,
    RegexAnswer,
)

GOLDS = {
    BoxedAnswer(): "7",
    MathAnswer(): "7",
    IntegerAnswer(): "7",
    AnswerLine(): "7",
    GSM8KAnswer(): "7",
    MultipleChoice(): "C",
    ExactMatch("Answer:"): "7",
    RegexAnswer(r"answer is (\w+)", "answer is {answer}"): "7",
}
PIECES = [
    r"\boxed{", r"\boxed ", r"\boxed", "}", "{", "#### ", "Answer: ", "answer is ", "**", "$", r"\frac{1}{2}", r"\frac",
    r"\sqrt", r"\text{", r"\text{ or }", " and ", ",", ";", "(", ")", "[", "]", r"\{", r"\}", "=", "x", "(A)", "B. ",
    "5", "1,000", "-", "\u2212", "^", "^{9}", "_", "!", r"\pm", r"\int_0^1", r"\cup", "<", r"\\", "&", "%", "\n", " ",
    "\t", "\0", "\ud800", "\u202e", "\u0660", "\uff15", "\U0001f600", "\u0301", "/", "*", r"\times 10^{3}", r"\in", "'",
    "~", "\\", "10/2", "9^9^9", r"\circ", "</think>", "e5", "|",
]  # fmt: skip
N = 50_000


@pytest.mark.parametrize("verifier", GOLDS, ids=repr)
def test_random_texts(verifier):
    draw = random.Random(1)
    problem = Problem("q", GOLDS[verifier])
    for _ in range(60):
        text = "".join(draw.choices(PIECES, k=draw.randint(0, 20)))
        judgement = verifier(problem, draw.choice(["", r"\boxed{", "#### ", "Answer: "]) + text)
        assert judgement is None or judgement.verdict in ("right", "wrong")


@pytest.mark.parametrize("verifier", GOLDS, ids=repr)
def test_long_texts_are_wrong(verifier):
    """It asserts no time: a rule that is quadratic in the text only makes this test take minutes."""
    problem = Problem("q", GOLDS[verifier])
    for start in (r"\boxed{", "#### ", "Answer: "):
        for piece in ("{", "}", "\\", " ", ",", "9", "(", "\n", r"\boxed{5},", "*", "A. "):
            assert verifier(problem, start + piece * (N // len(piece))).verdict == "wrong"


def test_random_texts_that_name_two_letters_after_the_label_earn_nothing():
    draw = random.Random(2)
    gaps = [
        "(C) ",
        "C) ",
        "C. ",
        "C | ",
        "(A) ",
        "B. ",
        "B) ",
        "D / ",
        " or ",
        " and ",
        ", ",
        "**",
        "$",
        " 12 ",
        r"\quad ",
    ]
    for start in ("The answer is ", "Answer: ", r"\boxed{", ""):
        for _ in range(100):
            named = "".join(draw.choices(gaps, k=draw.randint(0, 8)))
            response = f"{start}(C) {named} (B)" + ("}" if start.startswith("\\") else "")
            assert MultipleChoice()(Problem("q", "C"), response).reward == 0, response
