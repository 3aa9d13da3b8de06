"""The table a run ends with: the base model, then the model at the end of each phase, by the same evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from prerl_jax.analysis.passk import by_source, widest
from prerl_jax.analysis.thought_patterns import METRICS

Row = dict[str, Any]
"""{"at": "base" or the phase's name, "step": n, then metric names: `eval/...`, `alignment/...`}."""


def summary_rows(
    records: Sequence[dict[str, Any]],
    ended: Mapping[str, str] | None = None,
    warned: Mapping[str, Sequence[str]] | None = None,
) -> list[Row]:
    """One row for the base and one for each phase, in order, from the records of metrics.jsonl.

    A phase's row holds the metrics of its last evaluation, which stands under the name of the phase that led up to it,
    and its last `alignment/` measurement. A phase without an evaluation has no row. Rows are in the order of their
    steps; a phase that a changed config went back to has one row, too.

    `ended` and `warned` say by phase what a guard has ended it for, and what guards have warned of: the row's "ended"
    and "warned".
    """
    events = {"ended": ended or {}, "warned": warned or {}}
    rows, phases = [], {}
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
    """Prints the rows as a table, and below it what guards did; what a row lacks is shown as "-".

    A second table has the thoughts per response, of the kinds that any row has any of; problems of several sources get
    one of the accuracy on each.
    """
    console = console or Console()
    names = list(dict.fromkeys(name for row in rows for name in row))
    average, passed = widest("avg", names), widest("pass", names)
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
            _number(row.get(passed), 3),
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
    """A line for each name, with its cells, one for each of the rows: names may be many, phases are few."""
    table = Table()
    table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_column(f"{row['at']}\nstep {row['step']}", justify="right", overflow="fold")
    for name, cells in lines.items():
        table.add_row(Text(name), *cells)
    return table


def _with_error(row: Row, name: str | None, spread: str) -> str:
    error = row.get(f"{name}_stderr")
    return _number(row.get(name), 3) + ("" if error is None else f" {spread} {_number(error, 3)}")


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
