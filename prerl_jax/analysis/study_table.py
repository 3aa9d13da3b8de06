"""The table of a study: the content of table.json.

An arm is compared with its baseline seed by seed: at equal steps, which are the steps of the shorter run, and at equal
compute, which are the FLOPs of the run that spent less.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prerl_jax.analysis.study_statistics import (
    CONFIDENCE,
    Curve,
    Interval,
    Record,
    curve,
    interval,
    paired,
    phase_means,
)

Runs = Mapping[int, Sequence[Record]]
"""The runs of one arm: {seed: the lines of metrics.jsonl}."""
Table = dict[str, Any]
"""Nested dicts of names and numbers, as table.json holds them."""


def study_table(
    name: str,
    arms: Mapping[str, Runs],
    *,
    accuracy: str,
    targets: Sequence[float],
    baselines: Mapping[str, str],
    watched: Sequence[str] = (),
    guards: Mapping[str, Mapping[int, Sequence[str]]] | None = None,
) -> Table:
    """Computes the content of table.json.

    Args:
      name: the name of the study.
      arms: {name of the arm: its finished runs}. An arm without a run gets no row.
      accuracy: the metric that is compared.
      targets: accuracies; the table says when an arm reaches them.
      baselines: {arm: the arm that it is compared with}.
      watched: more metrics, which are averaged over each phase.
      guards: {arm: {seed: sentences that say what guards did in the run}}.

    Returns:
      Nested dicts of numbers; an interval is {"mean", "low", "high", "count"}.

    Raises:
      ValueError: a run lacks the accuracy.
    """
    arms = {arm: runs for arm, runs in arms.items() if runs}
    curves = {arm: {seed: curve(records, accuracy) for seed, records in runs.items()} for arm, runs in arms.items()}
    rows = {}
    for arm, runs in arms.items():
        row: Table = {
            "seeds": sorted(runs),
            "steps": _interval(interval(c.steps[-1] for c in curves[arm].values())),
            "compute": _interval(interval(c.compute[-1] for c in curves[arm].values())),
            "accuracy_by_seed": {str(seed): float(c.values[-1]) for seed, c in sorted(curves[arm].items())},
            "best": _interval(interval(c.values.max() for c in curves[arm].values())),
            "end": _last(runs),
            "phases": _phases(runs, accuracy),
            "reach": {f"{target:g}": _reach(curves[arm], target) for target in targets},
            "watched": {metric: _by_name(phase_means(runs, metric)) for metric in watched},
            "guards": {str(seed): list(said) for seed, said in sorted((guards or {}).get(arm, {}).items()) if said},
        }
        baseline = baselines.get(arm)
        if baseline in curves:
            row["against"] = {"baseline": baseline} | _against(
                (runs, arms[baseline]), (curves[arm], curves[baseline]), targets
            )
        rows[arm] = row
    return {"study": name, "accuracy": accuracy, "confidence": CONFIDENCE, "targets": list(targets), "arms": rows}


def _interval(value: Interval) -> dict[str, float]:
    return dataclasses.asdict(value)


def _by_name(found: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
    return {name: _interval(value) for name, value in found.items()}


def _evaluated(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if any(name.startswith("eval/") for name in record)]


def last_evaluation(records: Sequence[Record]) -> dict[str, float]:
    """The metrics of a run's last evaluation, without standard errors.

    Args:
      records: the lines of metrics.jsonl; at least one is an evaluation.

    Returns:
      {name of an `eval/` metric: value}.
    """
    last = max(_evaluated(records), key=lambda record: record["step"])
    named = {name: value for name, value in last.items() if name.startswith("eval/")}
    return {name: value for name, value in named.items() if value is not None and not name.endswith("_stderr")}


def _last(runs: Runs) -> dict[str, dict[str, float]]:
    """{metric: interval} of the last evaluations."""
    ends = [last_evaluation(records) for records in runs.values()]
    names = [name for name in ends[0] if all(name in end for end in ends)]
    return {name: _interval(interval(end[name] for end in ends)) for name in names}


def _phases(runs: Runs, accuracy: str) -> dict[str, Table]:
    """{phase: step and accuracy of its last evaluation}, for the phases in which every run has an evaluation."""
    ends: dict[str, dict[int, Record]] = {}
    for seed, records in runs.items():
        for record in sorted(_evaluated(records), key=lambda record: record["step"]):
            ends.setdefault(record["phase"], {})[seed] = record
    return {
        phase: {
            "step": _interval(interval(record["step"] for record in found.values())),
            "accuracy": _interval(interval(record[accuracy] for record in found.values())),
        }
        for phase, found in ends.items()
        if len(found) == len(runs)
    }


def _reach(curves: Mapping[int, Curve], target: float) -> Table:
    """How many seeds reach the target; if all do, the steps and the compute that they take."""
    steps = [c.steps_to(target) for c in curves.values()]
    reached: Table = {"reached": sum(map(math.isfinite, steps)), "seeds": len(steps)}
    if reached["reached"] == len(steps):
        reached["steps"] = _interval(interval(steps))
        reached["compute"] = _interval(interval(c.compute_to(target) for c in curves.values()))
    return reached


def _against(
    runs: tuple[Runs, Runs], curves: tuple[Mapping[int, Curve], Mapping[int, Curve]], targets: Sequence[float]
) -> Table:
    """Paired differences between an arm and its baseline, the second of each pair."""
    mine, theirs = curves
    seeds = [seed for seed in mine if seed in theirs]

    def difference(measure: Callable[..., float], *places: Any) -> dict[str, float]:
        return _interval(paired(*({seed: measure(c[seed], seed, *places) for seed in seeds} for c in curves)))

    steps = {seed: min(mine[seed].steps[-1], theirs[seed].steps[-1]) for seed in seeds}
    spent = {seed: min(mine[seed].compute[-1], theirs[seed].compute[-1]) for seed in seeds}
    ends = [{seed: last_evaluation(run[seed]) for seed in seeds} for run in runs]
    names = [n for n in next(iter(ends[0].values()), {}) if all(n in end for side in ends for end in side.values())]
    found: Table = {
        "equal_steps": difference(lambda c, seed: c.at_step(steps[seed])),
        "equal_compute": difference(lambda c, seed: c.at_compute(spent[seed])),
        "end": {n: _interval(paired(*({seed: end[n] for seed, end in side.items()} for side in ends))) for n in names},
        "reach": {},
    }
    for target in targets:
        if all(math.isfinite(c[seed].steps_to(target)) for c in curves for seed in seeds):
            found["reach"][f"{target:g}"] = {
                "steps": difference(lambda c, _, level: c.steps_to(level), target),
                "compute": difference(lambda c, _, level: c.compute_to(level), target),
            }
    return found
