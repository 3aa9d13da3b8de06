"""Arithmetic problems: exact golds, distinct questions, splits that never meet."""

from __future__ import annotations

import pytest

from prerl_jax.data import ChainSum
from prerl_jax.data.arithmetic import value
from prerl_jax.verify import BoxedAnswer

MIXED = {"terms": (2, 3), "digits": (1, 2), "operators": ("+", "-", "*")}


def questions(**fields):
    problems, dropped = ChainSum(**fields).load()
    assert dropped == ()
    return [problem.prompt[-1].content for problem in problems]


@pytest.mark.parametrize(
    ("expression", "result"),
    [("3 + 4", 7), ("2 - 6", -4), ("12 - 5 + 30", 37), ("5 - 2 - 9", -6), ("7 * 8", 56), ("0 * 93", 0)],
)
def test_values(expression, result):
    assert value(expression) == result


def test_prompt_shows_two_worked_examples_as_chat_turns():
    ((problem,), _) = ChainSum(count=1, terms=(2,)).load()
    assert [message.role for message in problem.prompt] == ["user", "assistant", "user", "assistant", "user"]
    assert problem.prompt[0].content == "What is 3 + 4?"
    assert problem.prompt[1].content == "3 + 4 = 7. The answer is \\boxed{7}."
    question = problem.prompt[-1].content
    assert question == f"What is {problem.metadata['expression']}?"


def test_golds_are_exact_and_boxing_them_is_rewarded():
    problems, _ = ChainSum(count=300, **MIXED).load()
    for problem in problems:
        exact = eval(problem.metadata["expression"])
        assert problem.answer == str(exact)
        assert BoxedAnswer()(problem, f"\\boxed{{{exact}}}").reward == 1.0
        assert BoxedAnswer()(problem, f"\\boxed{{{exact + 1}}}").reward == 0.0


def test_examples_are_right_and_of_the_question_s_kind():
    problems, _ = ChainSum(count=60, **MIXED).load()
    for problem in problems:
        asked = problem.metadata["expression"].split()
        for shown, answer in ((problem.prompt[0], problem.prompt[1]), (problem.prompt[2], problem.prompt[3])):
            expression = shown.content.removeprefix("What is ").removesuffix("?")
            assert len(expression.split()) == len(asked)
            assert ("*" in expression) == ("*" in asked)
            assert answer.content.endswith(f"\\boxed{{{eval(expression)}}}.")
            assert expression != problem.metadata["expression"]


def test_deterministic_and_seeded():
    assert questions(count=50, seed=3) == questions(count=50, seed=3)
    assert questions(count=50, seed=3) != questions(count=50, seed=4)
    assert questions(count=3, seed=0) == ["What is 1 - 1?", "What is 6 - 5 + 4?", "What is 8 + 48?"]


def test_distinct():
    asked = questions(count=3000, **MIXED)
    assert len(set(asked)) == len(asked) == 3000


def test_splits_share_no_question_whatever_the_seeds_and_fields():
    train = {q for seed in range(6) for q in questions(count=400, seed=seed, **MIXED)}
    held_out = {q for seed in range(6) for q in questions(count=400, seed=seed, split="evaluation", **MIXED)}
    held_out |= set(questions(count=30, seed=1, split="evaluation", terms=(2,), digits=(1,)))
    assert not train & held_out


def test_exhausting_a_small_space_gives_all_of_it_and_no_more():
    fields = {"terms": (2,), "digits": (1,)}
    with pytest.raises(ValueError, match=r"only \d+ distinct questions for train .* 201 were asked for") as error:
        ChainSum(count=201, **fields).load()
    available = int(str(error.value).split("only ")[1].split()[0])
    with pytest.raises(ValueError, match="only") as error:
        ChainSum(count=201, split="evaluation", **fields).load()
    held_out = int(str(error.value).split("only ")[1].split()[0])
    assert available + held_out == 200 - 2  # 10 x 10 x 2, without the two worked examples
    everything = questions(count=available, **fields) + questions(count=held_out, split="evaluation", **fields)
    assert len(set(everything)) == 198


def test_kinds_take_turns_and_operands_have_their_digits():
    problems, _ = ChainSum(count=30, digits=(2,), operators=("-", "*")).load()
    kinds = [" ".join(problem.metadata["expression"].split()[1::2]) for problem in problems]
    assert kinds == ["-", "- -", "*"] * 10
    operands = [int(o) for problem in problems for o in problem.metadata["expression"].split()[::2]]
    assert min(operands) >= 10
    assert max(operands) <= 99
    assert all("*" in q for q in questions(count=10, operators=("*",)))


@pytest.mark.parametrize(
    "fields",
    [
        {"count": 0},
        {"count": 1, "split": "test"},
        {"count": 1, "terms": (1,)},
        {"count": 1, "terms": ()},
        {"count": 1, "digits": (0,)},
        {"count": 1, "digits": (1, 1)},
        {"count": 1, "operators": ("/",)},
    ],
)
def test_bad_fields(fields):
    with pytest.raises(ValueError, match="ChainSum"):
        ChainSum(**fields)
