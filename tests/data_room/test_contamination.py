"""Training problems that are in the evaluation: the same text, or 13 words in a row, and no mere instructions."""

from __future__ import annotations

import pytest

from prerl_jax import ChainSum, load_config
from prerl_jax.data import Contamination, Message, Problem
from prerl_jax.data.contamination import note, words
from prerl_jax.data.instructions import BOXED, CHOICE, HASHES

LONG = "A farmer has 12 cows and 7 goats and he sells 3 cows to a neighbour who lives near the river"
ASK = "Reason step by step and put your final answer within \\boxed{}. "


def found(evaluation, train):
    overlaps = Contamination([Problem(text, "1") for text in evaluation]).find([Problem(text, "1") for text in train])
    return [(overlap.train, overlap.evaluation, overlap.whole) for overlap in overlaps]


@pytest.mark.parametrize(
    "same",
    [
        "What is $\\frac{1}{2}+3$ of 1,000?",
        "what is  $\\dfrac{1}{2} \\, + \\; 3$\nof 1000",
        "WHAT IS \\frac{1}{2} + 3 of $1000$!?",
        "What is $\\displaystyle \\frac{1}{2}+\\left(3\\right)$ of 1,000?",
        "\uff37hat is $\\frac{1}{2}+3$ of \uff11000?",
    ],
)
def test_the_same_text_in_another_spelling(same):
    assert found(["What is $\\frac{1}{2}+3$ of 1,000?"], ["other", same]) == [(1, 0, True)]


@pytest.mark.parametrize(
    "other",
    ["What is 2-2?", "What is 2*2?", "What is 22?", "What is 2.2?", "What is 2+2=?", "What is 2+2 now?", "", "???"],
)
def test_another_question(other):
    assert found(["What is 2+2?"], [other]) == []


def test_words():
    assert words("It's 3.50, or 1,234,567 -- or 1,23; x_{12}") == [
        *("it", "s", "3.50", "or", "1234567", "-", "-", "or", "1", "23", "x", "12")
    ]
    assert words("求3个数") == ["求", "3", "个", "数"]
    assert words("\\textbf{a}\\quadb") == ["textbf", "a", "quadb"]


def test_thirteen_words_in_a_row():
    assert len(words(LONG)) == 21
    inside = " ".join(LONG.split()[3:16])
    assert found([LONG], [f"Yes: {inside}, no."]) == [(0, 0, False)]
    assert found([LONG], [f"Yes: {inside.rpartition(' ')[0]}, no."]) == []  # twelve
    assert found([LONG], ["x", f"{LONG} Why?", LONG]) == [(1, 0, False), (2, 0, True)]


def test_a_run_does_not_go_on_in_the_next_text():
    first, second = " ".join(LONG.split()[:10]), " ".join(LONG.split()[10:])
    assert found([LONG], [first, second]) == []


def test_runs_that_evaluation_problems_share_tell_nothing():
    assert found([f"{LONG} one", f"{LONG} two"], [f"{LONG} three"]) == []
    assert found([LONG, LONG], [f"{LONG} three"]) == [(0, 0, False)]  # the same problem twice is one


def test_instructions_are_taken_off():
    names = [f"person{letter}" for letter in "abcdefghijklm"]
    evaluation = [f"{ASK}Who is {name} and why?" for name in names]
    assert found(evaluation, [f"{ASK}Who is somebody?"]) == []
    train = [f"Solve this with all your care now: {name}{name} knows whom?" for name in names]
    train[3] = "Solve this with all your care now: Who is personc and why?"
    assert [pair[:2] for pair in found(evaluation, train)] == []  # "who is" and "and why" are the wording of evaluation
    varied = [f"{ASK}{name.title()} knows {n} of {n + 1}" for n, name in enumerate(names)]
    train[3] = "Solve this with all your care now: Persond knows 3 of 4"
    assert found(varied, train) == [(3, 3, True)]


