"""The probe before a run: what it refuses, what it notes, and how it writes a problem's own answer."""

import dataclasses

import numpy as np
import pytest

from prerl_jax.data import Example
from prerl_jax.data.problems import Problem
from prerl_jax.evaluation.probe import probe, require_truncated_is_worst
from prerl_jax.verify import (
    UNKNOWN,
    AfterThinking,
    AnswerLine,
    BoxedAnswer,
    BySource,
    CombinedReward,
    ExactMatch,
    GSM8KAnswer,
    InProcessVerifier,
    Judgement,
    MultipleChoice,
    VerifierError,
    Weighted,
    right_or_wrong,
)

SOLUTION = "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nThat makes 48+24 = 72.\n#### 72"
BOX = r"Please put your final answer within \boxed{}."


def examples(*problems):
    """The prompt tokens of problem n are [n]."""
    return [Example(problem, (number,)) for number, problem in enumerate(problems)]


def probed(verifier, *problems, system="", unknown_limit=0.5):
    """The notes of a probe; `system` is what a chat template puts before a prompt."""

    def decode(rows):
        return [f"{system}{problems[row[0]].prompt}" for row in rows]

    verify = InProcessVerifier(verifier, any_reward=True)
    return probe(examples(*problems), "train", verifier, verify, decode, unknown_limit)


def worked(count, **fields):
    """Problems in the layout of GSM8K: a question, and a worked solution that ends with "#### 72"."""
    return [Problem(f"Question {n}?", SOLUTION.replace("72", str(72 + n)), **fields) for n in range(count)]


def test_a_worked_solution_under_the_box_rule_is_refused():
    says = (
        r"data\.train: no problem's own answer is accepted: BoxedAnswer\(\) calls all of the 20 problems' own answers "
        r"wrong, .*#### 72', since the answers themselves have the form '#### 72': wrong, with reward 0\. .*"
        r"GSM8KAnswer\(\); or shorten the answers, to '72', and let the prompts ask for '\\boxed\{72\}', .*"
        r"set the source's answer_format, .*set data\.probe=False"
    )
    with pytest.raises(ValueError, match=says) as found:
        probed(BoxedAnswer(), *worked(20))
    assert "\n" not in str(found.value)
    assert probed(GSM8KAnswer(), *worked(20)) == ()


ASKED = [
    (f"What is 1+1? {BOX}", BoxedAnswer()),
    ('What is 1+1? Write the answer after "####".', GSM8KAnswer()),
    ("What is 1+1? Think, then write <answer> ... </answer>.", ExactMatch(marker="<answer>", until="</answer>")),
    ("What is 1+1? The last line is of the form Answer: $Answer.", ExactMatch(marker="Answer:")),
    ('Which one? End with "the answer is (X)".', MultipleChoice()),
]


@pytest.mark.parametrize("number", range(len(ASKED)))
def test_each_format_that_prompts_ask_for(number):
    """The verifier that reads it accepts the answer, and those that read others are refused."""
    prompt, reader = ASKED[number]
    problem = Problem(prompt, "B" if isinstance(reader, MultipleChoice) else "2")
    assert probed(reader, problem) == ()
    for _, other in ASKED[:4]:
        if other not in (reader, BoxedAnswer()) and problem.answer == "2":
            with pytest.raises(ValueError, match="no problem's own answer is accepted"):
                probed(other, problem)


@pytest.mark.parametrize("gold", ["B", "(B)", "( B )", "B. Paris", "(B) Paris", "B)"])
@pytest.mark.parametrize(
    "asks", [{"prompt": 'End with "the answer is (X)".'}, {"prompt": "?", "answer_format": "The answer is ({answer})."}]
)
def test_a_choice_in_brackets_is_not_put_into_further_ones(gold, asks):
    assert probed(MultipleChoice(), Problem(answer=gold, **asks)) == ()


@pytest.mark.parametrize("asks", ["Answer: put code in a block.", 'After "####".', BOX, "<answer> ... </answer>"])
def test_a_user_s_verifier_that_writes_no_answers_is_not_refused_for_words_of_a_prompt(asks):
    """It may read code, or <reasoning> and <answer> together, which no pattern finds."""
    (note,) = probed(Own(lambda problem, response: 0.0), Problem(f"Write it. {asks} Then stop.", "2"))
    assert note.startswith("warning: data.train: no problem's own answer is accepted")
    assert "set the source's answer_format" in note
    with pytest.raises(ValueError, match="correct the source's answer_format"):
        probed(Own(lambda problem, response: 0.0), Problem("Write it.", "2", answer_format="<{answer}>"))


