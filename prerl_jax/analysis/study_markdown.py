"""The content of table.md: the table of a study as text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from prerl_jax.analysis.passk import by_k, largest_k
from prerl_jax.analysis.study_table import Table

NOTE = """Means over seeds with {confidence:.0%} confidence intervals (Student's t). Differences are paired: the same
seeds of both arms. Compute is model FLOPs of sampling and training; evaluations and measurements are not counted. Steps
and compute to an accuracy are interpolated between evaluations, and left out if not every seed reaches it."""


def markdown(table: Table) -> str:
    """Writes a table as the content of table.md.

    Args:
      table: what `study_table` returns.
    """
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
    passed = largest_k("pass", names)
    rows = [["arm", "seeds", "steps", f"accuracy ({_short(accuracy)})", "best on the way", _short(passed or "pass@k")]]
    rows[0] += ["reflections", "length", "compute"]
    for arm, row in table["arms"].items():
        end = row["end"]
        cells = [
            arm,
            str(len(row["seeds"])),
            f"{row['steps']['mean']:.0f}",
            interval_text(end.get(accuracy)),
            interval_text(row["best"]),
        ]
        cells += [
            interval_text(end.get(passed)),
            interval_text(end.get("eval/reflections"), 2),
            interval_text(end.get("eval/length"), 1),
        ]
        rows.append([*cells, flops_text(row["compute"]["mean"])])
    return markdown_table(rows)


def _differences(table: Table) -> str:
    ends = [row["against"]["end"] for row in table["arms"].values() if "against" in row]
    passed = by_k("pass", (name for end in ends for name in end))
    names = [*(name for k, name in passed.items() if k > 1), "eval/reflections"]
    rows = [["arm", "baseline", "accuracy, equal steps", "accuracy, equal compute", *map(_short, names)]]
    for arm, row in table["arms"].items():
        if (against := row.get("against")) is not None:
            cells = [interval_text(against[name], sign=True) for name in ("equal_steps", "equal_compute")]
            rows.append(
                [arm, against["baseline"], *cells, *(interval_text(against["end"].get(n), sign=True) for n in names)]
            )
    return markdown_table(rows)


def _reaching(table: Table) -> str:
    rows = [["arm"]]
    for target in table["targets"]:
        rows[0] += [f"steps to {target:g}", f"compute to {target:g}"]
    for arm, row in table["arms"].items():
        cells = []
        for target in table["targets"]:
            reach = row["reach"][f"{target:g}"]
            if "steps" in reach:
                cells += [interval_text(reach["steps"], 1), flops_text(reach["compute"]["mean"])]
            else:
                cells += [f"{reach['reached']} of {reach['seeds']} seeds", "-"]
        rows.append([arm, *cells])
    return markdown_table(rows)


def _by_phase(table: Table) -> str:
    rows = [["arm", "phase", "step", "accuracy"]]
    for arm, row in table["arms"].items():
        for phase, end in row["phases"].items():
            rows.append([arm, phase, f"{end['step']['mean']:.0f}", interval_text(end["accuracy"])])
    return markdown_table(rows)


def _watched(table: Table) -> str:
    names = list(dict.fromkeys(metric for row in table["arms"].values() for metric in row["watched"]))
    rows = [["arm", "phase", *names]]
    for arm, row in table["arms"].items():
        for phase in dict.fromkeys(phase for of in row["watched"].values() for phase in of):
            rows.append([arm, phase, *(interval_text(row["watched"][name].get(phase)) for name in names)])
    return markdown_table(rows)


def _guards(table: Table) -> str:
    rows = [["arm", "seed", "what guards did"]]
    for arm, row in table["arms"].items():
        rows += [[arm, seed, said] for seed, what in row["guards"].items() for said in what]
    return markdown_table(rows)


def interval_text(found: Mapping[str, float] | None, digits: int = 3, sign: bool = False) -> str:
    """Writes an interval as text, such as "0.866 [0.860, 0.872]".

    Args:
      found: {"mean", "low", "high"}, or None, which is written as "-".
      digits: how many decimals.
      sign: whether to write a plus sign.
    """
    if found is None or math.isnan(found["mean"]):
        return "-"
    form = f"{'+' if sign else ''}.{digits}f"
    if math.isnan(found["low"]):
        return f"{found['mean']:{form}}"
    return f"{found['mean']:{form}} [{found['low']:{form}}, {found['high']:{form}}]"


def flops_text(value: float) -> str:
    """Writes FLOPs with three digits and a prefix, such as "12.3 G"."""
    power = min(max(int(math.log10(value) // 3), 0), 7) if value > 0 else 0
    return f"{value / 1000**power:.3g} {' kMGTPEZ'[power]}".strip()


def _short(name: str) -> str:
    return name.removeprefix("eval/")


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Writes rows of cells as a Markdown table; the first row is its head."""
    head, *rest = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, "|---" * len(rows[0]) + "|", *rest])
