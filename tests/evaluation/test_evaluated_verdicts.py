"""Evaluation reads what a verifier says: verdicts, rewards, answers, formats. Too many unknown verdicts end it."""

import dataclasses

import numpy as np
import pytest
import tiny_run
from scripted import Scripted, evaluated_with, problems, sampling

from prerl_jax.config import AlignmentSpec
from prerl_jax.evaluation.unknown import UnknownVerdictsError
from prerl_jax.trainer.setup import set_up
from prerl_jax.verify import UNKNOWN, Judgement, Verified, right_or_wrong


def test_the_given_verifier_is_asked_and_its_timeouts_are_counted():
    setup = set_up(dataclasses.replace(tiny_run.config(), **problems(5)))

    def verify(problems, responses, truncated):
        late = np.arange(len(problems)) == 3
        return Verified([UNKNOWN if one else Judgement(0.25, "right") for one in late], late)

    metrics = evaluated_with(setup, Scripted(setup), verify)
    assert metrics["eval/avg@2"] == 1
    assert metrics["eval/reward"] == 0.25
    assert metrics["eval/unknown"] == 1 / 10
    assert metrics["eval/incomplete"] == 1 / 5
    assert metrics["time/verifier_timeouts_of_evaluation"] == 1
    assert "eval/maj@2" not in metrics
    assert "eval/format_failures" not in metrics


def judged_by(judge):
    """A verifier of batches that calls judge(problem, response), and says of truncated ones what verifiers say."""

    def verify(problems, responses, truncated):
        cut = Judgement(0.0, "wrong", format_ok=False)
        rows = zip(problems, responses, truncated, strict=True)
        return Verified([cut if over else judge(p, r) for p, r, over in rows], np.zeros(len(problems), bool))

    return verify


@pytest.mark.parametrize("fields", [{}, sampling(1, 4), sampling(2, 4)], ids=["one call", "three calls", "two calls"])
def test_majority_votes_and_formats_of_what_the_verifier_extracts(fields):
    """Six samples of five problems: even ones are right, odd ones have no answer and a wrong format."""

    def judge(problem, response):
        answer = response.rpartition("#")[2]
        return right_or_wrong(answer == problem.answer, answer, bool(answer))

    setup = set_up(
        dataclasses.replace(tiny_run.config(), alignment=AlignmentSpec(), **problems(5, samples=6), **fields)
    )
    metrics = evaluated_with(setup, Scripted(setup), judged_by(judge))
    assert metrics["eval/avg@6"] == 0.5
    assert metrics["eval/maj@6"] == 1
    assert metrics["eval/format_failures"] == 12 / 27, "the three truncated responses were not verified"


def test_too_many_unknown_verdicts_end_an_evaluation():
    how = problems(4)
    setup = set_up(dataclasses.replace(tiny_run.config(), **how))
    hard = setup.evaluation[1].problem

    def judge(problem, response):
        return UNKNOWN if problem is hard or response.endswith("#") else right_or_wrong(True)

    says = (
        r"4 of the 8 verdicts of an evaluation are unknown, and data\.unknown_limit is 0\.4: .*deadline on 0 "
        r"responses, and on 4 it returned None or its process died.*the response 'wait wait\\n#'.*raise "
        r"data\.unknown_limit"
    )
    assert evaluated_with(setup, Scripted(setup), judged_by(judge))["eval/unknown"] == 0.5  # no more than the limit
    setup = set_up(dataclasses.replace(tiny_run.config(), data=dataclasses.replace(how["data"], unknown_limit=0.4)))
    hard = setup.evaluation[1].problem
    with pytest.raises(UnknownVerdictsError, match=says) as found:
        evaluated_with(setup, Scripted(setup), judged_by(judge))
    assert str(setup.evaluation[0].problem) in str(found.value)
