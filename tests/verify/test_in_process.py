"""Verification in this process: the outcome of everything that a verifier may return or do."""

import dataclasses
import sys

import numpy as np
import pytest

from prerl_jax.data import Problem
from prerl_jax.verify import (
    BatchFunctionVerifier,
    BoxedAnswer,
    FunctionVerifier,
    InProcessVerifier,
    Judgement,
    VerifierError,
    VerifierTraits,
    open_verifier,
)

PROBLEMS = [Problem("a", "1"), Problem("b", "2"), Problem("c", "3")]


def returns(value):
    return InProcessVerifier(lambda problem, response: value)


def one(verify, response="x"):
    """The judgement of one response."""
    (judgement,) = verify(PROBLEMS[:1], [response], [False]).judgements
    return judgement


def test_rewards_and_their_type():
    verified = InProcessVerifier(BoxedAnswer())(PROBLEMS, [r"\boxed{1}", r"\boxed{1}", r"\boxed{3}"], [False] * 3)
    np.testing.assert_array_equal(verified.rewards, np.array([1, 0, 1], np.float32))
    assert verified.rewards.dtype == np.float32
    assert verified.right.tolist() == [True, False, True]
    assert verified.known.tolist() == [True] * 3


def test_a_truncated_response_is_wrong_whatever_it_contains_and_is_not_verified():
    seen = []

    def verifier(problem, response):
        seen.append(response)
        return 1.0

    verified = InProcessVerifier(verifier, truncated_reward=-0.5)(PROBLEMS, ["x", "y", "z"], np.array([1, 0, 1], bool))
    np.testing.assert_array_equal(verified.rewards, [-0.5, 1, -0.5])
    assert verified.judgements[0] == Judgement(-0.5, "wrong", format_ok=False)
    assert seen == ["y"]


@pytest.mark.parametrize(
    ("value", "judgement"),
    [
        (1.0, Judgement(1.0, "right")),
        (True, Judgement(1.0, "right")),
        (np.float32(0.5), Judgement(0.5, "wrong")),
        (np.array(0), Judgement(0.0, "wrong")),
        (None, Judgement(0.0, "unknown")),
        (Judgement(-3.0, "right", "7"), Judgement(-3.0, "right", "7")),
        (Judgement(np.float64(2), "wrong", "7" * 2000), Judgement(2.0, "wrong", "7" * 1000)),
        (Judgement(np.array(1), "right", np.str_("7"), np.bool_(True)), Judgement(1.0, "right", "7", True)),
        (Judgement(True, "right", format_ok=np.array(False)), Judgement(1.0, "right", format_ok=False)),
    ],
)
def test_what_a_verifier_may_return(value, judgement):
    found = one(returns(value))
    assert found == judgement
    assert {type(field) for field in dataclasses.astuple(found)} <= {float, str, bool, type(None)}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (float("nan"), "returned nan, which is not finite"),
        (float("inf"), "returned inf, which is not finite"),
        (-2e15, "returned -2000000000000000.0, which is beyond .* divide them by a constant"),
        (-0.5, r"returned -0.5, which is not in \[0, 1\].*return Judgement\("),
        (2.0, r"returned 2.0, which is not in \[0, 1\].*return Judgement\("),
        ("good", "returned a str, 'good', and not a number or a Judgement, for Problem"),
        ("1.0", "returned a str"),
        ([1.0], r"returned a list, '\[1.0\]'"),
        ([], "returned a list"),
        ({}, "returned a dict"),
        (np.ones(2), "returned a ndarray"),
        (1j, "returned a complex"),
        (10**400, "returned a int"),
    ],
)
def test_what_it_may_not_return(value, says):
    with pytest.raises(VerifierError, match=rf"<lambda>.* {says}") as raised:
        one(returns(value))
    assert "Traceback" not in str(raised.value)


@pytest.mark.parametrize("value", [2.0, -7.5, -1e15])
def test_any_reward(value):
    judgement = one(InProcessVerifier(lambda problem, response: value, any_reward=True))
    assert judgement == Judgement(value, "right" if value == 2.0 else "wrong")
    with pytest.raises(VerifierError, match="not finite"):
        one(InProcessVerifier(lambda problem, response: float("nan"), any_reward=True))


@pytest.mark.parametrize(
    "arguments",
    [
        *[(reward, "right") for reward in (float("nan"), 1e30, -1e16, "1", b"1", None, [1.0], 10**400, 1j, np.ones(2))],
        (1.0, "good"),
        (1.0, None),
        *[(1.0, "right", answer) for answer in (7, b"7", ["7"], np.array("7"))],
        *[(1.0, "right", None, ok) for ok in ("yes", 1, 0.0, np.float32(1), np.array([True]), [])],
    ],
)
def test_a_judgement_that_cannot_be(arguments):
    with pytest.raises(ValueError, match=r"Judgement\.(reward|verdict|answer|format_ok) must be"):
        Judgement(*arguments)


def raising(problem, response):
    raise KeyError("it")


@pytest.mark.parametrize(
    ("verifier", "says"),
    [
        (raising, r"(?s)raising.* failed on Problem\(.*answer='1'.*Traceback.*KeyError: 'it'"),
        (lambda problem, response: sys.exit(3), r"raised SystemExit\(3\) on Problem"),
        (lambda problem, response: bytearray(2**62), r"raised MemoryError\(.*\) on Problem"),
    ],
)
def test_an_exception_ends_the_run(verifier, says):
    with pytest.raises(VerifierError, match=says):
        one(InProcessVerifier(verifier))


@pytest.mark.parametrize(("responses", "truncated"), [(2, 3), (3, 2)])
def test_lengths_must_match(responses, truncated):
    with pytest.raises(ValueError, match=f"3 problems, {responses} responses and {truncated} truncation"):
        InProcessVerifier(BoxedAnswer())(PROBLEMS, ["x"] * responses, [False] * truncated)


