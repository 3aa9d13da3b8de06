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
    """One line of a benchmark's table.

    Attributes:
      name: as in the JSON object: benchmark/case/peer.
      ratio: the result; None if it could not be measured, and then `note` says why.
      target: ">= 1.5", "<= 0.4", or "" for a result without a target.
      note: the figures that the ratio is made of, with their units.
    """

    name: str
    ratio: float | None
    target: str
    note: str = ""


def interleaved(work: Mapping[str, Callable[[], object]], repetitions: int, warmup: int = 1) -> dict[str, float]:
    """Median seconds of each contender, called in turns (A B A B ...), so that a drift affects all alike.

    The result of each call is waited for. The first `warmup` rounds, which include compilation, do not count. Before
    that, glibc returns the memory that earlier comparisons have freed to the system.
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
    """Prints the table, then the JSON object. Each row also goes to standard error as soon as it is measured."""
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
