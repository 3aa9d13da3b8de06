"""The statistics of a study against numbers worked out by hand."""

import math

import numpy as np
import pytest

from prerl_jax.analysis.study_statistics import Curve, curve, interval, paired, phase_means

T4 = 2.7764451051977987
"""The 0.975 quantile of Student's t with four degrees of freedom, from a printed table."""


def test_an_interval_of_five_seeds():
    found = interval([1.0, 2.0, 3.0, 4.0, 5.0])  # s = sqrt(10 / 4)
    half = T4 * math.sqrt(2.5) / math.sqrt(5)
    assert (found.mean, found.count) == (3.0, 5)
    assert (found.low, found.high) == pytest.approx((3 - half, 3 + half), rel=1e-9)
    assert (found.high - found.low) / 2 == pytest.approx(half)


def test_an_interval_of_two_seeds():
    found = interval([0.0, 2.0])  # t(0.975, 1) = 12.7062, s / sqrt(2) = 1
    assert (found.low, found.high) == pytest.approx((1 - 12.7062, 1 + 12.7062), rel=1e-5)


def test_intervals_of_one_seed_and_of_none():
    assert interval([0.5]).mean == 0.5
    assert math.isnan(interval([0.5]).low)
    assert interval([]).count == 0
    assert math.isnan(interval([]).mean)
    with pytest.raises(ValueError, match="finite"):
        interval([1.0, math.inf])


def test_paired_differences_are_of_the_seeds_that_both_have():
    found = paired({0: 3.0, 1: 5.0, 7: 100.0}, {1: 1.0, 0: 1.0, 8: -100.0})  # 2 and 4
    assert (found.mean, found.count) == (3.0, 2)
    assert found.high == pytest.approx(3 + 12.7062, rel=1e-5)


RECORDS = [
    {"step": 0, "phase": "base", "eval/avg@8": 0.2},
    {"step": 3, "phase": "rl", "train/flops": 50.0, "eval/avg@8": 0.5},
    {"step": 1, "phase": "rl", "train/flops": 10.0},
    {"step": 2, "phase": "rl", "train/flops": 40.0, "eval/avg@8": 0.4},
]


def test_a_curve_has_the_compute_of_all_steps_up_to_its_points():
    found = curve(RECORDS, "eval/avg@8")
    assert found.steps.tolist() == [0, 2, 3]
    assert found.compute.tolist() == [0, 50, 100]
    assert found.values.tolist() == [0.2, 0.4, 0.5]
    with pytest.raises(ValueError, match="none of the 4 lines has eval/avg@2"):
        curve(RECORDS, "eval/avg@2")


def test_between_measurements_a_curve_is_straight():
    found = curve(RECORDS, "eval/avg@8")
    assert found.at_step(1) == pytest.approx(0.3)
    assert found.at_compute(75) == pytest.approx(0.45)
    assert found.spent_at(2.5) == 75
    assert math.isnan(found.at_step(4))
    assert math.isnan(found.at_compute(101))
    assert found.steps_to(0.45) == pytest.approx(2.5)
    assert found.compute_to(0.45) == pytest.approx(75)
    assert found.steps_to(0.2) == 0
    assert found.steps_to(0.6) == found.compute_to(0.6) == math.inf


def test_a_level_is_reached_the_first_time():
    found = Curve(np.arange(5.0), np.arange(5.0), np.array([0.1, 0.5, 0.0, 0.4, 0.8]))
    assert found.steps_to(0.3) == pytest.approx(0.5)
    assert found.steps_to(0.6) == pytest.approx(3.5)


def test_means_over_phases_are_of_what_every_run_has():
    runs = {
        0: [{"phase": "a", "m": 1.0}, {"phase": "a"}, {"phase": "a", "m": 2.0}, {"phase": "b", "m": 7.0}],
        1: [{"phase": "a", "m": 0.5}, {"phase": "b", "m": None}],
    }
    assert phase_means(runs, "m") == {"a": interval([1.5, 0.5])}
