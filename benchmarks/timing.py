"""Interleaved timing, a table with the ratio first, and one JSON object of all ratios as the last line."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping

import jax


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a benchmark's table. `ratio` is above 1 where a larger one is better, and `target` says which."""

    name: str
    """As in the JSON object: benchmark/case/peer."""
    ratio: float | None
    """None where it could not be measured; `note` says why."""
    target: str
    """">= 1.5", "<= 0.4", or "" for a figure without one."""
    note: str = ""
    """The figures that the ratio is made of, with their units."""


def interleaved(work: Mapping[str, Callable[[], object]], repetitions: int, warmup: int = 1) -> dict[str, float]:
    """Median seconds of each, A B A B ..., so that a drift of the machine meets all of them alike.

    What a call returns is waited for. The first `warmup` rounds, compilation among them, do not count. Memory that the
    contenders of an earlier comparison have left to glibc goes back to the system first.
    """
    seconds: dict[str, list[float]] = {name: [] for name in work}
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    for repetition in range(-warmup, repetitions):
        for name, call in work.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            if repetition >= 0:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def met(row: Row) -> str:
    """ "yes", "no", or "" where there is nothing to compare."""
    if row.ratio is None or not row.target:
        return ""
    sign, bound = row.target.split()
    return "yes" if (row.ratio >= float(bound) if sign == ">=" else row.ratio <= float(bound)) else "no"


def report(rows: Iterable[Row]) -> None:
    """Prints the table, then the JSON object; on the error stream each row as soon as it is there."""
    rows = [_told(row) for row in rows]
    width = max(len(row.name) for row in rows)
    print(f"\n{'ratio':>7}  {'target':<8} {'met':<4} {'what':<{width}}  figures")
    for row in rows:
        ratio = "-" if row.ratio is None else f"{row.ratio:.3g}"
        print(f"{ratio:>7}  {row.target:<8} {met(row):<4} {row.name:<{width}}  {row.note}")
    print(json.dumps({row.name: round(row.ratio, 4) for row in rows if row.ratio is not None}), flush=True)


def _told(row: Row) -> Row:
    ratio = "-" if row.ratio is None else f"{row.ratio:.3g}"
    print(f"{row.name}: {ratio} ({row.note})", file=sys.stderr, flush=True)
    return row