@pytest.mark.parametrize("marker", ["</thought>", "</think>", "<answer>"])
@pytest.mark.parametrize("required", [False, True])
def test_any_marker_of_a_thought_is_no_obstacle(marker, required):
    inner = AfterThinking(BoxedAnswer(), marker, required)
    for verifier in (inner, AfterThinking(inner, "|", True), BySource({"": inner, "other": AnswerLine()})):
        assert probed(verifier, Problem(f"1+1? {BOX}", "2")) == ()
        with pytest.raises(ValueError, match="no problem's own answer is accepted") as found:
            probed(verifier, Problem('1+1? End with "####".', "2"))
        assert "GSM8KAnswer()" in str(found.value)


def test_a_verifier_that_asks_for_more_than_the_prompt_writes_it():
    reads = Strict(lambda problem, response: response == rf"<plan>\boxed{{{problem.answer}}}")
    assert probed(reads, Problem(f"1+1? {BOX}", "2")) == ()
    with pytest.raises(ValueError, match="no problem's own answer is accepted"):  # what it writes is not asked for
        probed(reads, Problem('1+1? End with "####".', "2"))


def test_gates_may_ask_for_more_than_an_answer():
    long = CombinedReward((Weighted(BoxedAnswer()),), gates=(Own(lambda problem, response: len(response) > 200),))
    for verifier in (long, AfterThinking(long)):
        (note,) = probed(verifier, Problem(f"1+1? {BOX}", "2"))
        assert note.startswith("warning: data.train: no problem's own answer is accepted")
        assert "choose a verifier" not in note, "it has the one that reads boxes"
    with pytest.raises(ValueError, match="no problem's own answer is accepted"):
        probed(CombinedReward((Weighted(BoxedAnswer()),)), Problem('1+1? End with "####".', "2"))


@pytest.mark.parametrize(
    ("text", "says"), [(7, "returned a int, '7', and not text"), (KeyError(), "failed on .*KeyError")]
)
def test_an_error_of_a_verifier_that_writes(text, says):
    with pytest.raises(VerifierError, match=rf"(?s)write of Broken.* {says}"):
        probed(Broken(text), Problem("1+1=", "2"))


def test_the_remedy_names_a_format_that_the_verifier_accepts():
    with pytest.raises(ValueError, match=r"or let the prompts ask for '\\boxed\{72\}', which the verifier accepts; or"):
        probed(BoxedAnswer(), Problem('Question? End with "####".', "72"))


def test_what_a_chat_template_adds_is_a_part_of_the_prompt():
    assert probed(BoxedAnswer(), Problem("What is 1+1?", "2"), system=BOX) == ()


@dataclasses.dataclass(frozen=True)
class Own:
    """A user's verifier that says what it is told to say of a response."""

    says: object

    def __call__(self, problem, response):
        return self.says(problem, response)


@dataclasses.dataclass(frozen=True)
class Writing(Own):
    """One that can write a right response, too."""

    def write(self, problem):
        return f"<{problem.answer}>"


@dataclasses.dataclass(frozen=True)
class Strict(Own):
    """One that asks for a plan."""

    def write(self, problem):
        return rf"<plan>\boxed{{{problem.answer}}}"


@dataclasses.dataclass(frozen=True)
class Broken:
    """One whose `write` is wrong."""

    text: object

    def __call__(self, problem, response):
        return 0.0

    def write(self, problem):
        if isinstance(self.text, Exception):
            raise self.text
        return self.text


def test_without_a_known_format_the_verifier_writes_the_answer():
    reads = Writing(lambda problem, response: response == f"<{problem.answer}>")
    assert probed(reads, Problem("1+1=", "2")) == ()
    with pytest.raises(ValueError, match=r"'<2>' for the answer '2', since the verifier itself writes the answer so"):
        probed(Writing(lambda problem, response: 0.0), Problem("1+1=", "2"))


def test_where_nothing_is_known_there_is_only_a_warning():
    (note,) = probed(Own(lambda problem, response: 0.0), Problem("1+1=", "2"))
    assert note.startswith("warning: data.train: no problem's own answer is accepted. The first is '2', since nothing ")
    assert note.endswith("Set the source's answer_format, and the verifier is checked with answers in that format.")
    assert probed(Own(lambda problem, response: "2" in response), Problem("1+1=", "2")) == ()


@pytest.mark.parametrize("reward", [lambda response: 0.3 * bool(response), lambda response: 2.0 - len(response)])
def test_rewards_that_tell_a_right_answer_from_an_empty_one_are_trained_on(reward):
    """A reward model, of which no number says what is right; and rewards for short responses."""
    (note,) = probed(Own(lambda problem, response: reward(response)), Problem(f"1+1? {BOX}", "2"))
    assert note.startswith("warning: data.train: no problem's own answer is accepted")


def test_some_answers_are_wrong():
    (note,) = probed(
        BoxedAnswer(), *[Problem(f"1+1? {BOX}", a, answer_format=f) for a, f in [("2", ""), ("3", "{answer}")]]
    )
    assert note == (
        "data.train: 1 of the 2 problems' own answers are wrong; the first is '3', since the source's answer_format is "
        "'{answer}': wrong, with reward 0."
    )


