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


SCORES = [[1.0, 0.0, 0.5, 0.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
LENGTHS = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 9, 9, 9]]
TRUNCATED = [[False] * 4, [False] * 4, [False, True, True, True]]
REFLECTIONS = [[0, 0, 0, 6], [0, 0, 0, 0], [1, 1, 2, 2]]


def test_evaluation_metrics_by_hand():
    metrics = passk.evaluation_metrics(SCORES, LENGTHS, TRUNCATED, REFLECTIONS)
    means = np.array([0.375, 1.0, 0.0])
    assert metrics == pytest.approx(
        {
            "eval/avg@4": 5.5 / 12,
            "eval/avg@4_stderr": np.sqrt(np.sum((means - means.mean()) ** 2) / 2 / 3),
            "eval/pass@1": (1 / 4 + 1 + 0) / 3,  # a score of 0.5 is not right
            "eval/pass@2": (1 / 2 + 1 + 0) / 3,
            "eval/pass@4": 2 / 3,
            "eval/reflections": 1.0,
            "eval/length": 6.0,
            "eval/truncated": 3 / 12,
        }
    )
    assert json.loads(json.dumps(metrics)) == metrics


def test_evaluation_metrics_when_k_is_no_power_of_two_and_with_one_problem():
    ones = np.ones((1, 6))
    metrics = passk.evaluation_metrics(ones, ones, ones, ones)
    assert [name for name in metrics if "pass" in name] == [f"eval/pass@{k}" for k in (1, 2, 4, 6)]
    assert "eval/avg@6_stderr" not in metrics
    assert set(metrics) == set(passk.metric_names(6))


def test_evaluation_metrics_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"eval/length .* \(3,\), scores \(3, 4\)"):
        passk.evaluation_metrics(SCORES, [1, 2, 3], TRUNCATED, REFLECTIONS)
    for empty in (np.zeros((0, 4)), np.zeros((3, 0)), np.zeros(3)):
        with pytest.raises(ValueError, match="shape"):
            passk.avg_at_k(empty)


def test_the_largest_k_is_compared_as_a_number():
    names = ["eval/avg@8", "eval/avg@16", "eval/avg@16_stderr", "eval/pass@32", "train/accuracy"]
    assert passk.largest_k("avg", names) == "eval/avg@16"
    assert passk.largest_k("maj", names) is None


def test_metrics_by_source_by_hand():
    scores = [[1, 0], [0, 0], [1, 1], [0.5, 0]]
    assert passk.metrics_by_source(scores, ["aime", "amc", "aime", ""]) == pytest.approx(
        {
            "eval/aime/avg@2": 0.75,
            "eval/aime/avg@2_stderr": 0.25,
            "eval/aime/pass@2": 1.0,
            "eval/amc/avg@2": 0.0,
            "eval/amc/pass@2": 0.0,
            "eval/unnamed/avg@2": 0.25,
            "eval/unnamed/pass@2": 0.0,  # half right is not right
        }
    )
    assert passk.metrics_by_source(scores, ["aime"] * 4) == {}


def test_by_source_finds_what_one_metric_is_in_each():
    names = ["eval/avg@2", "eval/a/b/avg@2", "eval/a/b/avg@2_stderr", "eval/c/avg@2", "eval/c/avg@22", "train/avg@2"]
    assert passk.by_source("eval/avg@2", names) == {"a/b": "eval/a/b/avg@2", "c": "eval/c/avg@2"}
