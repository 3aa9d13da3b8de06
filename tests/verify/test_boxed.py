r"""The boxed-answer reward, against hand-written tables of the published rule's verdicts."""

from __future__ import annotations

import pytest

from prerl_jax.data import Problem
from prerl_jax.verify import BoxedAnswer
from prerl_jax.verify.boxed import last_boxed, normalize

# (ground truth, what is in the box); the rule compares spellings, not values.
SAME = [
    ("5", "5"),
    ("5", " 5 "),
    ("5", "5\n"),
    ("-5", "-5"),
    (r"\frac{1}{2}", "0.5"),
    (r"\frac{1}{2}", ".5"),
    (r"\frac{1}{2}", "1/2"),
    (r"\frac{1}{2}", r"\dfrac12"),
    (r"\frac{1}{2}", r"\tfrac{1}{2}"),
    (r"\frac{1}{2}", r"\frac12"),
    (r"\frac{1}{2}", r"\frac1{2}"),
    (r"\frac{1}{2}", r"\frac 1 2"),
    (r"-\frac{1}{2}", r"-\frac12"),
    (r"\frac{-3}{4}", "-3/4"),
    ("0.25", ".25"),
    ("5", "x=5"),
    ("x=5", "5"),
    ("5", "x =5"),
    ("2x+3", "y=2x+3"),
    ("5", r"5\text{ cm}"),
    ("5", r"5 \text{ or } 6"),
    ("50", r"50\%"),
    ("90", r"90^\circ"),
    ("90", r"90^{\circ}"),
    ("(1,2)", "(1, 2)"),
    ("(1,2)", r"\left(1,2\right)"),
    ("12", r"\$12"),
    ("10000", r"10,\!000".replace(",", "")),
    (r"\sqrt{3}", r"\sqrt3"),
    (r"12\sqrt{3}", r"12\sqrt 3".replace(" ", "")),
    (r"\frac{\sqrt{3}}{2}", r"\dfrac{\sqrt3}{2}"),
    (r"\begin{pmatrix}1\2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    (r"\sqrt", r"\sqrt"),  # malformed on both sides: compared as it stands
]
DIFFERENT = [
    ("5", "6"),
    ("5", "-5"),
    ("5", "+5"),
    ("5", "05"),
    ("5", "5."),
    ("5", "5.0"),
    ("5", "5 cm"),
    ("5", "5, 6"),
    ("5", "ans=5"),
    ("5", "2+3"),
    ("5", "x=6=5"),
    ("1000", "1,000"),
    ("10000", r"10,\!000"),
    (r"\frac{1}{4}", "0.25"),
    (r"\frac{1}{2}", "2/4"),
    (r"\frac{1}{2}", "01/2"),
    (r"-\frac{1}{2}", r"\frac{-1}{2}"),
    (r"\frac{3}{2}", "1.5"),
    ("0.5", r"50\%"),
    (r"2\sqrt{3}", r"\sqrt{12}"),
    (r"2\sqrt{3}", r"2*\sqrt3"),
    ("(1,2)", "1,2"),
    ("[1,2]", "[1,2)"),
    ("1,2", "2,1"),
    ("x^2+2x+1", "(x+1)^2"),
    ("Yes", r"\text{Yes}"),
    ("A", r"\text{(A)}"),
    ("1000000", "10^6"),
    ("1011", "1011_2"),
    ("18.90", "18.9"),
    (r"3\pi", "9.42477796"),
    ("[-2,7]", r"x \in [-2,7]"),
    ("5", r"5\text{ cm}\text{ long}"),
    ("5", ""),
    ("5", r"\sqrt"),
]


@pytest.mark.parametrize(("gold", "answer"), SAME)
def test_right(gold, answer):
    assert BoxedAnswer()(Problem("q", gold), f"Thus $\\boxed{{{answer}}}$.").reward == 1.0


@pytest.mark.parametrize(("gold", "answer"), DIFFERENT)
def test_wrong(gold, answer):
    assert BoxedAnswer()(Problem("q", gold), f"Thus $\\boxed{{{answer}}}$.").reward == 0.0


@pytest.mark.parametrize(
    ("response", "held"),
    [
        (r"\boxed{5}", "5"),
        (r"\boxed{6} wait \boxed{5}", "5"),
        (r"\boxed{\frac{1}{2}} and so on}", r"\frac{1}{2}"),
        (r"\boxed{}", ""),
        (r"$\boxed 5$", "5"),
        (r"\boxed{6} or $\boxed 5$ or \boxed{7}", "5"),  # a box with a space takes precedence wherever it stands
        (r"\boxed{6} then \boxed 5 end", "5 end"),
        (r"$\boxed 5$ wait $\boxed 6$", "6"),
        (r"\boxed {5}", "{5}"),
        (r"\boxed{5", None),
        (r"\boxed{5} then \boxed{6", None),
        (r"\boxed5", None),
        (r"\boxed}{5}", None),
        (r"\fbox{5}", None),
        ("the answer is 5", None),
        ("", None),
    ],
)
def test_last_boxed(response, held):
    assert last_boxed(response) == held


@pytest.mark.parametrize("text", [r"1\text{ m}\text{ s}", r"\sqrt", r"\sqrt\sqrt2", r"\frac", r"\frac\frac12"])
def test_malformed(text):
    with pytest.raises(ValueError, match=r"unit|nothing"):
        normalize(text)


@pytest.mark.parametrize("gold", ["", " ", "\n"])
def test_an_empty_truth_is_an_error_never_a_reward(gold):
    with pytest.raises(ValueError, match="ground truth is empty"):
        BoxedAnswer()(Problem("q", gold), r"\boxed{}")


@pytest.mark.parametrize("gold", [r"\text{ cm}", r"\$", r"^\circ"])
def test_a_truth_of_nothing_but_markup_is_not_met_by_the_empty_box(gold):
    assert BoxedAnswer()(Problem("q", gold), r"\boxed{}").reward == 0.0
    assert BoxedAnswer()(Problem("q", gold), rf"\boxed{{{gold}}}").reward == 1.0


N = 100_000
HOSTILE = {
    "open braces": r"\boxed{" + "{" * N,
    "close braces": r"\boxed{" + "}" * N,
    "nested braces": r"\boxed{" + "{" * N + "}" * N + "}",
    "boxes": r"\boxed{" * N,
    "complete boxes": r"\boxed{5}" * N,
    "spaced boxes": r"\boxed " * N,
    "dollars": "$" * N,
    "backslashes": r"\boxed{" + "\\" * N + "}",
    "roots": r"\boxed{" + r"\sqrt" * N + "}",
    "roots of one": r"\boxed{" + r"\sqrt1" * N + "}",
    "fractions": r"\boxed{" + r"\frac12" * N + "}",
    "bare fractions": r"\boxed{" + r"\frac" * N + "}",
    "units": r"\boxed{" + r"\text{ " * N + "}" * (N + 1),
    "equals": r"\boxed{" + "=" * N + "}",
    "digits": r"\boxed{" + "9" * N + "}",
    "long ratio": r"\boxed{" + "9" * N + "/" + "9" * N + "}",
    "slashes": r"\boxed{" + "/" * N + "}",
    "spaces": r"\boxed{" + " " * N + "}",
    "tower": r"\boxed{9^{9^{9^9}}}",
    "code": r"""\boxed{__import__("os").system("true")}""",
    "nul": "\\boxed{\0}",
    "surrogate": "\\boxed{\ud800}",
    "right to left": "\\boxed{\u202e5\u0660}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_zero_and_quick(name):
    """A rule that is quadratic in the text takes minutes here."""
    assert BoxedAnswer()(Problem("q", "7"), HOSTILE[name]).reward == 0.0
    assert BoxedAnswer()(Problem("q", HOSTILE[name]), r"\boxed{7}").reward == 0.0
