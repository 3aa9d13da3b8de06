"""The tables of a study: what table.json holds, and table.md says in words and numbers.

An arm's runs are {seed: the lines of its metrics.jsonl}. Against its baseline an arm is compared seed by seed: after
as many steps as the shorter of the two runs has, and once both have spent the FLOPs of the one that spent less.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from prerl_jax.analysis.passk import by_k, widest
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
"""Of one arm: {seed: lines}."""
Table = dict[str, Any]

NOTE = """Means over seeds with {confidence:.0%} confidence intervals (Student's t). Differences are paired: the same
seeds of both arms. Compute is model FLOPs of sampling and training; evaluations and measurements are not counted. Steps
and compute to an accuracy are interpolated between evaluations, and left out where not every seed gets there."""


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
    """What table.json holds: nested dicts of numbers; intervals are {"mean", "low", "high", "count"}.

    Args:
      name: of the study.
      arms: {name: runs}; arms without a finished run have none, and get no row.
      accuracy: the metric that is compared.
      targets: accuracies to be reached.
      baselines: {arm: the arm that it is compared with}.
      watched: further metrics, averaged over each phase.
      guards: {arm: {seed: what guards did in the run, in words}}, where there is anything to say.

    Raises ValueError where a run has no such metric.
    """
    arms = {arm: runs for arm, runs in arms.items() if runs}
    curves = {arm: {seed: curve(records, accuracy) for seed, records in runs.items()} for arm, runs in arms.items()}
    rows = {}
    for arm, runs in arms.items():
        row = {
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


def final(records: Sequence[Record]) -> dict[str, float]:
    """The metrics of a run's last evaluation."""
    last = max(_evaluated(records), key=lambda record: record["step"])
    named = {name: value for name, value in last.items() if name.startswith("eval/")}
    return {name: value for name, value in named.items() if value is not None and not name.endswith("_stderr")}


def _last(runs: Runs) -> dict[str, dict[str, float]]:
    """{metric: interval} of the last evaluations."""
    ends = [final(records) for records in runs.values()]
    names = [name for name in ends[0] if all(name in end for end in ends)]
    return {name: _interval(interval(end[name] for end in ends)) for name in names}


def _phases(runs: Runs, accuracy: str) -> dict[str, Table]:
    """{phase: the step and the accuracy at its end}, of the phases that every run has an evaluation of."""
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
    """How many seeds get there, and the steps and the compute that all of them take, if all do."""
    steps = [c.steps_to(target) for c in curves.values()]
    reached: Table = {"reached": sum(map(math.isfinite, steps)), "seeds": len(steps)}
    if reached["reached"] == len(steps):
        reached["steps"] = _interval(interval(steps))
        reached["compute"] = _interval(interval(c.compute_to(target) for c in curves.values()))
    return reached


def _against(
    runs: tuple[Runs, Runs], curves: tuple[Mapping[int, Curve], Mapping[int, Curve]], targets: Sequence[float]
) -> Table:
    """Paired differences to the baseline, the second of each pair."""
    mine, theirs = curves
    seeds = [seed for seed in mine if seed in theirs]

    def difference(measure, *places: Any) -> dict[str, float]:
        return _interval(paired(*({seed: measure(c[seed], seed, *places) for seed in seeds} for c in curves)))

    steps = {seed: min(mine[seed].steps[-1], theirs[seed].steps[-1]) for seed in seeds}
    spent = {seed: min(mine[seed].compute[-1], theirs[seed].compute[-1]) for seed in seeds}
    ends = [{seed: final(run[seed]) for seed in seeds} for run in runs]
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


# --- Markdown


def markdown(table: Table) -> str:
    """table.md of a study's table."""
    parts = [f"# {table['study']}", NOTE.format(confidence=table["confidence"]), "## At the end", _ends(table)]
    if any("against" in row for row in table["arms"].values()):
        parts += ["## Against the baseline", _differences(table)]
    if table["targets"]:
        parts += ["## Reaching an accuracy", _reaching(table)]
    parts += ["## At the end of each phase", _by_phase(table)]
    if any(row["watched"] for row in table["arms"].values()):
        parts += ["## Means over each phase", _watched(table)]
    if any(row["guards"] for row in table["arms"].values()):
        parts += ["## Guards", _guards(table)]
    return "\n\n".join(parts) + "\n"


def _ends(table: Table) -> str:
    accuracy = table["accuracy"]
    names = [name for row in table["arms"].values() for name in row["end"]]
    passed = widest("pass", names)
    rows = [["arm", "seeds", "steps", f"accuracy ({_short(accuracy)})", "best on the way", _short(passed or "pass@k")]]
    rows[0] += ["reflections", "length", "compute"]
    for arm, row in table["arms"].items():
        end = row["end"]
        cells = [arm, str(len(row["seeds"])), f"{row['steps']['mean']:.0f}", text(end.get(accuracy)), text(row["best"])]
        cells += [text(end.get(passed)), text(end.get("eval/reflections"), 2), text(end.get("eval/length"), 1)]
        rows.append([*cells, flops(row["compute"]["mean"])])
    return grid(rows)


def _differences(table: Table) -> str:
    ends = [row["against"]["end"] for row in table["arms"].values() if "against" in row]
    passed = by_k("pass", (name for end in ends for name in end))
    names = [*(name for k, name in passed.items() if k > 1), "eval/reflections"]
    rows = [["arm", "baseline", "accuracy, equal steps", "accuracy, equal compute", *map(_short, names)]]
    for arm, row in table["arms"].items():
        if (against := row.get("against")) is not None:
            cells = [text(against[name], sign=True) for name in ("equal_steps", "equal_compute")]
            rows.append([arm, against["baseline"], *cells, *(text(against["end"].get(n), sign=True) for n in names)])
    return grid(rows)


def _reaching(table: Table) -> str:
    rows = [["arm"]]
    for target in table["targets"]:
        rows[0] += [f"steps to {target:g}", f"compute to {target:g}"]
    for arm, row in table["arms"].items():
        cells = []
        for target in table["targets"]:
            reach = row["reach"][f"{target:g}"]
            if "steps" in reach:
                cells += [text(reach["steps"], 1), flops(reach["compute"]["mean"])]
            else:
                cells += [f"{reach['reached']} of {reach['seeds']} seeds", "-"]
        rows.append([arm, *cells])
    return grid(rows)


def _by_phase(table: Table) -> str:
    rows = [["arm", "phase", "step", "accuracy"]]
    for arm, row in table["arms"].items():
        for phase, end in row["phases"].items():
            rows.append([arm, phase, f"{end['step']['mean']:.0f}", text(end["accuracy"])])
    return grid(rows)


def _watched(table: Table) -> str:
    names = list(dict.fromkeys(metric for row in table["arms"].values() for metric in row["watched"]))
    rows = [["arm", "phase", *names]]
    for arm, row in table["arms"].items():
        for phase in dict.fromkeys(phase for of in row["watched"].values() for phase in of):
            rows.append([arm, phase, *(text(row["watched"][name].get(phase)) for name in names)])
    return grid(rows)


def _guards(table: Table) -> str:
    rows = [["arm", "seed", "what guards did"]]
    for arm, row in table["arms"].items():
        rows += [[arm, seed, said] for seed, what in row["guards"].items() for said in what]
    return grid(rows)


def text(found: Mapping[str, float] | None, digits: int = 3, sign: bool = False) -> str:
    """An interval in words, "0.866 [0.860, 0.872]"; "-" without one."""
    if found is None or math.isnan(found["mean"]):
        return "-"
    form = f"{'+' if sign else ''}.{digits}f"
    if math.isnan(found["low"]):
        return f"{found['mean']:{form}}"
    return f"{found['mean']:{form}} [{found['low']:{form}}, {found['high']:{form}}]"


def flops(value: float) -> str:
    """FLOPs with three digits and a prefix, "12.3 G"."""
    power = min(max(int(math.log10(value) // 3), 0), 7) if value > 0 else 0
    return f"{value / 1000**power:.3g} {' kMGTPEZ'[power]}".strip()


def _short(name: str) -> str:
    return name.removeprefix("eval/")


def grid(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its head."""
    head, *rest = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, "|---" * len(rows[0]) + "|", *rest])
