"""Goodput: the share of a run's wall-clock time that was spent on sampling and training in steps that count.

    goodput = sum over the steps in metrics.jsonl of (time/sample + time/train) / (now - when the run first started)

Everything else is overhead: start-up, compilation outside sampling and training, verification and preparation that do
not overlap with them, alignment, evaluation, checkpoints, the time in which the run was down, and the steps that a
resume repeats. (A resume cuts the lines of those steps, so their seconds no longer count, but the clock has gone on.)
Two metrics of every line carry the goodput through a resume: `time/clock`, the time of day in seconds since 1970, and
`time/elapsed`, the seconds since the run began.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

USEFUL = ("time/sample", "time/train")


class Goodput:
    """Measures the goodput of one run.

    Args:
        records: the lines of metrics.jsonl that a resumed run continues; none for a new run, which begins now.
        now: returns the time of day, in seconds since 1970.
    """

    def __init__(self, records: Sequence[Mapping[str, Any]] = (), now: Callable[[], float] = time.time) -> None:
        self._now = now
        clocked = [record for record in records if "time/clock" in record]
        self._began = clocked[-1]["time/clock"] - clocked[-1]["time/elapsed"] if clocked else now()
        self._useful = sum(record.get(name, 0.0) for record in records for name in USEFUL)

    def metrics(self, step: Mapping[str, float]) -> dict[str, float]:
        """Adds a step and returns the metrics time/goodput (in [0, 1]), time/elapsed and time/clock (seconds).

        Args:
            step: the metrics of the step; `time/sample` and `time/train` are read, in seconds.
        """
        self._useful += sum(step.get(name, 0.0) for name in USEFUL)
        clock = self._now()
        elapsed = max(clock - self._began, 1e-9)
        return {"time/goodput": min(1.0, self._useful / elapsed), "time/elapsed": elapsed, "time/clock": clock}
