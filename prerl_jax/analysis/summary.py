"""The table at the end of a run: the evaluations of the base model and of the model at the end of each phase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from prerl_jax.analysis.passk import by_source, largest_k
from prerl_jax.analysis.thought_patterns import METRICS

Row = dict[str, Any]
"""{"at": "base" or the name of the phase, "step": the step, metric name: value, ...}."""


def summary_rows(
    records: Sequence[dict[str, Any]],
    ended: Mapping[str, str] | None = None,
    warned: Mapping[str, Sequence[str]] | None = None,
) -> list[Row]:
    """Makes the rows of the table.

    Args:
      records: the lines of metrics.jsonl.
      ended: phase -> the reason for which a guard has ended it.
      warned: phase -> warnings, of guards and of what shows that it did not learn.

    Returns:
      One row for the base model and one for each phase with an evaluation, in the order of their steps. A row holds the
      `eval/` metrics of the last evaluation of the phase, its last `alignment/` metrics, and "ended" and "warned" if
      there are any. If a changed config goes back to a phase, the phase still has one row.
    """
    events = {"ended": ended or {}, "warned": warned or {}}
    rows: list[Row] = []
    phases: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        phases.setdefault(record["phase"], []).append(record)
    for phase, members in phases.items():
        row: Row = {"at": phase}
        evaluated = False
        for record in members:
            if any(name.startswith("eval/") for name in record):
                row = {name: value for name, value in row.items() if not name.startswith("eval/")}
                row |= {name: value for name, value in record.items() if name.startswith("eval/")}
                row["step"] = record["step"]
                evaluated = True
            row |= {name: value for name, value in record.items() if name.startswith("alignment/")}
        row |= {name: of[phase] for name, of in events.items() if phase in of}
        if evaluated:
            rows.append({"at": row.pop("at"), "step": row.pop("step"), **row})
    return sorted(rows, key=lambda row: row["step"])


def print_table(rows: Sequence[Row], console: Console | None = None) -> None:
    """Prints the rows as a table, and below it what ended phases and what was warned of.

    Missing values are shown as "-".

    A second table shows the thoughts per response, for the kinds that occur at all. If the problems have several
    sources, a third table shows the accuracy on each source.

    Args:
      rows: what `summary_rows` returns.
      console: where to print; standard output by default.
    """
    console = console or Console()
    names = list(dict.fromkeys(name for row in rows for name in row))
    average, passed = largest_k("avg", names), largest_k("pass", names)
    spread = "±" if console.encoding.startswith("utf") else "+-"
    accuracy_heading = f"accuracy\n{average.removeprefix('eval/')}" if average else "accuracy"
    passed_heading = passed.removeprefix("eval/") if passed else "pass@k"
    table = Table()
    table.add_column("at", overflow="fold")
    for heading in ("step", accuracy_heading, passed_heading, "reflections", "length", "alignment"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            str(row["at"]),
            str(row["step"]),
            _with_error(row, average, spread),
            _number(row.get(passed) if passed else None, 3),
            _number(row.get("eval/reflections"), 2),
            _number(row.get("eval/length"), 1),
            _number(row.get("alignment/objective"), 3),
        )
    console.print(table)
    if thoughts := [name for name in names if name.startswith(METRICS) and any(row.get(name) for row in rows)]:
        counted = {name.removeprefix(METRICS): [_number(row.get(name), 2) for row in rows] for name in thoughts}
        console.print(_by_row(rows, "thoughts per response", counted))
    if average and (sources := by_source(average, names)):
        on_each = {source: [_with_error(row, name, spread) for row in rows] for source, name in sources.items()}
        console.print(_by_row(rows, "accuracy on", on_each))
    for row in rows:
        said = [f"ended: {row['ended']}"] if "ended" in row else []
        for text in said + [f"warned: {one}" for one in row.get("warned", ())]:
            console.print(f"{row['at']} {text}", markup=False, highlight=False, soft_wrap=True)


def _by_row(rows: Sequence[Row], heading: str, lines: Mapping[str, Sequence[str]]) -> Table:
    """A table with a line for each name and a column for each row, since there are many names and few phases."""
    table = Table()
    table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_column(f"{row['at']}\nstep {row['step']}", justify="right", overflow="fold")
    for name, cells in lines.items():
        table.add_row(Text(name), *cells)
    return table


def _with_error(row: Row, name: str | None, spread: str) -> str:
    error = row.get(f"{name}_stderr")
    return _number(None if name is None else row.get(name), 3) + (
        "" if error is None else f" {spread} {_number(error, 3)}"
    )


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
