"""Rows are verified when they are complete, in any order. The verdicts equal those of one call with all rows."""

import dataclasses
import threading

import numpy as np
import pytest
import tiny_run

from prerl_jax import ContinuousBatching
from prerl_jax.evaluation.sampling import problems_of
from prerl_jax.evaluation.verification import Verification
from prerl_jax.trainer.loop import evaluate_policy, train_step
from prerl_jax.trainer.position import Position
from prerl_jax.trainer.timing import StepClock
from prerl_jax.verify import UNKNOWN, InProcessVerifier, Judgement, Verified


def decode(rows):
    return ["".join(map(str, row)) for row in rows]


RESPONSES = np.array([[1, 9, 0], [2, 2, 2], [3, 3, 9], [9, 0, 0]], np.int32)
LENGTHS = np.array([2, 3, 3, 1])


class Judge:
    """Rewards by problem; each call waits until it may go on, and is recorded."""

    def __init__(self):
        self.go, self.started, self.asked = threading.Semaphore(0), threading.Semaphore(0), []

    def __call__(self, problems, responses, cut):
        self.asked.append(list(zip(problems, responses, map(bool, cut), strict=True)))
        self.started.release()
        assert self.go.acquire(timeout=60)
        if "bad" in problems:
            raise ValueError(f"cannot judge {problems}")
        late = np.array(problems) == 4
        return Verified([UNKNOWN if p == 4 else Judgement(p / 8, "wrong", f"<{p}>") for p in problems], late)


def verification_of(judge, problems, *measure):
    return Verification(problems, judge, decode, (9,), *measure)


def add(verification, *rows):
    verification.add(np.array(rows), RESPONSES[list(rows)], LENGTHS[list(rows)])


def until_over(judge, count):
    """Waits until this many calls of the judge have begun, and lets them go on."""
    for _ in range(count):
        assert judge.started.acquire(timeout=60)


def test_rows_that_complete_while_others_are_verified_are_verified_together():
    judge = Judge()
    verification = verification_of(judge, [1, 2, 3, 4])
    add(verification, 2)
    assert judge.started.acquire(timeout=60)
    add(verification, 3)
    add(verification, 1, 0)
    judge.go.release(2)
    found = verification.result()
    assert judge.asked == [[(3, "339", False)], [(4, "9", False), (2, "222", True), (1, "19", False)]]
    assert found.texts == ["19", "222", "339", "9"]
    assert found.truncated.tolist() == [False, True, False, False]
    assert found.verified.rewards.tolist() == [1 / 8, 2 / 8, 3 / 8, 0]
    assert [judgement.answer for judgement in found.verified.judgements] == ["<1>", "<2>", "<3>", None]
    assert found.verified.known.tolist() == [True, True, True, False]
    assert found.verified.timed_out.tolist() == [False, False, False, True]
    assert not any(thread.name.startswith("verification") for thread in threading.enumerate())


def test_the_first_failure_is_raised_and_nothing_is_verified_after_it():
    judge = Judge()
    verification = verification_of(judge, [1, "bad", 3, "bad"])
    add(verification, 1)
    until_over(judge, 1)
    add(verification, 0, 3)  # taken up by the next call, after the failure
    judge.go.release(9)
    with pytest.raises(ValueError, match=r"cannot judge \['bad'\]"):
        verification.result()
    assert len(judge.asked) == 1


def test_nobody_waits_for_a_verdict_after_an_error():
    judge = Judge()
    verification = verification_of(judge, [1, 2, 3, 4])
    add(verification, 0)
    until_over(judge, 1)
    add(verification, 1)
    verification.cancel()  # returns, though the judge waits
    judge.go.release(9)
    assert len(judge.asked) == 1


def test_what_else_is_measured_of_responses():
    judge = Judge()
    judge.go.release(2)
    lengths = lambda texts: np.array([[len(text), 7] for text in texts], np.float32).reshape(-1, 2)  # noqa: E731
    verification = verification_of(judge, [1, 2, 3, 4], lengths)
    add(verification, 3, 0)
    add(verification, 1)
    assert verification.result().measured.tolist() == [[2, 7], [3, 7], [0, 0], [1, 7]]


def test_no_verdict_waits_for_what_is_measured():
    judge, measured = Judge(), threading.Event()
    judge.go.release(2)

    def measure(texts):
        assert not texts or measured.wait(60)
        return np.ones((len(texts), 1), np.float32)

    verification = verification_of(judge, [1, 2, 3, 4], measure)
    for row in (0, 1):
        add(verification, row)
        until_over(judge, 1)  # both are judged, though nothing has been measured yet
    measured.set()
    assert verification.result().measured.tolist() == [[1], [1], [0], [0]]
    assert not any(thread.name.startswith("measurement") for thread in threading.enumerate())


def test_a_failure_of_a_measurement_is_raised():
    judge = Judge()
    judge.go.release(1)

    def measure(texts):
        if texts:
            raise ValueError("cannot measure")
        return np.zeros((0, 1), np.float32)

    verification = verification_of(judge, [1], measure)
    add(verification, 0)
    with pytest.raises(ValueError, match="cannot measure"):
        verification.result()


@pytest.mark.parametrize("where", ["training", "evaluation"])
def test_a_policy_whose_logits_are_not_finite_ends_the_run(where):
    run, state, _ = tiny_run.begin(tiny_run.config())
    state.params["final_norm"] = state.params["final_norm"] * np.nan
    with pytest.raises(ValueError, match=r"responses of .*log-probability is not finite"):
        train_step(run, state, Position.of(state)) if where == "training" else evaluate_policy(run, state)


def test_a_step_verifies_rows_while_others_are_sampled():
    config = tiny_run.config()
    sampling = dataclasses.replace(config.sampling, engine=ContinuousBatching(chunk=4))
    run, state, _ = tiny_run.begin(dataclasses.replace(config, sampling=sampling))
    judged, plain = [], InProcessVerifier(config.data.verifier)

    def verify(problems, responses, truncated):
        judged.append(threading.current_thread())
        return plain(problems, responses, truncated)

    worker = dataclasses.replace(run.worker, verifier=verify)
    key, _ = run.programs.step_keys(state.rng, 0)
    batch = worker.verify(worker.sample(state.params, run.setup.phases[0], key, StepClock()), 1)
    assert len(judged) > 1
    assert threading.main_thread() not in judged
    rollouts, texts = batch.responses.rollouts, batch.responses.texts
    problems = problems_of([run.setup.train[i] for i in batch.problems], 4)
    expected = plain(problems, texts, rollouts.truncated).rewards
    np.testing.assert_array_equal(rollouts.rewards, expected)
    assert 0 < rollouts.rewards.sum() < len(problems)
    lengths = rollouts.response_mask.sum(axis=1)
    assert texts == run.setup.decode([r[:n].tolist() for r, n in zip(rollouts.response, lengths, strict=True)])
