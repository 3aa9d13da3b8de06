"""Goodput: the share of wall-clock since a run began that went into sampling and training steps that count.

    goodput = sum over the steps in metrics.jsonl of (time/sample + time/train) / (now - when the run first started)

Everything else is loss: start-up, compilation outside of these two, verification and preparation that nothing hides,
alignment, evaluation, checkpoints, the time in which the run lay dead, and the steps that a resume does again (their
lines are cut, so their seconds no longer count, while the clock has gone on). It survives a resume through two metrics
of every line: `time/clock`, the time of day in seconds since 1970, and `time/elapsed`, seconds since the run began.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

USEFUL = ("time/sample", "time/train")


class Goodput:
    """The clock of one run.

    Args:
      records: the lines of metrics.jsonl that a resumed run goes on from; none for a new run, which begins now.
      now: seconds since 1970.
    """

    def __init__(self, records: Sequence[Mapping[str, Any]] = (), now: Callable[[], float] = time.time):
        self._now = now
        clocked = [record for record in records if "time/clock" in record]
        self._began = clocked[-1]["time/clock"] - clocked[-1]["time/elapsed"] if clocked else now()
        self._useful = sum(record.get(name, 0.0) for record in records for name in USEFUL)

    def metrics(self, step: Mapping[str, float]) -> dict[str, float]:
        """time/goodput, time/elapsed and time/clock of a line, once these `time/` metrics of it are known."""
        self._useful += sum(step.get(name, 0.0) for name in USEFUL)
        clock = self._now()
        elapsed = max(clock - self._began, 1e-9)
        return {"time/goodput": min(1.0, self._useful / elapsed), "time/elapsed": elapsed, "time/clock": clock}
