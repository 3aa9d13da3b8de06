"""Statistics over the seeds of a study: means with confidence intervals, paired differences, when a level is reached.

    mean -+ t(0.975, n - 1) * s / sqrt(n)         Student's t over n seeds, s their standard deviation (ddof 1)

A paired difference is that interval of the per-seed differences. The seeds are what varies: the base model and the
evaluation's problems and samples are the same in all of them, and no interval speaks for others.

A run's curve is a metric at the steps where it was measured, with the compute spent up to there, the sum of
`train/flops`. Between measurements curves are straight lines.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import stdtrit

CONFIDENCE = 0.95

Record = dict[str, Any]
"""A line of metrics.jsonl."""


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean over seeds and its confidence interval; NaN bounds for a single seed, and all NaN for none."""

    mean: float
    low: float
    high: float
    count: int


def interval(values: Iterable[float]) -> Interval:
    """The interval of the values of several seeds; a NaN or an infinity among them is an error, ValueError."""
    values = np.fromiter(values, np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"an interval needs finite values, got {values.tolist()}")
    if values.size == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    mean = float(values.mean())
    if values.size == 1:
        return Interval(mean, math.nan, math.nan, 1)
    t = stdtrit(values.size - 1, (1 + CONFIDENCE) / 2)
    half = float(t * values.std(ddof=1) / math.sqrt(values.size))
    return Interval(mean, mean - half, mean + half, values.size)


def paired(values: Mapping[int, float], baseline: Mapping[int, float]) -> Interval:
    """The interval of `values - baseline` over the seeds that have both."""
    return interval(values[seed] - baseline[seed] for seed in values if seed in baseline)


@dataclasses.dataclass(frozen=True)
class Curve:
    """A metric of one run where it was measured: f64[n] each, in the order of steps.

    Attributes:
      steps: rollout batches done.
      compute: FLOPs spent up to there.
      values: of the metric.
    """

    steps: np.ndarray
    compute: np.ndarray
    values: np.ndarray

    def at_step(self, step: float) -> float:
        """The value at a step; NaN outside the steps that were measured."""
        return _at(self.steps, self.values, step)

    def at_compute(self, compute: float) -> float:
        """The value once so many FLOPs are spent; NaN outside what was measured."""
        return _at(self.compute, self.values, compute)

    def spent_at(self, step: float) -> float:
        """FLOPs spent up to a step; NaN outside the steps that were measured."""
        return _at(self.steps, self.compute, step)

    def steps_to(self, level: float) -> float:
        """Steps until the metric first is at `level`; infinity if it never is."""
        return _reach(self.steps, self.values, level)

    def compute_to(self, level: float) -> float:
        """FLOPs until the metric first is at `level`; infinity if it never is."""
        return _reach(self.compute, self.values, level)


def curve(records: Sequence[Record], metric: str) -> Curve:
    """The curve of a metric of one run; ValueError if no line has it.

    A line without `train/flops` spends nothing: that of the base model's evaluation.
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
    """{phase: the interval over seeds of each run's mean over the phase's lines}, where every run has some."""
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
