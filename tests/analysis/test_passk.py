"""pass@k against a hand-computed table and against enumeration of every subset; evaluation_metrics name by name."""

import itertools
import json

import numpy as np
import pytest

from prerl_jax.analysis import passk


@pytest.mark.parametrize(
    ("samples", "correct", "k", "expected"),
    [
        (1, 0, 1, 0.0),
        (1, 1, 1, 1.0),
        (4, 1, 1, 1 / 4),
        (4, 1, 2, 1 / 2),  # 1 - C(3,2)/C(4,2) = 1 - 3/6
        (4, 2, 2, 5 / 6),  # 1 - 1/6
        (4, 2, 3, 1.0),  # only two are wrong
        (5, 2, 3, 9 / 10),  # 1 - C(3,3)/C(5,3)
        (8, 1, 4, 1 / 2),  # 1 - C(7,4)/C(8,4) = 1 - 35/70
        (8, 3, 2, 9 / 14),  # 1 - C(5,2)/C(8,2) = 1 - 10/28
        (8, 0, 8, 0.0),
        (8, 8, 8, 1.0),
    ],
)
def test_hand_computed_table(samples, correct, k, expected):
    assert passk.pass_at_k(np.array([correct]), samples, k) == pytest.approx(expected, abs=1e-15)


def test_equals_the_share_of_subsets_with_a_right_response():
    for samples in range(1, 8):
        for correct, k in itertools.product(range(samples + 1), range(1, samples + 1)):
            responses = [1] * correct + [0] * (samples - correct)
            share = np.mean([any(subset) for subset in itertools.combinations(responses, k)])
            assert passk.pass_at_k(np.array([correct]), samples, k) == pytest.approx(share, abs=1e-12)


def test_is_the_mean_over_problems_and_stable_for_many_samples():
    assert passk.pass_at_k(np.array([0, 1, 4]), 4, 2) == pytest.approx((0 + 1 / 2 + 1) / 3)
    assert passk.pass_at_k(np.array([1]), 100_000, 50_000) == pytest.approx(1 / 2, abs=1e-9)  # c = 1: exactly k / n


@pytest.mark.parametrize(
    ("correct", "samples", "k", "message"),
    [
        ([1], 4, 5, "pass@5 .* 4 samples"),
        ([1], 4, 0, "pass@0"),
        ([5], 4, 2, r"5\.\.5, not 0\.\.4"),
        ([-1], 4, 2, "-1"),
        ([], 4, 2, r"shape \(0,\)"),
        ([[1, 2]], 4, 2, r"shape \(1, 2\)"),
    ],
)
def test_refuses_what_it_cannot_estimate(correct, samples, k, message):
    with pytest.raises(ValueError, match=message):
        passk.pass_at_k(np.array(correct), samples, k)


def outcomes(rewards, known=None, answers=None):
    """Outcomes in which a reward of 1 is right; all known and without answers, unless they are given."""
    rewards = np.array(rewards, float)
    known = np.ones(rewards.shape, bool) if known is None else np.array(known, bool)
    answers = np.zeros(rewards.shape) if answers is None else np.array(answers)
    return passk.Outcomes(rewards >= 1, known, rewards, answers.astype(np.uint64))


REWARDS = [[1.0, 0.0, 0.5, 0.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
LENGTHS = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 9, 9, 9]]
TRUNCATED = [[False] * 4, [False] * 4, [False, True, True, True]]
REFLECTIONS = [[0, 0, 0, 6], [0, 0, 0, 0], [1, 1, 2, 2]]


def test_evaluation_metrics_by_hand():
    metrics = passk.evaluation_metrics(outcomes(REWARDS), LENGTHS, TRUNCATED, REFLECTIONS)
    means = np.array([0.25, 1.0, 0.0])
    assert metrics == pytest.approx(
        {
            "eval/avg@4": 5 / 12,  # a reward of 0.5 is not right
            "eval/avg@4_stderr": np.sqrt(np.sum((means - means.mean()) ** 2) / 2 / 3),
            "eval/pass@1": (1 / 4 + 1 + 0) / 3,
            "eval/pass@2": (1 / 2 + 1 + 0) / 3,
            "eval/pass@4": 2 / 3,
            "eval/reward": 5.5 / 12,
            "eval/unknown": 0.0,
            "eval/incomplete": 0.0,
            "eval/reflections": 1.0,
            "eval/length": 6.0,
            "eval/truncated": 3 / 12,
        }
    )
    assert json.loads(json.dumps(metrics)) == metrics


def test_evaluation_metrics_when_k_is_no_power_of_two_and_with_one_problem():
    ones = np.ones((1, 6))
    metrics = passk.evaluation_metrics(outcomes(ones, answers=ones), ones, ones, ones)
    assert [name for name in metrics if "pass" in name] == [f"eval/pass@{k}" for k in (1, 2, 4, 6)]
    assert "eval/avg@6_stderr" not in metrics
    assert set(metrics) | {"eval/format_failures"} == set(passk.metric_names(6))


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"eval/length .* \(3,\), outcomes \(3, 4\)"):
        passk.evaluation_metrics(outcomes(REWARDS), [1, 2, 3], TRUNCATED, REFLECTIONS)
    for shape in ((0, 4), (3, 0), (3,)):
        with pytest.raises(ValueError, match="shapes"):
            outcomes(np.zeros(shape))
    with pytest.raises(ValueError, match="shapes"):
        outcomes(REWARDS, known=[[True]])


