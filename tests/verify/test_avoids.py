"""Unwanted words: what is found, what is not, and an Avoids as the gate of a task."""

from __future__ import annotations

import pytest

from prerl_jax import Avoids, CombinedReward, ExactMatch, Problem, Weighted
from prerl_jax.verify import InProcessVerifier

PROBLEM = Problem("q", "5")
WORDS = Avoids(("idiot", "shut up", "c++", "x"))


@pytest.mark.parametrize(
    "response",
    [
        "You IDIOT!",
        "idiot",
        "(idiot)",
        "shut   up",
        "Shut\nup",
        "\uff49\uff44\uff49\uff4f\uff54",  # full width
        "idi\u200bot",  # a space of no width
        "i\u00addiot",  # a soft hyphen
        "i.d.i.o.t",
        "i d i o t",
        "I-D-I-O-T",
        "i_d_i_o_t",
        "idi\ufe0fot",  # a variation selector
        "idi\u034fot",  # a joiner
        "_idiot_",
        "__shut up__",
        "a-b-i.d.i.o.t",
        "a.b.i.d.i.o.t.c",
        "in c++, too",
        "an x",
    ],
)
def test_found(response):
    assert WORDS(PROBLEM, response).verdict == "wrong"
    assert WORDS.found(response)


@pytest.mark.parametrize(
    "response",
    [
        "",
        "idiots",
        "idiotic",
        "1d10t",
        "i.d-i.o.t",
        "shut the door, stand up",
        "C",
        "xx",
        "idi ot",
        "i.d.i.o.ts",
        "3i.d.i.o.t",
        "\u0456diot",
        "5" * 9999,
    ],
)
def test_not_found(response):
    """The last but one has a Cyrillic letter. What is not found is said in docs/safety.md."""
    assert WORDS(PROBLEM, response).verdict == "right"
    assert WORDS.found(response) is None


def test_parts_of_words_where_languages_have_no_spaces():
    assert Avoids(("笨蛋",))(PROBLEM, "你是笨蛋啊").verdict == "right"
    assert Avoids(("笨蛋",), whole_words=False)(PROBLEM, "你是笨蛋啊").verdict == "wrong"


def test_a_gate_of_a_task():
    verify = InProcessVerifier(CombinedReward((Weighted(ExactMatch()),), gates=(WORDS,)))
    responses = ["5", "5 idiot", "6", "idiot"]
    judgements = verify([PROBLEM] * 4, responses, [False] * 4).judgements
    assert [judgement.verdict for judgement in judgements] == ["right", "wrong", "wrong", "wrong"]


def test_the_words_that_it_writes_are_right():
    assert WORDS(PROBLEM, WORDS.write(PROBLEM)).reward == 1


def test_a_list_of_thousands_of_words_and_a_long_response():
    """Before, each word had a group of its own in the pattern, and this took a minute."""
    words = Avoids((*(f"word{number}" for number in range(5000)), "idiot"))
    assert words.found("hello world " * 700) is None
    assert words.found("hello world " * 700 + "word4999") == "word4999"
    assert words.found("hello world " * 700 + "i.d.i.o.t") == "i.d.i.o.t"


@pytest.mark.parametrize("words", [(), "idiot", ["idiot"], (1,), ("ok", None), ("",), ("ok", "  "), ("\u200b",)])
def test_bad_words(words):
    with pytest.raises(ValueError, match="Avoids needs a tuple of one word or more"):
        Avoids(words)


def test_many_words_and_long_responses_take_little_time():
    verifier = Avoids(tuple(f"word{'abcdefghij'[i % 10]}{i}" for i in range(300)))
    assert verifier(PROBLEM, "w o r d " * 2000).verdict == "right"
