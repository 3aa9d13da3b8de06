"""Scalars for TensorBoard, written at once and in order.

Only tensorboardX's record format is used: its `SummaryWriter` writes from a thread behind a queue of ten, and on a full
disk that thread dies and the queue blocks the run.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path


@contextlib.contextmanager
def _without_torch() -> Iterator[None]:
    """tensorboardX imports PyTorch wherever it is installed; that takes seconds and is of no use here."""
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None
    try:
        yield
    finally:
        del sys.modules["torch"]


class TensorBoard:
    """One event file in `folder`. Readers drop the events of earlier files from step `first_step` on."""

    def __init__(self, folder: Path, first_step: int):
        with _without_torch():
            events = importlib.import_module("tensorboardX.event_file_writer")
            self._event = importlib.import_module("tensorboardX.proto.event_pb2")
            self._summary = importlib.import_module("tensorboardX.proto.summary_pb2")
        folder.mkdir(parents=True, exist_ok=True)
        # File names carry the second; two starts within one must not overwrite each other.
        self._writer = events.EventsWriter(str(folder / "events"), filename_suffix=f".{time.time_ns()}")
        start = self._event.SessionLog(status=self._event.SessionLog.START)
        self._write(step=first_step, session_log=start)

    def _write(self, **fields) -> None:
        self._writer.write_event(self._event.Event(wall_time=time.time(), **fields))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """One event with a scalar for every metric."""
        value = self._summary.Summary.Value
        values = [value(tag=name, simple_value=float(number)) for name, number in metrics.items()]
        self._write(step=step, summary=self._summary.Summary(value=values))

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
