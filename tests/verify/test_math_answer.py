r"""MathAnswer: what it accepts and refuses, its limits, and its alarm."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from prerl_jax.data import Problem
from prerl_jax.verify import MathAnswer, VerifierPool, traits_of

# (ground truth, what is in the box), besides the table of docs/verifiers.md. The first two lists need no SymPy.
RIGHT = [
    ("5", "$5$"),
    ("1,000", "1000"),
    (r"\frac{1}{4}", "0.25"),
    (r"\text{(A)}", "A"),
    (r"\frac12", "2/4"),
    ("10000", r"10,\!000"),
    ("5", "5.0"),
    ("5", "05"),
    ("5", "+5"),
    ("5", r"5\text{ cm}"),
    (r"5\text{ cm}", "5"),
    ("0.5", r"50\%"),
    ("50", r"50\%"),
    ("(1,2)", "1,2"),
    ("1,2", "2,1"),
    (r"\{1,2\}", "2, 1"),
    (r"\text{Yes}", "Yes"),
    ("1000000", "10^6"),
    ("1.5", r"\frac{3}{2}"),
    ("1011", "1011_2"),
    ("52_8", "52"),
    (r"-\frac{1}{2}", r"\frac{-1}{2}"),
    ("18.90", "18.9"),
    ("[-2,7]", r"x \in [-2,7]"),
    ("3, 5, 7", "7, 5 and 3"),
    ("3, 5, 7", r"3,5\text{ and }7"),
    ("5, 6", r"5 \text{ or } 6"),
    ("5", "5."),
    (r"90^\circ", "90"),
    ("5", r"\text{Area} = 5"),
    ("x=1, y=2", "(1,2)"),
    ("x=1, y=2", "y=2, x=1"),
    (r"1 \pm \sqrt{19}", r"1+\sqrt{19}, 1-\sqrt{19}"),
    ("2^{1009}", "2^{1009}"),
    ("(1,8,19), (2,7,13), (4,5,7)", "(4,5,7),(1,8,19),(2,7,13)"),
    ("1024", "1024"),
    (r"864 \mbox{ inches}^2", "864"),
    (r"\$32,\!348", "32348"),
    (r"\frac{270}7\text{ degrees}", r"\frac{270}{7}"),
    (r"11,\! 111,\! 111,\! 100", "11111111100"),
    ("f(x)=2 x", "f(x)=2x"),
    ("even", r"\text{even}"),
    ("$69$,$84$", "84, 69"),
    ("0.0000672", ".0000672"),
    ("100,200,300", "100, 200, 300"),
    (r"\pi", "π"),
    ("5", "\uff15"),
    ("-3", "\u22123"),
    (r"\frac{1}{2}", "½"),
    ("27,54,108", "108, 54, 27"),
    ("62.5%", "0.625"),
    (r"8 \%", "8"),
    (r"\sqrt{51}", r"\sqrt{51}"),
    ("10^{100},10^{1/100}", "10^{1/100}, 10^{100}"),
    ("3", "(3)"),
    ("3", r"\{3\}"),
    (r"\emptyset", r"\varnothing"),
    (r"\varnothing", "\N{EMPTY SET}"),
    ("1/3", r"0.\overline{3}"),
    (r"0.\bar{3}", r"\frac13"),
    ("-1/6", r"-0.1\overline{6}"),
    (r"\ln 2", r"\log 2"),
    ("6", r"\underline{6}"),
    ("6", r"\textcolor{red}{6}"),
    ("6", r"\color{red}{6}"),
    ("6", r"\boldsymbol{6}"),
    ("113", "m+n=113"),
    ("113", "a + b + c = 113"),
    ("113", "100m+n=113"),
]
WRONG = [
    ("5", r"\frac{10}{2}"),
    ("5", "2+3=5"),
    ("5", "5 or 6"),
    ("5", "5, 6"),
    ("5", "6"),
    ("5", "-5"),
    ("120", "5!"),
    ("10", r"\binom{5}{2}"),
    ("5", r"\sqrt{25}"),
    ("1024", "2^{10}"),
    ("(2,1)", "(5,3)"),
    ("(1,2)", "(3-2,2)"),
    ("even", "neve"),
    ("east", "seat"),
    ("3", "3.14"),
    ("0", "0.0000001"),
    ("0.0000001", "0"),
    ("52_8", "52_7"),
    ("23", "2*3"),
    ("23", "2**3"),
    ("53", "5$3"),
    ("x^3", "x^{6/2}"),
    (r"(-\infty, 2) \cup (3, \infty)", r"(3,\infty)"),
    ("5", ""),
    ("5", r"5 \text{ if } x>0"),
    ("5", "9^{9^{9^9}}"),
    ("16, 3, 1, 1", "16, 3, 1"),
    ("16, 3, 1, 1", "16, 3, 3, 1"),
    ("1", "0.9999999"),
    ("1000", "1, 000"),
    ("A", "B"),
    ("A", "AB"),
    ("A", "A or B"),
    (r"\text{(A)}", "(A), (B)"),
    ("x", "y"),
    ("5", "five"),
    ("5x", r"\frac{10}{2}x"),
    ("2, 3", "2"),
    ("2", "2, 3"),
    ("-2", r"\pm 2"),
    ("4", "1011_2"),
    (r"\frac{1}{2}", r"\sin\frac{\pi}{6}"),
    ("1.5", r"1 \frac{1}{2} \text{ or } 2"),
    ("5", "5 and 5.1"),
    ("5", "1000000!"),
    ("1/3", r"0.\overline{4}"),
    ("6", r"\textcolor{red}{7}"),
    ("x+y=5", "x+2y=5"),
    ("x+y=5", "5"),
    ("5", "2x=5"),
]
# These are compared by math-verify.
RIGHT_BY_ALGEBRA = [
    (r"2\sqrt{3}", r"2*\sqrt3"),
    ("x^2+2x+1", "(x+1)^2"),
    ("x^2+2x+1", "1+2x+x^2"),
    (r"(-\infty, 2) \cup (3, \infty)", r"(3,\infty)\cup(-\infty,2)"),
    ("y = 2x + 3", "3+2x"),
    (r"k \geqslant 2", r"k \ge 2"),
    (r"(2,\infty)", "x>2"),
    ("x>2", r"(2,\infty)"),
    (
        r"\begin{pmatrix} -1/3 \\ 2/3 \\ 5/3 \end{pmatrix}",
        r"\begin{pmatrix} -\frac13 \\ \frac23 \\ \frac53 \end{pmatrix}",
    ),
    (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}"),
    ("6 - 5i", "-5i+6"),
    (r"$\frac{1}{2 n+2}$", r"\frac{1}{2(n+1)}"),
    ("2^{10}", "1024"),
    ("f(n)=n^{2}", "n^2"),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3, \pi/2)"),
    ("5x - 7y + 11z + 4 = 0", "11z+5x-7y+4=0"),
    ("mn", r"m \cdot n"),
    ("x=2y", "2y = x"),
    ("p - q", "-q + p"),
    ("2k+2", "2(k+1)"),
    (r"11 \sqrt{5} + 11", r"11(1+\sqrt5)"),
]
WRONG_BY_ALGEBRA = [
    ("x=1, y=2", "x=2, y=1"),
    (r"\pi", "3.14"),
    (r"\frac{\pi}{1000000000}", "0.000000"),
    (r"2\sqrt3", r"\sqrt3+\sqrt3"),
    ("2m", "2"),
    (r"\sqrt{2}", "1.41"),
    ("x+1", "x+1+y-y"),
    ("2x+3", "y=2x+4"),
    ("100!", "9"),
]
BOXES = [
    ("3, 5, 7", r"\boxed{3}, \boxed{5}, \boxed{7}", "right"),
    ("3, 5, 7", r"$\boxed{7}$, $\boxed{3}$, and $\boxed{5}$.", "right"),
    ("5", r"\boxed{6} wait \boxed{5}", "right"),
    ("5, 6", r"\boxed{6} wait \boxed{5}", "wrong"),
    ("5", r"\boxed{6}, \boxed{5}", "wrong"),
    ("5", r"\boxed{5} and \boxed{5}", "right"),
    ("5", r"$\boxed 5$", "right"),
    ("5", r"\boxed {5}", "right"),
    ("5", r"\boxed{5} then \boxed{6", "wrong"),
    ("5", r"\boxed{}", "wrong"),
    ("5", "the answer is 5", "wrong"),
]


def verdict(gold: str, response: str) -> str:
    judgement = MathAnswer(seconds=60)(Problem("q", gold), response)
    return "unknown" if judgement is None else judgement.verdict


@pytest.mark.parametrize(("gold", "answer"), RIGHT)
def test_right(gold, answer):
    assert verdict(gold, f"Thus $\\boxed{{{answer}}}$.") == "right"


@pytest.mark.parametrize(("gold", "answer"), WRONG)
def test_wrong(gold, answer):
    assert verdict(gold, f"Thus $\\boxed{{{answer}}}$.") == "wrong"


@pytest.mark.slow
@pytest.mark.parametrize(("gold", "answer"), RIGHT_BY_ALGEBRA)
def test_right_by_algebra(gold, answer):
    assert verdict(gold, f"Thus $\\boxed{{{answer}}}$.") == "right"


@pytest.mark.slow
@pytest.mark.parametrize(("gold", "answer"), WRONG_BY_ALGEBRA)
def test_wrong_by_algebra(gold, answer):
    assert verdict(gold, f"Thus $\\boxed{{{answer}}}$.") == "wrong"


@pytest.mark.parametrize(("gold", "response", "expected"), BOXES)
def test_boxes(gold, response, expected):
    assert verdict(gold, response) == expected


def test_the_judgement_has_the_answer_in_one_form_for_all_spellings():
    problem = Problem("q", "1/2")
    answers = {MathAnswer()(problem, f"\\boxed{{{text}}}").answer for text in ("0.5", "1/2", r"\frac12", "$0.50$")}
    assert answers == {"1/2"}
    assert MathAnswer()(problem, r"\boxed{0.25}").format_ok is True
    assert MathAnswer()(problem, "1/2").format_ok is False


COMPLEX = {
    "long": "1+" * 200 + "x",
    "deep": "(" * 20 + "x" + ")" * 20,
    "many": ",".join("x" * 40),
    "tower": "9^{9^{9^9}}",
    "exponent": "x^{99999}",
    "factorial": "(10^6)!",
    "binomial": r"\binom{1000000}{500000}",
}


@pytest.mark.parametrize("name", COMPLEX)
def test_beyond_the_caps_only_the_spelling_counts(name):
    text = COMPLEX[name]
    judgement = MathAnswer()(Problem("q", "x"), f"\\boxed{{{text}}}")
    assert (judgement.verdict, judgement.format_ok) == ("wrong", True)
    assert verdict(text, f"\\boxed{{{text}}}") == "right"


LIST = ",".join(map(str, range(40)))


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        *((text, "x+1") for text in COMPLEX.values()),
        (LIST, rf"\{{{LIST}\}}"),
        (LIST, ",".join(reversed(LIST.split(",")))),
        ("2^{10000}", "2^{10^4}"),
    ],
)
def test_another_spelling_of_a_truth_beyond_the_caps_is_unknown(gold, answer):
    assert verdict(gold, f"\\boxed{{{answer}}}") == "unknown"
    assert verdict(gold, "no box") == "wrong"


def test_its_time_limit_leaves_an_alarm_that_was_set_before():
    rang = []
    before = signal.signal(signal.SIGALRM, lambda *_: rang.append(True))
    try:
        signal.setitimer(signal.ITIMER_REAL, 600)
        assert verdict("x+y", r"\boxed{x+z}") == "wrong"
        left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
        assert 0 < left < 600
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        while not rang:
            time.sleep(0.001)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_too_little_time_is_unknown():
    verifier, problem = MathAnswer(seconds=0.001), Problem("q", "(x+1)^{20} + (y+1)^{20}")
    assert verifier(problem, r"\boxed{(y+1)^{19}(1+y) + (1+x)^{19}(1+x)}") is None
    assert verifier(problem, r"\boxed{(x+1)^{20} + (y+1)^{20}}").verdict == "right"


def test_it_asks_for_workers_and_for_the_main_thread():
    assert traits_of(MathAnswer()).needs_workers
    errors = []

    def call():
        try:
            MathAnswer()(Problem("q", "x+1"), r"\boxed{1+x}")
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert ["data.verify_workers" in error for error in errors] == [True]


@pytest.mark.slow
def test_in_workers():
    pool = VerifierPool(MathAnswer(), 1, 60.0)
    try:
        golds = ["1+x", "5", "5"]
        responses = [r"\boxed{x+1}", r"\boxed{2+3}", r"\boxed{5}"]
        verified = pool([Problem("q", gold) for gold in golds], responses, [False] * 3)
        assert [judgement.verdict for judgement in verified.judgements] == ["right", "wrong", "right"]
    finally:
        pool.close()


def test_no_time_is_refused():
    with pytest.raises(ValueError, match="above 0"):
        MathAnswer(seconds=0)


@pytest.mark.parametrize(
    ("box", "tolerance", "verdict"),
    [
        ("3.31", 0.1, "right"),
        ("3.4", 0.1, "right"),
        ("3.41", 0.1, "wrong"),
        ("3.31", None, "wrong"),
        ("x", 0.1, "wrong"),
    ],
)
def test_a_tolerance_of_the_data(box, tolerance, verdict):
    problem = Problem("q", "3.3", tolerance=tolerance)
    assert MathAnswer()(problem, rf"\boxed{{{box}}}").verdict == verdict
