"""Every verifier accepts what it writes for a problem that its check accepts; it refuses problems without an answer."""

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

VERIFIERS = [
    BoxedAnswer(),
    MathAnswer(),
    IntegerAnswer(),
    AnswerLine(),
    GSM8KAnswer(),
    GSM8KAnswer(marker="="),
    MultipleChoice(),
    ExactMatch(),
    ExactMatch("Answer:"),
    ExactMatch("<a>", until="</a>"),
    RegexAnswer(r"<answer>(.*?)</answer>", "<answer>{answer}</answer>"),
]
GOLDS = [
    "5", "004", "27.0", "-3", "1,000", "$5$", r"\frac{1}{2}", "1/2", r"50\%", r"\$18.90", "4.5e33", r"10,\!080",
    "52_8", "(B)", "a", "J", r"\text{(C)}", r"\text{Evelyn}", "east", "3, 5, 7", "$69$,$84$", "(3,4]", "x=5",
    "y = 2x + 3", r"x \in [-2,7]", r"1 \pm \sqrt{19}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"5 \text{ or } 6",
    r"864 \mbox{ inches}^2", "She sells 9.\n#### 18", "two\nlines", "5}", "{5", "}{", "Answer: 5", "a</a>b",
    "x = 1 = 2", "10/2", "  5 ", "2^{1009}", "np.arcsin(10/13)", "9^{9^{9^9}}", r"\boxed{5}", "\\", "$",
    r"\text{ cm}", "0", ".5", "\ud800", "\0", "5" * 2000,
]  # fmt: skip
NONE = ["", " ", "\n"]


def accepts(verifier, problem):
    try:
        verifier.check(problem)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("verifier", VERIFIERS, ids=repr)
def test_what_it_writes_is_right(verifier):
    signs = random.Random(0)
    golds = GOLDS + ["".join(signs.choices(r"5x{}\$^_,.()=/ #-B", k=signs.randint(1, 8))) for _ in range(300)]
    checked = [problem for gold in golds if accepts(verifier, problem := Problem("q", gold))]
    judgements = [verifier(problem, verifier.write(problem)) for problem in checked]
    assert len(checked) > 4
    assert [problem.answer for problem, got in zip(checked, judgements, strict=True) if got.verdict != "right"] == []
    assert all(judgement.format_ok and judgement.answer is not None for judgement in judgements)


@pytest.mark.parametrize("verifier", VERIFIERS, ids=repr)
def test_an_empty_truth_is_refused_by_the_check_and_at_every_response(verifier):
    for gold in NONE:
        with pytest.raises(ValueError, match="ground truth"):
            verifier.check(Problem("q", gold))
        with pytest.raises(ValueError, match="ground truth"):
            verifier(Problem("q", gold), r"\boxed{}")


@pytest.mark.parametrize(
    ("verifier", "gold"),
    [
        *((verifier, gold) for verifier in VERIFIERS[:4] for gold in ("proof", "NotFound")),
        (MathAnswer(), "5}"),
        (IntegerAnswer(), "4.5"),
        (IntegerAnswer(), "x"),
        (IntegerAnswer(), "3, 5"),
        (IntegerAnswer(), "notfound"),
        (IntegerAnswer(), "x+y+z=0"),
        (GSM8KAnswer(), "many"),
        (GSM8KAnswer(), "#### "),
        (GSM8KAnswer(), "18 or 19"),
        (GSM8KAnswer(), "2,-2"),
        (GSM8KAnswer(), r"(2,\infty)"),
        (GSM8KAnswer(), r"-80\leq g(x)\leq82"),
        (MultipleChoice(), "AB"),
        (MultipleChoice(), "A or B"),
        (MultipleChoice(), "12"),
        (MultipleChoice("ABCD"), "E"),
        (AnswerLine(), "two\nlines"),
        (ExactMatch("Answer:"), "Answer: 5"),
        (ExactMatch("Answer:"), "two\nlines"),
        (RegexAnswer(r"(\d+)", "{answer}"), "x"),
    ],
    ids=repr,
)
def test_a_truth_that_no_response_can_meet_is_refused(verifier, gold):
    with pytest.raises(ValueError, match="ground truth"):
        verifier.check(Problem("q", gold))


@pytest.mark.parametrize(
    ("pattern", "written", "message"),
    [
        ("(", "{answer}", "no regular expression"),
        ("a", "{answer}", "needs one group, got 0"),
        ("(a)(b)", "{answer}", "needs one group, got 2"),
        ("(a)", "answer", r"needs \"\{answer\}\""),
    ],
)
def test_a_wrong_pattern_is_refused(pattern, written, message):
    with pytest.raises(ValueError, match=message):
        RegexAnswer(pattern, written)
