"""The plan as text: one table, the seconds of a step and of the run, and whether it fits."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from prerl_jax.plan.count import Cost
from prerl_jax.plan.program import Lengths
from prerl_jax.plan.report import Rates, Row, bounds
from prerl_jax.plan.steps import Run
from prerl_jax.plan.topology import Slice
from prerl_jax.runtime.chips import GIB, GIGA, TERA

WIDTH = 118
HEADINGS = (
    f"{'':32}{'memory of a device':>20} |{'work of a device':>28} |{'ms at the peak of':>27} |",
    f"{'program':32}{'peak GiB':>12}{'free':>8} |{'TFLOP':>9}{'HBM GiB':>10}{'link GiB':>9} |"
    f"{'compute':>9}{'memory':>9}{'links':>9} | bound by",
)


def table(rows: Sequence[Row], rates: Rates | None, usable: float | None) -> str:
    """The programs, each with its memory, its work, and the times that its work takes at the peak of each resource."""
    lines = [*HEADINGS, "-" * WIDTH]
    for row in rows:
        lines.append(_line(row, rates, usable))
        lines += textwrap.wrap(_parts(row, rates), WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 4)
    return "\n".join([*lines, "-" * WIDTH, *textwrap.wrap(LEGEND, WIDTH)])


LEGEND = (
    "A program takes at least the longest of its times; that resource binds it. Peak is the most memory that a "
    "device holds while the program runs, the rest of the run included; below it is what it consists of, in GiB. The "
    "table is the worst case: rows are full, and loops run as often as they can; the steps below have mean lengths. "
    "Decoding reads whole prompts and half of a mean response, the average fill of a slot. "
    "What a program does only at some steps, such as copying the prompts of new slots, counts at every step."
)


def _line(row: Row, rates: Rates | None, usable: float | None) -> str:
    peak = f"{'> ' if row.refused else ''}{row.peak / GIB:.2f}"
    free = "-" if usable is None else f"{row.free(usable):.0%}"
    name = f"{row.name:32}" if len(row.name) < 32 else f"{row.name}\n{'':32}"
    begin = f"{name}{peak:>12}{free:>8} |"
    if row.work is None:
        return f"{begin}{'does not fit':>28} |{'':27} |"
    work = row.work
    middle = f"{_short(work.flops / TERA):>9}{_short(work.hbm / GIB):>10}{_short(work.sent / GIB):>9} |"
    if rates is None:
        return f"{begin}{middle}{'-':>9}{'-':>9}{'-':>9} | -"
    times = bounds(work, rates)
    numbers = "".join(f"{_short(1000 * times[name]):>9}" for name in ("compute", "memory", "links"))
    return f"{begin}{middle}{numbers} | {max(times, key=lambda name: times[name])}"


def _short(number: float) -> str:
    """Three digits, in at most seven characters."""
    if number == 0:
        return "0"
    if number < 0.001:
        return "<0.001"
    return f"{number:,.0f}" if number >= 1000 else f"{number:.3g}"


def _parts(row: Row, rates: Rates | None) -> str:
    drawn = f"{row.tokens} tokens of each slot; " if row.tokens else ""
    found = ", ".join(f"{name} {size / GIB:.2f}" for name, size in row.parts.items() if size >= GIB / 200)
    said = _host(row.work, rates) if row.work and row.work.host else ""
    said += f"; {row.warnings} arrays copied whole" if row.warnings else ""
    said += f"; {row.unbounded} loops counted once: how often they run is not known" if row.unbounded else ""
    return drawn + (found or "less than 0.01 GiB") + said


def _host(work: Cost, rates: Rates | None) -> str:
    time = "" if rates is None else f", {_short(1000 * bounds(work, rates)['host'])} ms at the peak of that link"
    return f"; to and from the host {_short(work.host / GIB)} GiB{time}"


def heading(place: Slice, rates: Rates | None) -> str:
    """The devices and what one of them has and can do."""
    memory = "memory that is not known" if place.usable is None else f"{place.usable / GIB:.2f} GiB for programs"
    begin = f"{place.name}: {place.per_chip}. A device has {memory}"
    if rates is None:
        return f"{begin}. Its peaks are not known, so there are no times."
    return (
        f"{begin}, {rates.flops / TERA:g} TFLOP/s, {rates.bandwidth / GIGA:g} GB/s of memory, {rates.links / GIGA:g} "
        f"GB/s of links to other chips and {rates.host / GIGA:g} GB/s to the host."
    )


def run_lines(run: Run, lengths: Lengths) -> list[str]:
    """The seconds of a step of each phase, then hours and chip hours of the whole run, and what was assumed."""
    lines = []
    for step in run.steps:
        stages = ", ".join(f"{name} {seconds:.3g}" for name, seconds in step.stages.items())
        lines.append(f"a step of {step.phase}: {step.seconds:.3g} s ({stages}), {step.rate:,.0f} tokens/s")
    evaluations, alignments = run.evaluations, run.alignments
    more = [f"{sum(step.steps for step in run.steps)} steps", f"{evaluations[0]} evaluations of {evaluations[1]:.3g} s"]
    if alignments[0]:
        more.append(f"{alignments[0]} alignments of {alignments[1]:.3g} s")
    lines.append(
        f"the run: {', '.join(more)}: {run.hours:,.3g} hours on {run.chips} chips, {run.chip_hours:,.4g} chip hours"
    )
    lines.append(
        f"assumed: prompts of {lengths.prompt} tokens (--mean-prompt) and responses of {lengths.response} "
        "(--mean-response), all trained on. These are the least times: no run reaches all peaks, and verifying, "
        "checkpoints and compiling come on top."
    )
    return [line for text in lines for line in wrapped(text)]


def wrapped(text: str) -> list[str]:
    """The lines of a paragraph."""
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ")
