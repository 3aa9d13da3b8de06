"""Rows are judged as they end, in any order; what comes of it is what judging all of them at once gives."""

import contextlib
import threading
import types

import numpy as np
import pytest
import tiny_run
from test_same_step import begin

from prerl_jax.evaluation.verification import Verification
from prerl_jax.rollout.continuous import ContinuousBatching
from prerl_jax.trainer.loop import Loop
from prerl_jax.trainer.programs import Programs
from prerl_jax.verify import InProcessVerifier, Verified

ASSEMBLY = types.SimpleNamespace(decode=lambda rows: ["".join(map(str, row)) for row in rows], stop_tokens=(9,))
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
        return Verified(np.array([problem / 8 for problem in problems], np.float32), np.array(problems) == 4)


def add(verification, *rows):
    verification.add(np.array(rows), RESPONSES[list(rows)], LENGTHS[list(rows)])


def test_rows_that_end_while_others_are_judged_are_judged_together():
    judge = Judge()
    with Verification(ASSEMBLY, judge, [1, 2, 3, 4]) as verification:
        add(verification, 2)
        assert judge.started.acquire(timeout=60)
        add(verification, 3)
        add(verification, 1, 0)
        judge.go.release(2)
        found = verification.verdicts()
    assert judge.asked == [[(3, "339", False)], [(4, "9", False), (2, "222", True), (1, "19", False)]]
    assert found.responses == ["19", "222", "339", "9"]
    assert found.cut.tolist() == [False, True, False, False]
    assert found.verified.rewards.tolist() == [1 / 8, 2 / 8, 3 / 8, 4 / 8]
    assert found.verified.late.tolist() == [False, False, False, True]
    assert not any(thread.name.startswith("verification") for thread in threading.enumerate())


def test_the_first_failure_is_raised_and_nothing_is_judged_after_it():
    judge = Judge()
    judge.go.release(9)
    with Verification(ASSEMBLY, judge, [1, "bad", 3, "bad"]) as verification:
        add(verification, 1)
        assert judge.started.acquire(timeout=60)
        verification._calls[0].exception()  # it is over
        add(verification, 0, 3)
        verification._calls[1].exception()
        with pytest.raises(ValueError, match=r"cannot judge \['bad'\]"):
            verification.verdicts()
    assert len(judge.asked) == 1


def test_where_an_error_is_on_its_way_nobody_waits_for_a_verdict():
    judge = Judge()
    verification = Verification(ASSEMBLY, judge, [1, 2, 3, 4])
    with contextlib.suppress(KeyboardInterrupt), verification:
        add(verification, 0)
        assert judge.started.acquire(timeout=60)
        add(verification, 1)
        raise KeyboardInterrupt
    under_way, waiting = verification._calls
    assert under_way.running()
    assert waiting.cancelled()
    judge.go.release()
    under_way.result(timeout=60)


def test_what_else_is_measured_of_responses():
    judge = Judge()
    judge.go.release(2)
    lengths = lambda responses: np.array([[len(r), 7] for r in responses], np.float32).reshape(-1, 2)  # noqa: E731
    with Verification(ASSEMBLY, judge, [1, 2, 3, 4], lengths) as verification:
        add(verification, 3, 0)
        verification._calls[0].result(timeout=60)
        add(verification, 1)
        assert verification.verdicts().measured.tolist() == [[2, 7], [3, 7], [0, 0], [1, 7]]


@pytest.mark.parametrize("where", ["training", "evaluation"])
def test_a_policy_whose_logits_are_not_finite_ends_the_run(where):
    run = begin(tiny_run.config())
    run.state.params["final_norm"] = run.state.params["final_norm"] * np.nan
    with Loop(run) as loop, pytest.raises(ValueError, match=r"responses of .*log-probability is not finite"):
        loop.step() if where == "training" else loop.evaluate()


def test_a_step_verifies_rows_while_others_are_sampled():
    run = begin(tiny_run.config())
    run.programs = Programs(run.setup, ContinuousBatching(chunk=4).make)
    judged, plain = [], InProcessVerifier(run.setup.config.data.verifier)

    def verify(problems, responses, cut):
        judged.append(threading.current_thread())
        return plain(problems, responses, cut)

    run.verify = verify
    with Loop(run) as loop:
        loop.conclude(step := loop.step())
    assert len(judged) > 1
    assert threading.main_thread() not in judged
    problems = [example.problem for example in step.examples for _ in range(4)]
    expected = plain(problems, step.responses, step.rollouts.truncated).rewards
    np.testing.assert_array_equal(step.rollouts.rewards, expected)
    assert 0 < step.rollouts.rewards.sum() < len(problems)
    lengths = step.rollouts.response_mask.sum(axis=1)
    assert step.responses == run.setup.decode(
        [r[:n].tolist() for r, n in zip(step.rollouts.response, lengths, strict=True)]
    )
