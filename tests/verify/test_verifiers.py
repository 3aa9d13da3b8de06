"""GSM8K, whole numbers, answer lines, exact match and the user's function."""

from __future__ import annotations

import pytest

from prerl_jax.data import Problem
from prerl_jax.verify import AnswerLine, ExactMatch, FunctionVerifier, GSM8KAnswer, IntegerAnswer, MultipleChoice


def score(verifier, gold, response):
    return verifier(Problem("q", gold), response).reward


@pytest.mark.parametrize(
    ("gold", "response", "expected"),
    [
        ("18", "9 * 2 = 18\n#### 18", 1),
        ("18", "####18", 1),
        ("18", "#### 18.", 1),
        ("18", "#### $18.00", 1),
        ("18", "#### 18 eggs", 1),
        ("1000", "#### 1,000", 1),
        ("1,000", "#### 1000", 1),
        ("-5", "#### -5", 1),
        ("-5", "#### -$5", 1),
        ("5", "#### +5", 1),
        ("0.5", "#### .5", 1),
        ("She sells 9 eggs.\n#### 18", "#### 18", 1),
        ("18", "#### 17\n#### 18", 1),
        ("18", "#### 18\n#### 17", 0),
        ("18", "18", 0),
        ("18", "#### ", 0),
        ("18", "#### about 18", 0),
        ("18", "### 18", 0),
        ("18", "#### 181", 0),
        ("18", "#### 1 8", 0),
        ("5", "#### -5", 0),
        ("5", "#### --5", 0),
        ("5", "#### -+5", 0),
        ("18", "#### 18/2", 0),
        ("9", "#### 9 * 2 = 18", 0),
        ("18", "#### 18, 19", 0),
        ("18", "#### 18 dollars and 50 cents", 0),
        ("18", "#### 18, so 18 eggs", 1),
        ("18", "#### $18$", 1),
        ("18", "#### \\(18\\)", 1),
        ("18", "#### **18** eggs", 1),
        ("18", "#### \\boxed{18} eggs", 1),
        ("18", "#### x = 18", 0),
        ("18", "#### \\text{18}", 1),
        ("18", "#### 18%", 1),
        ("18", "#### 1.8e1", 1),
        ("0.5", "#### 1/2", 1),
        ("18", "#### 18^2", 0),
        ("18", "#### 2**3", 0),
        ("3", "#### 3,4", 0),
        ("5", "#### \u0665", 0),
    ],
)
def test_gsm8k(gold, response, expected):
    assert score(GSM8KAnswer(), gold, response) == expected


@pytest.mark.parametrize(
    ("gold", "response", "expected"),
    [
        ("27", r"\boxed{27}", 1),
        ("4", r"\boxed{4.}", 1),
        ("4", r"$\boxed 4$", 1),
        ("4", r"\boxed{4 \text{ cm}}", 1),
        ("-3", "\\boxed{\u22123}", 1),
        ("5", r"\boxed{5} and \boxed{5}", 1),
        ("5", r"\boxed{5} or \boxed{6}", 0),
        ("4", r"\boxed{4!}", 0),
        ("4", r"\boxed{2+2}", 0),
        ("4", r"\boxed{4\%}", 0),
        ("4", r"\boxed{4_5}", 0),
        ("4", r"\boxed{1,2}", 0),
        ("4", r"\boxed{4", 0),
        ("12", r"\boxed{1,2}", 0),
    ],
)
def test_integer(gold, response, expected):
    assert score(IntegerAnswer(), gold, response) == expected


@pytest.mark.parametrize(
    ("gold", "response", "expected"),
    [
        ("42", "**Answer**: 42", 1),
        ("42", "**Answer: 42**", 1),
        ("42", "ANSWER : \\(42\\)", 1),
        ("42", "Answer: x = 42", 1),
        ("42", r"Answer: \$42", 1),
        ("42", "Answer: 42.", 1),
        ("42", "Answer:\n\n", 0),
        ("42", "myanswer: 42", 0),
        ("42", "Answer 42", 0),
        ("1/2", "Answer: 0.5", 1),
        ("x+1", "Answer: $x + 1$", 1),
        ("x+1", "Answer: 1+x", 0),
        ("23", "Answer: 2*3", 0),
    ],
)
def test_answer_line(gold, response, expected):
    assert score(AnswerLine(), gold, response) == expected


def test_gsm8k_marker():
    assert score(GSM8KAnswer(marker="Answer:"), "18", "#### 17 Answer: 18") == 1.0


