"""Draws curves.png: a run's metrics against its steps, one panel for each quantity, with the boundaries of phases.

Records are the lines of metrics.jsonl: `step`, `phase`, then the metrics by name. A panel is left out if no record has
its metrics. Drawing uses `matplotlib.figure.Figure` alone, so it selects no backend and leaves pyplot's global state
alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from prerl_jax.analysis.passk import largest_k

Record = dict[str, Any]
"""A line of metrics.jsonl."""
Series = tuple[list[float], list[float], list[float]]
"""(steps, values, standard errors)."""

PANELS = (
    ("Accuracy", "share right", {"train/accuracy": "training samples", "eval/avg": "evaluation, {}"}),
    ("Reward", "mean reward", {"train/reward": "training samples"}),
    ("Response length", "tokens", {"train/length": "training samples"}),
    ("Entropy", "nats per token", {"train/entropy": "training samples"}),
    ("Reflections", "markers per response", {"eval/reflections": "evaluation"}),
    (
        "Gradient alignment of P(y) and P(y|x)",
        "cosine",
        {"alignment/objective": "objective", "alignment/logprob": "mean log-probability"},
    ),
)
"""(title, label of the y axis, {metric: its name in the legend}). "eval/avg" means eval/avg@k with the largest k."""

COLOURS = {"train": "#7a9cc6", "eval": "#d1495b", "alignment/objective": "#2a7f62", "alignment/logprob": "#b08b2e"}
INK, FAINT = "#333333", "#d9d9d9"
COLUMNS = 3
PHASE_FONT = 8


def draw(records: Sequence[Record], path: str | Path) -> None:
    """Draws the curves of a run into a file.

    Args:
      records: the lines of metrics.jsonl.
      path: the file to write; its suffix decides the format.

    Raises:
      ValueError: no record has a metric that is drawn.
    """
    figure(records).savefig(path, dpi=150)


def figure(records: Sequence[Record]) -> Figure:
    """Draws the curves of a run.

    Args:
      records: the lines of metrics.jsonl.

    Returns:
      A figure with one axes for each panel.

    Raises:
      ValueError: no record has a metric that is drawn.
    """
    records = sorted(records, key=lambda record: record["step"])
    panels = [(title, label, lines) for title, label, metrics in PANELS if (lines := _lines(records, metrics))]
    if not panels:
        names = ", ".join(metric for panel in PANELS for metric in panel[2])
        raise ValueError(f"nothing to draw: none of the {len(records)} records has any of {names}")
    columns = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    picture = new_figure(4.6 * columns + 0.4, 3.1 * rows + 0.2, padding=0.1)
    spans = phase_spans(records)
    axes: Axes | None = None
    for i, (title, label, lines) in enumerate(panels):
        axes = picture.add_subplot(rows, columns, i + 1, sharex=axes)
        _draw_lines(axes, lines)
        height = _draw_phases(axes, spans)
        style_axes(axes, title, label, pad=8 + height)
        axes.locator_params(axis="x", integer=True)
        axes.margins(x=0.02, y=0.12)
        if i + columns >= len(panels):
            axes.set_xlabel("step", fontsize=9, color=INK)
        else:
            axes.tick_params(labelbottom=False)
    picture.align_ylabels()
    return picture


def series(records: Sequence[Record], metric: str) -> Series:
    """The values of a metric.

    Args:
      records: the lines of metrics.jsonl, in the order of steps.
      metric: the name of the metric.

    Returns:
      (steps, values, standard errors) of the records with a finite value; the error is 0 if a record has none.
    """
    found = [record for record in records if record.get(metric) is not None and math.isfinite(record[metric])]
    errors = [record.get(f"{metric}_stderr") or 0.0 for record in found]
    return [record["step"] for record in found], [record[metric] for record in found], errors


def phase_spans(records: Sequence[Record]) -> list[tuple[str, int, int]]:
    """The spans of the phases.

    Args:
      records: the lines of metrics.jsonl, in the order of steps.

    Returns:
      [(phase, first step, last step)]. A phase begins at the last step of the phase before it. The first phase begins
      at the first record, which may be the evaluation of the base model (phase "base", step 0).
    """
    spans: list[tuple[str, int, int]] = []
    for phase, members in itertools.groupby(records, key=lambda record: record["phase"]):
        end = max(record["step"] for record in members)
        if phase != "base":
            spans.append((phase, spans[-1][2] if spans else records[0]["step"], end))
    return spans


def _lines(records: Sequence[Record], metrics: dict[str, str]) -> list[tuple[str, str, Series]]:
    """[(metric, its name in the legend, series)] of the metrics that any record has."""
    lines = []
    for metric, name in metrics.items():
        if metric == "eval/avg":
            metric = largest_k("avg", (key for record in records for key in record)) or metric
            name = name.format(metric.removeprefix("eval/"))
        if (points := series(records, metric))[0]:
            lines.append((metric, name, points))
    return lines


def _draw_lines(axes: Axes, lines: list[tuple[str, str, Series]]) -> None:
    for metric, name, (steps, values, errors) in lines:
        colour = COLOURS.get(metric) or COLOURS[metric.split("/")[0]]
        if any(errors):
            axes.errorbar(steps, values, errors, color=colour, linewidth=0, elinewidth=1.2, capsize=2.5, zorder=2.5)
        if metric.startswith("train/") and len(steps) > 1:
            style: dict[str, Any] = {"linewidth": 1.4 if len(steps) <= 100 else 0.9}
        else:
            style = {"linewidth": 1.8, "marker": "o", "markersize": 4.5 if len(steps) <= 40 else 2.5}
        axes.plot(steps, values, color=colour, label=name, zorder=3, **style)
    if len(lines) > 1:
        axes.legend(fontsize=8, frameon=False)


def _draw_phases(axes: Axes, spans: list[tuple[str, int, int]]) -> float:
    """Draws the boundaries of phases, and their names above the panel; returns the height of the names, in points."""
    points_per_step = 280 / max(1, spans[-1][2] - spans[0][1]) if spans else 0.0
    ends: list[float] = []  # for each line of names, where its last name ends
    lines = []
    for phase, start, _ in spans:
        left = start * points_per_step
        line = next((line for line, end in enumerate(ends) if end <= left), len(ends))
        ends[line : line + 1] = [left + 0.7 * PHASE_FONT * len(phase)]
        lines.append(line)
    height = PHASE_FONT + 2.0
    for i, ((phase, start, _), line) in enumerate(zip(spans, lines, strict=True)):
        if i > 0:
            axes.axvline(start, color="#777777", linestyle=(0, (4, 3)), linewidth=1.0, zorder=2)
        offset = (2, 4 + (len(ends) - 1 - line) * height)
        place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "xytext": offset, "textcoords": "offset points"}
        axes.annotate(phase, (start, 1.0), fontsize=PHASE_FONT, color="#777777", **place)
    return len(ends) * height


def new_figure(width: float, height: float, padding: float) -> Figure:
    """Makes an empty figure with a constrained layout.

    Args:
      width: in inches.
      height: in inches.
      padding: around each panel, in inches.
    """
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=padding, h_pad=padding))


def style_axes(axes: Axes, title: str, label: str, pad: float | None = None) -> None:
    """Sets the title, the label of the y axis, the grid and the frame of a panel.

    Args:
      axes: the panel.
      title: its title.
      label: the label of its y axis.
      pad: the distance between panel and title, in points; Matplotlib's own by default.
    """
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK, pad=pad)
    axes.set_ylabel(label, fontsize=9, color=INK)
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.tick_params(labelsize=9, color="#999999", labelcolor=INK)