def test_messages_and_the_note():
    evaluation = Problem((Message("system", "Be brief."), Message("user", LONG)), "1")
    overlaps = list(Contamination([evaluation]).find([Problem("x", "1"), Problem(LONG, "2")]))
    assert overlaps[0].train_text == LONG
    assert overlaps[0].evaluation_text == f"Be brief.\n\n{LONG}"
    said = note(overlaps, 2, dropped=False)
    assert "1 of 2 training problems are in data.evaluation, 1 with the same text and 0 with 13 words" in said
    assert "data.decontaminate=True" in said
    assert note([], 2, dropped=False) == ""


def test_nothing_to_compare_with():
    assert found([], ["a"]) == []
    assert found(["a"], []) == []
    assert found(["?"], ["!"]) == []


def test_the_instructions_of_the_package_are_taken_off_a_single_problem():
    for instructions in (HASHES, BOXED, CHOICE):
        evaluation, *others = [Problem(instructions.ask(f"Who is {name}?"), "1") for name in ("ann", "bob", "eve")]
        assert not list(Contamination([evaluation]).find(others))


OWN = "You are a careful tutor. Think about the question for as long as you need, and answer in one word: "
END = " Write the word on a line of its own, with nothing else before it and nothing else after it."
QUESTIONS = ("Who is ann?", "Where does bob live?", "Why does eve sing?", "When was dan born?", "How old is flo?")


@pytest.mark.parametrize("before", ["", OWN])
@pytest.mark.parametrize("after", ["", END])
@pytest.mark.parametrize(("evaluation", "train"), [(1, 4), (4, 1), (2, 3), (3, 2)])
def test_own_instructions_are_taken_off_a_few_problems(before, after, evaluation, train):
    asked = [before + question + after for question in QUESTIONS]
    assert found(asked[:evaluation], asked[-train:]) == []
    assert found(asked[:evaluation], [*asked[-train:], asked[0]]) == [(train, 0, True)]


def test_few_prompts_that_begin_alike_are_still_compared_whole():
    sums = [f"What is the sum of {n} and 1?" for n in range(5)]
    assert found(sums[:2], sums[2:]) == []
    assert found(sums[:2], ["What is 1 plus 1?", "What is 3 plus 1?"]) == []  # equal where they are not alike
    assert found(sums[:2], [*sums[2:], sums[1]]) == [(3, 1, True)]
    assert found([f"{LONG} How?", "Why?"], [f"Hint: {LONG} When?", "What?"]) == [(0, 0, False)]


def shown(question, *examples):
    turns = [Message(role, text) for pair in examples for role, text in zip(("user", "assistant"), pair, strict=True)]
    return Problem((Message("system", ASK), *turns, Message("user", question)), "1")


def test_worked_examples_before_the_question_tell_nothing():
    """Also where each problem has examples of its own, and where one evaluation problem is all there is."""
    examples = ((LONG, "The answer is 9, because 12 minus 3 is nine."), ("What is 8 - 6?", "8 - 6 = 2."))
    evaluation = shown("What is 1 + 2?", *examples)
    train = [shown("What is 3 + 4?", *examples), shown("What is 5 + 6?", examples[0]), shown("What is 7 + 8?")]
    assert not list(Contamination([evaluation]).find(train))
    assert not list(Contamination([evaluation]).find([Problem(f"{LONG} Why?", "1")]))


@pytest.mark.parametrize("train", [shown("What is 1 + 2?", ("a", "b")), Problem("What is 1 + 2?", "3")])
def test_the_same_question_after_other_examples_is_found(train):
    overlap, *others = Contamination([shown("what is 1+2", ("c", "d"))]).find([shown("What is 3 + 4?"), train])
    assert (overlap.train, overlap.whole, others) == (1, True, [])


def test_a_chat_without_a_user_turn_is_compared_as_a_whole():
    evaluation = Problem((Message("system", LONG),), "1")
    assert [overlap.train for overlap in Contamination([evaluation]).find([Problem(LONG, "1")])] == [0]


def test_splits_of_generated_problems_with_worked_examples_have_nothing_in_common():
    data = load_config("smollm2_135m").data
    evaluation, train = data.evaluation.load()[0], data.train.load()[0]
    assert not list(Contamination(evaluation).find(train))
    assert len(list(Contamination(evaluation).find(evaluation))) == len(evaluation)
    one = ChainSum(count=1, split="evaluation").load()[0]
    assert not list(Contamination(one).find(train))