@pytest.mark.parametrize(
    ("verifier", "gold", "response", "expected"),
    [
        (ExactMatch(), "42", "42", 1),
        (ExactMatch(), " 42", "42\n", 1),
        (ExactMatch(), "42", "it is 42", 0),
        (ExactMatch(), "Paris", "paris", 0),
        (ExactMatch(ignore_case=True), "Paris", "PARIS", 1),
        (ExactMatch("Answer:"), "42", "so\nAnswer: 42", 1),
        (ExactMatch("Answer:"), "42", "Answer: 41\nAnswer: 42\nThanks", 1),
        (ExactMatch("Answer:"), "42", "Answer:\n42", 1),
        (ExactMatch("Answer:"), "42", "Answer: 42 apples", 0),
        (ExactMatch("Answer:"), "42", "Answer: 42\nAnswer: 41", 0),
        (ExactMatch("Answer:"), "42", "42", 0),
        (ExactMatch("Answer:"), "42", "Answer:", 0),
        (ExactMatch("<answer>", until="</answer>"), "a\nb", "<answer>a\nb</answer> bye", 1),
        (ExactMatch("Answer:", until=""), "a\nb", "Answer: a\nb", 1),
    ],
)
def test_exact_match(verifier, gold, response, expected):
    assert score(verifier, gold, response) == expected


def test_exact_match_marker_may_not_be_empty():
    with pytest.raises(ValueError, match="marker is empty"):
        ExactMatch("")


@pytest.mark.parametrize(
    ("verifier", "gold"),
    [
        (GSM8KAnswer(), ""),
        (GSM8KAnswer(), "many"),
        (MultipleChoice(), ""),
        (MultipleChoice(), "AB"),
        (ExactMatch(), ""),
    ],
)
def test_a_truth_that_cannot_be_met_is_an_error(verifier, gold):
    with pytest.raises(ValueError, match="ground truth is"):
        score(verifier, gold, "5")


N = 100_000
HOSTILE = [
    "#" * N,
    "#### " * N,
    "#### " + " " * N,
    "#### " + "9" * N,
    "#### " + "," * N,
    "#### 1" + "," * N + "x",
    "#### ." + "." * N,
    "#### -" + "-" * N,
    "(" * N,
    "answer is " * N,
    "answer" + " " * N,
    "answer is" + " " * N + "!",
    "answer is A" + " " * N + "!",
    "answer : " * N + "B or",
    r"\boxed{" + " " * N + "!}",
    r"\boxed{" + "{" * N,
    "Answer:" * N,
    "Answer:" + "\n" * N,
    "*$" * N,
    "\0\ud800\u202e",
    "",
]


@pytest.mark.parametrize("verifier", [GSM8KAnswer(), MultipleChoice(), ExactMatch(), ExactMatch("Answer:")], ids=str)
def test_hostile_text_is_zero_and_quick(verifier):
    """A rule that is quadratic in the text takes minutes here."""
    gold = "7" if isinstance(verifier, GSM8KAnswer) else "C"
    assert [score(verifier, gold, text) for text in HOSTILE] == [0.0] * len(HOSTILE)


@pytest.fixture
def module(tmp_path, monkeypatch):
    code = "def half(problem, response): return 0.5\ndef echo(problem, response): return float(response)\n"
    code += "def nothing(problem, response): return None\ndef fails(problem, response): raise KeyError('mine')\n"
    code += "number = 3\n"
    (tmp_path / "my_rewards.py").write_text(code)
    (tmp_path / "my_broken.py").write_text("import there_is_no_such_module\n")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("module")
class TestUserFunction:
    def test_it_returns_what_the_function_returns(self):
        problem = Problem("q", "x")
        assert FunctionVerifier("my_rewards:half")(problem, "y") == 0.5
        assert FunctionVerifier("my_rewards:echo")(problem, "1") == 1.0
        assert FunctionVerifier("my_rewards:nothing")(problem, "1") is None

    def test_repr_round_trips(self):
        verifier = FunctionVerifier("my_rewards:half")
        assert eval(repr(verifier)) == verifier

    def test_its_own_error_comes_through(self):
        with pytest.raises(KeyError, match="mine"):
            FunctionVerifier("my_rewards:fails")(Problem("q", "x"), "y")

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("my_rewards.half", "'package.module:function'"),
            ("my_rewards:", "'package.module:function'"),
            (":half", "'package.module:function'"),
            ("my_rewards:a.b", "'package.module:function'"),
            ("no_such_package.rewards:half", "cannot import 'no_such_package.rewards'"),
            ("my_broken:half", "there_is_no_such_module"),
            ("my_rewards:third", "has no function 'third' .*'echo', 'fails', 'half'"),
            ("my_rewards:number", "has no function 'number'"),
        ],
    )
    def test_a_wrong_name_is_found_at_construction(self, name, message):
        with pytest.raises(ValueError, match=message):
            FunctionVerifier(name)