# Three problems: all known; two of four known, one of them right; none known.
KNOWN = [[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0]]
RIGHT = [[1, 0, 0, 0], [1, 1, 0, 1], [1, 1, 1, 1]]


def test_what_is_unknown_counts_for_nothing():
    """The rewards of unknown responses are never read, here 1."""
    found = passk.evaluation_metrics(outcomes(RIGHT, KNOWN), *[np.zeros((3, 4))] * 3)
    assert found["eval/avg@4"] == (1 / 4 + 1 / 2) / 2
    assert found["eval/avg@4_stderr"] == pytest.approx(np.std([1 / 4, 1 / 2], ddof=1) / np.sqrt(2))
    assert found["eval/reward"] == 2 / 6
    assert found["eval/unknown"] == 6 / 12
    assert found["eval/incomplete"] == 2 / 3
    assert found["eval/pass@1"] == (1 / 4 + 1 / 2) / 2
    assert found["eval/pass@2"] == pytest.approx((1 / 2 + 1) / 2)
    assert found["eval/pass@4"] == 1.0, "only the first problem has four known responses"


def test_where_no_problem_has_enough_known_responses_there_is_no_number():
    found = passk.evaluation_metrics(outcomes([[1, 0]], [[1, 0]]), *[np.zeros((1, 2))] * 3)
    assert (found["eval/avg@2"], found["eval/pass@1"]) == (1, 1)
    assert np.isnan(found["eval/pass@2"])
    none = passk.metrics_by_source(outcomes([[1], [1]], [[1], [0]]), ["a", "b"])
    assert none["eval/a/avg@1"] == 1
    assert np.isnan(none["eval/b/avg@1"])


def test_the_accuracy_of_known_verdicts_has_the_bits_of_a_mean():
    """For any number of samples, not only for powers of two."""
    rng = np.random.default_rng(0)
    for samples in range(1, 12):
        right = rng.random((37, samples)) < 0.4
        found = outcomes(right)
        assert passk.avg_at_k(found) == float(np.mean(right.astype(float)))
        spread = float(np.std(right.mean(axis=1), ddof=1) / np.sqrt(37))
        assert passk.standard_error(found) == spread


@pytest.mark.parametrize(
    ("rewards", "known", "answers", "expected"),
    [
        ([1, 0, 1, 0], [1, 1, 1, 1], [5, 6, 5, 7], 1.0),
        ([1, 0, 0, 0], [1, 1, 1, 1], [5, 6, 6, 7], 0.0),
        ([1, 0, 0, 1], [1, 1, 1, 1], [5, 6, 6, 5], 0.5),  # a tie of two answers
        ([1, 0, 0, 0], [1, 1, 1, 1], [5, 6, 7, 8], 0.25),  # a tie of four
        ([1, 0, 0, 0], [1, 1, 1, 1], [5, 0, 0, 0], 1.0),  # who says nothing does not vote
        ([1, 0, 0, 0], [1, 0, 0, 1], [5, 6, 6, 7], 0.5),  # nor do unknown verdicts
        ([1, 1, 0, 0], [1, 1, 1, 1], [5, 5, 5, 6], 2 / 3),  # the verifier accepts answer 5 in two of three responses
    ],
)
def test_majority_votes_by_hand(rewards, known, answers, expected):
    assert passk.majority_at_k(outcomes([rewards], [known], [answers])) == pytest.approx(expected)


def test_majority_votes_are_a_mean_over_problems():
    two = outcomes([[1, 1], [0, 0], [1, 1]], [[1, 1], [1, 1], [0, 0]], [[5, 5], [0, 0], [5, 5]])
    assert passk.majority_at_k(two) == 1 / 2, "nobody votes on the second problem, and the third is unknown"
    assert passk.majority_at_k(outcomes([[1, 0]])) is None
    assert "eval/maj@2" in passk.evaluation_metrics(two, *[np.zeros((3, 2))] * 3)
    assert passk.metrics_by_source(two, ["a", "b", "a"])["eval/a/maj@2"] == 1


def test_the_largest_k_is_compared_as_a_number():
    names = ["eval/avg@8", "eval/avg@16", "eval/avg@16_stderr", "eval/pass@32", "train/accuracy"]
    assert passk.largest_k("avg", names) == "eval/avg@16"
    assert passk.largest_k("maj", names) is None


def test_metrics_by_source_by_hand():
    found = outcomes([[1, 0], [0, 0], [1, 1], [0.5, 0]])
    assert passk.metrics_by_source(found, ["aime", "amc", "aime", ""]) == pytest.approx(
        {
            "eval/aime/avg@2": 0.75,
            "eval/aime/avg@2_stderr": 0.25,
            "eval/aime/pass@2": 1.0,
            "eval/amc/avg@2": 0.0,
            "eval/amc/pass@2": 0.0,
            "eval/unnamed/avg@2": 0.0,  # half right is not right
            "eval/unnamed/pass@2": 0.0,
        }
    )
    assert passk.metrics_by_source(found, ["aime"] * 4) == {}


def test_by_source_finds_what_one_metric_is_in_each():
    names = ["eval/avg@2", "eval/a/b/avg@2", "eval/a/b/avg@2_stderr", "eval/c/avg@2", "eval/c/avg@22", "train/avg@2"]
    assert passk.by_source("eval/avg@2", names) == {"a/b": "eval/a/b/avg@2", "c": "eval/c/avg@2"}
