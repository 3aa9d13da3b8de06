"""Figures of a study: each arm's metrics, as the mean over seeds with a band for the confidence interval.

Accuracy is drawn against steps and against compute. Boundaries of phases are dashed lines in the colour of their arm.
As in `curves`, drawing uses `matplotlib.figure.Figure` alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prerl_jax.analysis.curves import INK, new_figure, phase_spans, style_axes
from prerl_jax.analysis.passk import by_k
from prerl_jax.analysis.study_statistics import Interval, curve, interval
from prerl_jax.analysis.study_table import Runs, last_evaluation

COLOURS = (
    *("#d1495b", "#2f6f9f", "#2a7f62", "#e39a2d", "#7d5ba6", "#4fb0ae", "#8c564b"),
    *("#c774b2", "#5b6770", "#a3b535", "#1f1f1f", "#6f9ceb", "#e58f65", "#9b8f4c"),
)
"""One for each arm. If there are more arms than colours, the colours repeat with broken lines."""
STYLES = ("-", (0, (5, 1.5)), (0, (1, 1)))
"""The line styles, for each repetition of the colours."""
PANELS = (
    ("Entropy of the sampled responses", "nats per token", "train/sampler_logprob", -1.0),
    ("Response length", "tokens", "train/length", 1.0),
    ("Reflections", "markers per response", "eval/reflections", 1.0),
)
"""(title, label of the y axis, metric, factor).

Minus the sampler's mean log-probability of the sampled tokens estimates the entropy of P(y|x), whatever space a phase
trains in.
"""


def study_figure(arms: Mapping[str, Runs], accuracy: str, colours: Mapping[str, int] | None = None) -> Figure:
    """Draws a few arms of a study.

    Args:
      arms: {name of the arm: {seed: the lines of its metrics.jsonl}}.
      accuracy: the metric of the first two panels.
      colours: {name of the arm: the number of its colour}, so that an arm looks the same in all figures of a study; by
        default the order of the arms.

    Returns:
      A figure with six panels.

    Raises:
      ValueError: an arm has no run, or a run has no accuracy.
    """
    if empty := [name for name, runs in arms.items() if not runs]:
        raise ValueError(f"arms {empty} have no finished run to draw")
    numbers = colours or {name: i for i, name in enumerate(arms)}
    styles: dict[str, dict[str, Any]] = {
        name: {"color": COLOURS[numbers[name] % len(COLOURS)], "linestyle": STYLES[numbers[name] // len(COLOURS) % 3]}
        for name in arms
    }
    picture = new_figure(14.0, 7.4, padding=0.1)
    axes = picture.subplots(2, 3).ravel()
    short = accuracy.removeprefix("eval/")
    for name, runs in arms.items():
        steps, compute, means = _mean_curve(runs, accuracy)
        _band(axes[0], steps, means, styles[name], name, most=1.0)
        _band(axes[1], compute / 1e9, means, styles[name], name, most=1.0)
        _passes(axes[2], runs, styles[name])
        for panel, (*_, metric, factor) in zip(axes[3:], PANELS, strict=True):
            if all(any(record.get(metric) is not None for record in records) for records in runs.values()):
                steps, _, means = _mean_curve(runs, metric, factor)
                _band(panel, steps, means, styles[name], name)
        for panel in (axes[0], *axes[3:]):
            _boundaries(panel, runs, styles[name]["color"])
    titles = [("Accuracy against steps", short), ("Accuracy against compute", short), ("pass@k at the end", "pass@k")]
    titles += [(title, label) for title, label, *_ in PANELS]
    below = ("step", "GFLOPs of sampling and training", "k", *("step" for _ in PANELS))
    for panel, words, under in zip(axes, titles, below, strict=True):
        style_axes(panel, *words)
        panel.set_xlabel(under, fontsize=9, color=INK)
        if under == "step":
            panel.locator_params(axis="x", integer=True)
    handles, names = axes[0].get_legend_handles_labels()
    columns = len(names) if len(names) <= 7 else -(-len(names) // 2)
    picture.legend(handles, names, loc="outside lower center", ncols=columns, fontsize=10, frameon=False)
    return picture


def _mean_curve(runs: Runs, metric: str, factor: float = 1.0) -> tuple[np.ndarray, np.ndarray, list[Interval]]:
    """(steps, mean compute, intervals over seeds), at the steps where every run has the metric."""
    curves = [curve(records, metric) for records in runs.values()]
    steps = sorted(set.intersection(*(set(c.steps) for c in curves)))
    compute = [np.mean([c.spent_at(step) for c in curves]) for step in steps]
    return np.array(steps), np.array(compute), [interval(factor * c.at_step(step) for c in curves) for step in steps]


def _band(
    axes: Axes, places: np.ndarray, means: Sequence[Interval], style: dict[str, Any], name: str, most: float = math.inf
) -> None:
    """Draws means as a line and their intervals, clipped to [0, `most`], as a band."""
    few = len(places) <= 25
    marks: dict[str, Any] = {"marker": "o", "markersize": 3.2} if few else {}
    axes.plot(places, [m.mean for m in means], label=name, linewidth=1.6 if few else 1.1, zorder=3, **style, **marks)
    low, high = _drawn(means, most)
    axes.fill_between(places, low, high, color=style["color"], alpha=0.15, linewidth=0, zorder=2)


def _passes(axes: Axes, runs: Runs, style: dict[str, Any]) -> None:
    """Draws pass@k of the last evaluations against k, with intervals as error bars."""
    ends = [last_evaluation(records) for records in runs.values()]
    passed = by_k("pass", (name for end in ends for name in end))
    ks, means = list(passed), [interval(end[name] for end in ends) for name in passed.values()]
    centres = [m.mean for m in means]
    low, high = _drawn(means, most=1.0)
    errors = [centres - low, high - centres] if len(ends) > 1 else None
    axes.errorbar(ks, centres, errors, linewidth=1.4, marker="o", markersize=3.2, capsize=2, **style)
    axes.set_xscale("log", base=2)
    axes.set_xticks(ks, [str(k) for k in ks])


def _drawn(means: Sequence[Interval], most: float) -> tuple[np.ndarray, np.ndarray]:
    """The ends of intervals, clipped to the range of the quantity, [0, `most`]; Student's t does not know the range."""
    return np.clip([m.low for m in means], 0.0, most), np.clip([m.high for m in means], 0.0, most)


def _boundaries(axes: Axes, runs: Runs, colour: str) -> None:
    """Draws a dashed line where the second phase and each later one begin, at the mean over seeds."""
    begins = [
        [start for _, start, _ in phase_spans(sorted(records, key=lambda r: r["step"]))[1:]]
        for records in runs.values()
    ]
    for starts in zip(*begins, strict=False):
        axes.axvline(np.mean(starts), color=colour, linestyle=(0, (4, 3)), linewidth=0.8, alpha=0.6, zorder=1)
