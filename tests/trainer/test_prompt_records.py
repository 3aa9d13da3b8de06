"""What a checkpoint records of prompts and answers, and what it says of others. A token is a character's number."""

import dataclasses

import pytest

from prerl_jax.data import Example, Problem
from prerl_jax.trainer import prompts
from prerl_jax.trainer.prompts import difference, record


def examples(*texts):
    return [Example(Problem(text, "0"), tuple(map(ord, text))) for text in texts]


def decode(tokens):
    return "".join(map(chr, tokens))


def compared(before, after):
    """What is said of the problems `after`, with the record of `before` as JSON has it."""
    saved = prompts.PromptRecord.of(dataclasses.asdict(record(before, decode)))
    return difference(saved, record(after, decode), after, decode)


THREE = examples("day 26: a", "day 26: bb", "day 26: c")


def test_the_same_prompts():
    assert compared(THREE, examples("day 26: a", "day 26: bb", "day 26: c")) is None
    assert compared([], []) is None


@pytest.mark.parametrize(
    ("after", "says"),
    [
        (
            examples("day 27: a", "day 27: bb", "day 27: c"),
            "3 prompts then, 3 now; 3 of the first 3 differ. The first that differs is that of problem 0:\n"
            "    then 'day 26: a'\n    now  'day 27: a'",
        ),
        (
            examples("day 26: a", "day 26: bb", "day 26: d"),
            "3 prompts then, 3 now; 1 of the first 3 differ. The first that differs is that of problem 2, which is "
            "now\n    'day 26: d'",
        ),
        (THREE[:2], "3 prompts then, 2 now; the first 2 agree"),
        ([*THREE, *THREE], "3 prompts then, 6 now; the first 3 agree"),
        (
            [THREE[0], THREE[2]],
            "3 prompts then, 2 now; 1 of the first 2 differ. The first that differs is that of problem 1, which is "
            "now\n    'day 26: c'",
        ),
        (
            examples("day 26: ab", "day 26: b"),  # the same characters in other prompts
            "3 prompts then, 2 now; 2 of the first 2 differ. The first that differs is that of problem 0:\n"
            "    then 'day 26: a'\n    now  'day 26: ab'",
        ),
    ],
)
def test_the_first_difference(after, says):
    assert compared(THREE, after) == f"other prompts than the checkpoint: {says}"


def test_long_prompts_are_shown_around_their_difference():
    was, here = examples("x" * 500 + "1" + "y" * 500), examples("x" * 500 + "2" + "y" * 500)
    assert f"then '{'x' * 60}1{'y' * 59}'\n    now  '{'x' * 60}2{'y' * 59}'" in compared(was, here)
    was, here = examples("x" * 3000 + "1"), examples("x" * 3000 + "2")
    assert compared(was, here).endswith(f"problem 0, which is now\n    '{'x' * 240}'")


def test_of_very_many_prompts_the_digest_alone_is_kept(monkeypatch):
    monkeypatch.setattr(prompts, "MOST", 2)
    assert record(THREE, decode).each == ""
    assert compared(THREE, list(THREE)) is None
    other = examples("day 26: a", "day 26: bb", "day 26: d")
    assert compared(THREE, other) == (
        "other prompts than the checkpoint: 3 prompts then, 3 now. "
        "Which of them differ is not recorded for more than 2 prompts"
    )
    assert "then 'day 26: a'\n    now  'day 27: a'" in compared(THREE, examples("day 27: a", "", ""))


def test_a_record_is_small():
    many = examples(*map(str, range(1000)))
    kept = record(many, decode)
    assert (kept.count, len(kept.hashes), len(set(kept.hashes))) == (1000, 1000, 1000)
    assert len(kept.each) == 4 * -(-4000 // 3)
    assert kept.first == "0"


def test_a_record_is_read_by_the_names_of_its_fields():
    """One of another version may have more fields, which are left aside, or fewer: then it is none."""
    was = record(THREE, decode)
    fields = dataclasses.asdict(was)
    assert prompts.PromptRecord.of(fields | {"more": 1}) == was
    for name in set(fields) - {"answers", "each_answer"}:
        assert prompts.PromptRecord.of({n: value for n, value in fields.items() if n != name}) is None
    assert prompts.PromptRecord.of({}) is None


def answered(*problems):
    return [Example(problem, tuple(map(ord, "same"))) for problem in problems]


ONE = Problem("same", "1", "s", {"tests": [1, {"in": "x"}]}, alternatives=("1.0",), tolerance=0.1, difficulty=2.0)


@pytest.mark.parametrize(
    "change",
    [
        {"answer": "2"},
        {"answer": "1 "},
        {"alternatives": ()},
        {"alternatives": ("1.0", "one")},
        {"tolerance": None},
        {"source": "t"},
        {"difficulty": 3.0},
        {"metadata": {"tests": [1, {"in": "y"}]}},
        {"metadata": {}},
    ],
)
def test_other_values_that_a_verifier_may_read(change):
    other = dataclasses.replace(ONE, **change)
    assert compared(answered(ONE, ONE, ONE), answered(ONE, other, other)) == (
        "other answers than the checkpoint, or other values that a verifier may read, and the same prompts: 2 of 3 "
        f"differ. The first is problem 1, with the answer {other.answer!r} now and the prompt\n    'same'"
    )


def test_values_that_no_verifier_reads_may_change():
    other = dataclasses.replace(ONE, unit="km", answer_format="#### {answer}")
    assert compared(answered(ONE), answered(other)) is None


def test_of_other_prompts_and_answers_the_prompts_are_said():
    assert compared(THREE, [Example(Problem("day 27", "1"), tuple(map(ord, "day 27")))]).startswith("other prompts")


def test_a_record_without_answers_is_of_an_older_version_and_is_not_compared():
    now = record(answered(ONE), decode)
    saved = {name: value for name, value in dataclasses.asdict(now).items() if "answer" not in name}
    other = answered(dataclasses.replace(ONE, answer="2"))
    assert difference(prompts.PromptRecord.of(saved), record(other, decode), other, decode) is None


def test_of_very_many_answers_the_digest_alone_is_kept(monkeypatch):
    monkeypatch.setattr(prompts, "MOST", 1)
    assert compared(answered(ONE, ONE), answered(ONE, ONE)) is None
    said = compared(answered(ONE, ONE), answered(ONE, dataclasses.replace(ONE, answer="2")))
    assert said.endswith("and the same prompts. Which of them differ is not recorded for more than 1 prompts")


class Opaque:
    """A value whose repr has its address in memory."""


@pytest.mark.parametrize(
    "make",
    [
        Opaque,
        lambda: lambda: 0,
        lambda: set(map(str, range(20))),
        lambda: {1, "a", None},
        lambda: float("nan"),
        lambda: b"\xff",
        lambda: "\ud800",
        lambda: {1: "a", "b": 2, (3,): 4},
    ],
)
def test_any_metadata_has_a_record_that_another_process_makes_again(make):
    first, second = (answered(dataclasses.replace(ONE, metadata={"x": make()})) for _ in range(2))
    assert compared(first, second) is None