def test_each_source_is_probed_by_itself():
    good, bad = Problem(f"1+1? {BOX}", "2", "math"), worked(3, source="gsm8k")
    with pytest.raises(ValueError, match=r"data\.train, source 'gsm8k': no problem's own answer is accepted"):
        probed(BoxedAnswer(), good, *bad)
    assert probed(BySource({"gsm8k": GSM8KAnswer()}, default=BoxedAnswer()), good, *bad) == ()


def test_thoughts_that_a_verifier_leaves_out_are_no_obstacle():
    for required in (False, True):
        assert probed(AfterThinking(BoxedAnswer(), required=required), Problem(f"1+1? {BOX}", "2")) == ()


def test_unknown_verdicts_are_said_and_too_many_are_refused():
    def judge(problem, response):
        return None if problem.answer == "3" else right_or_wrong(bool(response))

    problems = [Problem(f"1+1? {BOX}", answer) for answer in "233"]
    (note,) = probed(Own(judge), *problems, unknown_limit=0.7)
    assert "the verdicts on 2 of the 3 problems' own answers are unknown; the first is '\\boxed{3}'" in note
    with pytest.raises(ValueError, match=r"2 of the 3 .* unknown.*data\.unknown_limit is 0\.5"):
        probed(Own(judge), *problems)
    wrong = Own(lambda problem, response: UNKNOWN if problem.answer == "3" else 0.0)
    problems = [dataclasses.replace(problem, answer_format="{answer}") for problem in problems]
    with pytest.raises(ValueError, match="no problem's own answer is accepted"):
        probed(wrong, *problems, unknown_limit=0.7)


@dataclasses.dataclass
class Judge:
    """A costly verifier of batches, which keeps what it is asked."""

    asked: list

    def verify_batch(self, problems, responses):
        self.asked += responses
        return [Judgement(1.0, "right")] * len(responses)


def test_a_verifier_of_batches_is_asked_little():
    judge = Judge([])
    assert probed(judge, *[Problem(f"{n}? {BOX}", str(n)) for n in range(500)]) == ()
    assert len(judge.asked) == 64 + 1


def test_a_verifier_that_is_slow_is_not_asked_for_ever(monkeypatch):
    monkeypatch.setattr("prerl_jax.evaluation.probe.SECONDS", 0.0)
    (note,) = probed(Own(lambda problem, response: problem.answer == "0"), *[Problem(BOX, str(n)) for n in range(500)])
    assert note.startswith("data.train: 7 of the 8 problems' own answers that were checked are wrong")


@pytest.mark.parametrize(("wrong", "truncated", "fits"), [(0, 0, True), (-1, -1, True), (0, -1, True), (-1, 0, False)])
def test_a_truncated_response_is_not_worth_more_than_a_wrong_one(wrong, truncated, fits):
    verify = InProcessVerifier(Own(lambda problem, response: Judgement(wrong, "wrong")))
    if fits:
        require_truncated_is_worst(examples(Problem("1+1=", "2")), verify, truncated)
        return
    with pytest.raises(
        ValueError, match=r"empty response -1, .*data\.truncated_reward = 0: .*data\.truncated_reward=-1"
    ):
        require_truncated_is_worst(examples(Problem("1+1=", "2")), verify, truncated)


def test_truncated_responses_are_compared_with_wrong_ones_of_each_source():
    judge = Own(lambda problem, response: Judgement(-1.0, "wrong"))
    verify = InProcessVerifier(BySource({"a": BoxedAnswer(), "b": judge}))
    problems = examples(Problem("1+1=", "2", "a"), Problem("1+1=", "2", "b"))
    for order in (problems, problems[::-1]):
        with pytest.raises(ValueError, match=r"empty response to a problem of source 'b' -1, .*truncated_reward=-1"):
            require_truncated_is_worst(order, verify, 0.0)
    require_truncated_is_worst(problems, verify, -1.0)


def test_numpy_is_not_needed_to_say_a_number():
    (note,) = probed(Own(lambda problem, response: np.float32(0.5) * bool(response)), Problem(BOX, "2"))
    assert "wrong, with reward 0.5" in note


@dataclasses.dataclass(frozen=True)
class Programs:
    """Accepts no text; it can write a right response where the problem has one."""

    def __call__(self, problem, response):
        return 0.0

    def write(self, problem):
        return problem.metadata.get("solution")


def test_problems_without_a_known_solution_are_not_checked():
    unsolved, solved = Problem("#### write a program", "-"), Problem("b", "-", metadata={"solution": "x = 1"})
    (note,) = probed(Programs(), unsolved)
    assert note == "data.train: no right response is known, so it is not checked that the verifier accepts one."
    assert probed(AfterThinking(Programs()), unsolved) == (note,)
    with pytest.raises(ValueError, match="all of the 1 problems' own answers wrong"):
        probed(Programs(), unsolved, solved)
