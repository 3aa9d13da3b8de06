"""Statistics over the seeds of a study: means with confidence intervals, paired differences, steps to reach a level.

    mean -+ t(0.975, n - 1) * s / sqrt(n)         Student's t over n seeds, s their standard deviation (ddof 1)

A paired difference is this interval of the per-seed differences. Only the seeds vary: the base model and the problems
and samples of the evaluation are the same for all seeds, and an interval says nothing about others.

The curve of a run is a metric at the steps where it was measured, with the compute spent so far, which is the sum of
`train/flops`. Between measurements a curve is interpolated linearly.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import stdtrit

CONFIDENCE = 0.95
"""The confidence of all intervals."""

Record = dict[str, Any]
"""A line of metrics.jsonl."""


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean over seeds and its confidence interval.

    Attributes:
      mean: the mean; NaN without a seed.
      low: the lower end of the interval; NaN for fewer than two seeds.
      high: the upper end of the interval; NaN for fewer than two seeds.
      count: how many seeds there are.
    """

    mean: float
    low: float
    high: float
    count: int


def interval(values: Iterable[float]) -> Interval:
    """Computes the mean and its confidence interval.

    Args:
      values: one finite value for each seed.

    Raises:
      ValueError: a value is NaN or infinite.
    """
    found = np.fromiter(values, np.float64)
    if not np.isfinite(found).all():
        raise ValueError(f"an interval needs finite values, got {found.tolist()}")
    if found.size == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    mean = float(found.mean())
    if found.size == 1:
        return Interval(mean, math.nan, math.nan, 1)
    t = stdtrit(found.size - 1, (1 + CONFIDENCE) / 2)
    half = float(t * found.std(ddof=1) / math.sqrt(found.size))
    return Interval(mean, mean - half, mean + half, found.size)


def paired(values: Mapping[int, float], baseline: Mapping[int, float]) -> Interval:
    """Computes the interval of the paired differences `values - baseline`.

    Args:
      values: seed -> value.
      baseline: seed -> value. Seeds that only one of the two has are left out.

    Raises:
      ValueError: a difference is NaN or infinite.
    """
    return interval(values[seed] - baseline[seed] for seed in values if seed in baseline)


@dataclasses.dataclass(frozen=True)
class Curve:
    """A metric of one run at the n steps where it was measured, in the order of steps.

    Attributes:
      steps: f64[n], the steps.
      compute: f64[n], the FLOPs spent up to each step.
      values: f64[n], the values of the metric.
    """

    steps: np.ndarray
    compute: np.ndarray
    values: np.ndarray

    def at_step(self, step: float) -> float:
        """The metric at a step; NaN before the first or after the last measurement."""
        return _at(self.steps, self.values, step)

    def at_compute(self, compute: float) -> float:
        """The metric once `compute` FLOPs are spent; NaN before the first or after the last measurement."""
        return _at(self.compute, self.values, compute)

    def spent_at(self, step: float) -> float:
        """The FLOPs spent up to a step; NaN before the first or after the last measurement."""
        return _at(self.steps, self.compute, step)

    def steps_to(self, level: float) -> float:
        """The steps until the metric first reaches `level`; infinity if it never does."""
        return _reach(self.steps, self.values, level)

    def compute_to(self, level: float) -> float:
        """The FLOPs until the metric first reaches `level`; infinity if it never does."""
        return _reach(self.compute, self.values, level)


def curve(records: Sequence[Record], metric: str) -> Curve:
    """Computes the curve of a metric of one run.

    Args:
      records: the lines of metrics.jsonl. A line without `train/flops`, such as that of the base model's evaluation,
        spends no compute.
      metric: the name of the metric.

    Raises:
      ValueError: no line has the metric.
    """
    records = sorted(records, key=lambda record: record["step"])
    spent = np.cumsum([record.get("train/flops") or 0.0 for record in records])
    have = [i for i, record in enumerate(records) if record.get(metric) is not None]
    if not have:
        raise ValueError(f"none of the {len(records)} lines has {metric}")
    return Curve(
        np.array([records[i]["step"] for i in have], np.float64),
        spent[have],
        np.array([records[i][metric] for i in have], np.float64),
    )


def phase_means(runs: Mapping[int, Sequence[Record]], metric: str) -> dict[str, Interval]:
    """Averages a metric over each phase.

    Args:
      runs: seed -> the lines of metrics.jsonl.
      metric: the name of the metric.

    Returns:
      {phase: the interval, over seeds, of the mean over the phase's lines}. Phases in which a run has no such line are
      left out.
    """
    found: dict[str, dict[int, list[float]]] = {}
    for seed, records in runs.items():
        for record in records:
            if record.get(metric) is not None:
                found.setdefault(record["phase"], {}).setdefault(seed, []).append(record[metric])
    full = {phase: seeds for phase, seeds in found.items() if len(seeds) == len(runs)}
    return {phase: interval(float(np.mean(values)) for values in seeds.values()) for phase, seeds in full.items()}


def _at(places: np.ndarray, values: np.ndarray, place: float) -> float:
    return float(np.interp(place, places, values, left=math.nan, right=math.nan))


def _reach(places: np.ndarray, values: np.ndarray, level: float) -> float:
    above = np.flatnonzero(values >= level)
    if above.size == 0:
        return math.inf
    i = above[0]
    if i == 0:
        return float(places[0])
    share = (level - values[i - 1]) / (values[i] - values[i - 1])
    return float(places[i - 1] + share * (places[i] - places[i - 1]))
