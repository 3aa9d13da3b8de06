"""A batch of rewards."""

from __future__ import annotations

import numpy as np
import pytest

from prerl_jax.data import Problem
from prerl_jax.verify import BoxedAnswer, ExactMatch, GSM8KAnswer, MultipleChoice, check_all, verify_all

PROBLEMS = [Problem("a", "1"), Problem("b", "2"), Problem("c", "3")]


def test_rewards_and_their_type():
    rewards = verify_all(BoxedAnswer(), PROBLEMS, [r"\boxed{1}", r"\boxed{1}", r"\boxed{3}"], [False] * 3)
    np.testing.assert_array_equal(rewards, np.array([1, 0, 1], np.float32))
    assert rewards.dtype == np.float32


def test_truncated_gets_nothing_whatever_it_contains():
    truncated = np.array([True, False, True])
    rewards = verify_all(BoxedAnswer(), PROBLEMS, [r"\boxed{1}", r"\boxed{2}", r"\boxed{3}"], truncated)
    np.testing.assert_array_equal(rewards, [0, 1, 0])


def test_truncated_is_not_verified():
    seen = []

    def verifier(problem, response):
        seen.append(response)
        return 1.0

    verify_all(verifier, PROBLEMS, ["x", "y", "z"], [False, True, False])
    assert seen == ["x", "z"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.5, 1.5, None, "good"])
def test_any_verifier_s_value_is_checked(value):
    with pytest.raises(ValueError, match="returned"):
        verify_all(lambda problem, response: value, PROBLEMS, ["x"] * 3, [False] * 3)


@pytest.mark.parametrize(("responses", "truncated"), [(2, 3), (3, 2)])
def test_lengths_must_match(responses, truncated):
    with pytest.raises(ValueError, match=f"3 problems, {responses} responses and {truncated} truncation"):
        verify_all(BoxedAnswer(), PROBLEMS, ["x"] * responses, [False] * truncated)


def test_an_empty_batch():
    assert verify_all(BoxedAnswer(), [], [], []).shape == (0,)


@pytest.mark.parametrize(
    ("verifier", "bad"),
    [
        (BoxedAnswer(), (" ", "")),
        (ExactMatch(), (" ", "")),
        (GSM8KAnswer(), ("ten", "--1")),
        (MultipleChoice("ABC"), ("D", "AB")),
    ],
)
def test_problems_that_cannot_be_judged_are_found_before_the_run(verifier, bad):
    good = [Problem("q", "B" if isinstance(verifier, MultipleChoice) else "7")] * 3
    check_all(verifier, good)
    with pytest.raises(
        ValueError,
        match=r"cannot verify 2 of the 5 problems; .*problem 3 \(counted from 0\): the ground truth is.*data\.verifier",
    ):
        check_all(verifier, [*good, *(Problem("q", answer) for answer in bad)])


def test_a_verifier_without_a_check_takes_any_problem():
    check_all(lambda problem, response: 1.0, [Problem("q", "")])
