"""reasoning-gym: golds recomputed from the questions, splits that never meet. Skipped where it is not installed."""

from __future__ import annotations

import math
import re

import pytest

from prerl_jax import AnswerLine, ReasoningGym
from prerl_jax.data.reasoning_gym import TASKS

NUMBER = re.compile(r"-?\d+")


def numbers(text):
    return [int(number) for number in NUMBER.findall(text)]


def is_prime(n):
    return n > 1 and all(n % d for d in range(2, math.isqrt(n) + 1))


def base_of(name):
    return {"binary": 2, "hexadecimal": 16}.get(name) or int(name.removeprefix("base-"))


def converted(base, text, to):
    value, digits = int(text, base_of(base)), ""
    while value:
        value, digit = divmod(value, base_of(to))
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits


RECOMPUTED = {
    "base_conversion": lambda q: converted(*re.search(r"convert the (\S+) number (\w+) to (\S+)$", q).groups()),
    "chain_sum": lambda q: eval(re.search(r": (.+) =", q)[1]),
    "count_bits": lambda q: bin(numbers(q)[-1]).count("1"),
    "count_primes": lambda q: sum(map(is_prime, range(numbers(q)[-2], numbers(q)[-1] + 1))),
    "gcd": lambda q: math.gcd(*numbers(q)),
    "lcm": lambda q: math.lcm(*numbers(q)),
    "letter_counting": lambda q: re.search(r'text: "(.*)"', q, re.S)[1].lower().count(re.search(r'letter "(.)"', q)[1]),
    "products": lambda q: eval(re.search(r": (.+?)\. Give", q)[1]),
    "spell_backward": lambda q: re.search(r": (\S+)$", q)[1][::-1],
}


@pytest.mark.parametrize("task", TASKS)
def test_the_golds_are_right_and_the_splits_share_no_question(task):
    pytest.importorskip("reasoning_gym")
    asked = {}
    for split in ("train", "evaluation"):
        for seed in (0, 1):
            problems, notes = ReasoningGym((task,), 40, split, seed).load()
            assert (len(problems), notes) == (40, ())
            asked.setdefault(split, set()).update(problem.prompt for problem in problems)
            for problem in problems:
                question = problem.prompt.rsplit("\n", 1)[0].strip()
                assert problem.answer == str(RECOMPUTED[task](question))
                assert AnswerLine()(problem, f"so\nAnswer: {problem.answer}").verdict == "right"
                assert AnswerLine()(problem, f"Answer: 4{problem.answer}").verdict == "wrong"
                assert (problem.source, problem.answer_format) == (task, "Answer: {answer}")
    assert not asked["train"] & asked["evaluation"]


def test_tasks_take_turns_and_too_many_questions_are_refused():
    pytest.importorskip("reasoning_gym")
    assert [p.source for p in ReasoningGym(("gcd", "lcm"), 5).load()[0]] == ["gcd", "lcm", "gcd", "lcm", "gcd"]
    one_digit = (("min_terms", 2), ("max_terms", 2), ("min_digits", 1), ("max_digits", 1))
    with pytest.raises(ValueError, match="distinct questions of 'products' were found for train; 400 are needed"):
        ReasoningGym(("products",), 400, settings=one_digit).load()
    with pytest.raises(ValueError, match=r"refuses the settings .* for 'products'"):
        ReasoningGym(("products",), 4, settings=(("no_such", 1),)).load()


@pytest.mark.parametrize("task", ["basic_arithmetic", "syllogism", "coin_flip", "countdown"])
def test_tasks_whose_answers_were_not_recomputed_are_refused(task):
    with pytest.raises(ValueError, match="ReasoningGym's tasks must be"):
        ReasoningGym((task,), 4)


def test_items_without_an_answer_are_left_out():
    """base_conversion writes the number 0 as nothing; before, a run ended at such a problem."""
    pytest.importorskip("reasoning_gym")
    small = (("min_base", 9), ("max_base", 10), ("min_value", 0), ("max_value", 9))
    problems = ReasoningGym(("base_conversion",), 8, settings=small).load()[0]
    assert all(problem.answer for problem in problems)


@pytest.mark.parametrize("settings", [{"min_terms": 2}, ("min_terms", 2), (("min_terms",),), "ab"])
def test_settings_that_are_no_pairs(settings):
    with pytest.raises(ValueError, match=r"ReasoningGym\.settings: expected tuple\[tuple\[str, .*, got"):
        ReasoningGym(("chain_sum",), 4, settings=settings)


def test_without_the_package_an_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "reasoning_gym", None)
    with pytest.raises(ImportError, match="reasoning-gym"):
        ReasoningGym(("gcd",), 1).load()