def test_an_empty_call():
    assert InProcessVerifier(BoxedAnswer())([], [], []).rewards.shape == (0,)


def test_a_call_ends_when_it_is_closed():
    def judge(problem, response):
        seen.append(response)
        verify.close()
        return 1.0

    seen, verify = [], InProcessVerifier(judge)
    with pytest.raises(ValueError, match="closed"):
        verify(PROBLEMS, ["a", "b", "c"], [True, False, False])
    assert seen == ["b"]


class Many:
    """A reward model: longer is better. It remembers the sizes of its batches."""

    def __init__(self, batch_size=None, answers=lambda responses: [len(text) / 10 for text in responses]):
        self.batch_size, self.answers, self.sizes = batch_size, answers, []

    def verify_batch(self, problems, responses):
        assert len(problems) == len(responses)
        self.sizes.append(len(responses))
        return self.answers(responses)


@pytest.mark.parametrize(("batch_size", "sizes"), [(None, [4]), (3, [3, 1]), (1, [1, 1, 1, 1]), (9, [4])])
def test_a_batch_verifier_gets_many_responses_at_once(batch_size, sizes):
    many = Many(batch_size)
    truncated = [False, True, False, False, False]
    verified = InProcessVerifier(many)(PROBLEMS[:1] * 5, ["a", "aa", "aaa", "aaaa", "a" * 10], truncated)
    np.testing.assert_allclose(verified.rewards, [0.1, 0, 0.3, 0.4, 1])
    assert verified.right.tolist() == [False] * 4 + [True]
    assert many.sizes == sizes


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ([1.0], "returned 1 values for 3 responses"),
        ([1.0] * 4, "returned 4 values for 3 responses"),
        (None, "returned a NoneType, 'None', and not a sequence of 3"),
        (0.5, "returned a float"),
        ("yes", "returned a str"),
        (b"yes", "returned a bytes"),
        ({0.1, 0.2, 0.3}, "returned a set, .* and not a sequence of 3"),
        ({0: 1.0, 1: 1.0, 2: 1.0}.values(), "returned a dict_values"),
        (np.array(1.0), "returned a ndarray"),
        ({0: 1.0, 1: 1.0, 2: 1.0}, "returned a dict"),
        (iter([1.0] * 3), "returned a list_iterator"),
        (np.ones((3, 2)), "returned a ndarray"),
        ([1.0, "good", 1.0], r"returned a str, 'good', .* for Problem\(prompt='b'"),
    ],
)
def test_a_batch_of_the_wrong_length_or_type(answers, says):
    with pytest.raises(VerifierError, match=says):
        InProcessVerifier(Many(answers=lambda responses: answers))(PROBLEMS, ["x"] * 3, [False] * 3)


@pytest.mark.parametrize("batch_size", ["8", 0, -1, 2.0, [8]])
def test_a_batch_size_that_cannot_be(batch_size):
    with pytest.raises(VerifierError, match=r"batch_size of .*Many.* is .*; it must be a whole number of 1 or more"):
        InProcessVerifier(Many(batch_size))(PROBLEMS, ["x"] * 3, [False] * 3)
    assert InProcessVerifier(Many(np.int64(2)))(PROBLEMS, ["x"] * 3, [False] * 3).known.all()


def test_a_batch_may_be_an_array_or_a_tuple():
    for answers in (np.array([0, 1, 0.5], np.float32), (0, True, Judgement(0.5, "wrong"))):
        verified = InProcessVerifier(Many(answers=lambda responses, found=answers: found))(PROBLEMS, ["x"] * 3, [0] * 3)
        np.testing.assert_array_equal(verified.rewards, [0, 1, 0.5])


def test_a_batch_that_fails():
    with pytest.raises(
        VerifierError, match=r"(?s)answer='1'.*another of the 2 that were verified with it.*ZeroDivision"
    ):
        InProcessVerifier(Many(answers=lambda responses: 1 / 0))(PROBLEMS, ["x"] * 3, [False, False, True])


def scores(problems, responses):
    return [float(problem.answer == response) for problem, response in zip(problems, responses, strict=True)]


def test_a_function_of_many():
    verifier = BatchFunctionVerifier(f"{__name__}:scores", batch_size=2)
    verified = InProcessVerifier(verifier)(PROBLEMS, ["1", "2", "2"], [False] * 3)
    np.testing.assert_array_equal(verified.rewards, [1, 1, 0])


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: BatchFunctionVerifier("nowhere:f"), "cannot import 'nowhere'"),
        (lambda: BatchFunctionVerifier("json:nothing"), "has no function 'nothing'"),
        (lambda: BatchFunctionVerifier("json:loads", 0), "batch_size is 0; it must be 1 or more"),
        (lambda: FunctionVerifier("json"), "package.module:function"),
    ],
)
def test_a_function_that_is_not_there(build, says):
    with pytest.raises(ValueError, match=says):
        build()


class Wild:
    traits = VerifierTraits(needs_workers=True)

    def __call__(self, problem, response):
        return 1.0


def test_a_verifier_that_needs_workers_is_not_run_here():
    with pytest.raises(ValueError, match=r"Set data\.verify_workers to 1 or more"), open_verifier(Wild()):
        pass


def test_a_run_without_workers_verifies_here():
    with open_verifier(lambda problem, response: 3.0, any_reward=True, truncated_reward=-1.0) as verify:
        np.testing.assert_array_equal(verify(PROBLEMS[:2], ["x", "x"], [False, True]).rewards, [3, -1])
    assert isinstance(verify, InProcessVerifier)
    with pytest.raises(ValueError, match="closed"):
        verify(PROBLEMS[:1], ["x"], [False])
