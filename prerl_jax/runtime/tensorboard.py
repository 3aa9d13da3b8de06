"""Scalars for TensorBoard, written immediately and in order.

This module uses tensorboardX for the file format only. Its `SummaryWriter` writes from a thread behind a queue of ten
entries; if the disk is full, that thread dies and the queue blocks the run.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def _without_torch() -> Iterator[None]:
    """Hides PyTorch from imports: tensorboardX imports it if it is installed, which takes seconds and helps nothing."""
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]  # an import of it then fails
    try:
        yield
    finally:
        del sys.modules["torch"]


class TensorBoard:
    """Writes one event file.

    Args:
        folder: the folder of the event file; it is created if it does not exist.
        first_step: TensorBoard drops the events of earlier files in the folder from this step on.

    Raises:
        OSError: the file cannot be written; any method may raise it.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        with _without_torch():
            events = importlib.import_module("tensorboardX.event_file_writer")
            self._event = importlib.import_module("tensorboardX.proto.event_pb2")
            self._summary = importlib.import_module("tensorboardX.proto.summary_pb2")
        folder.mkdir(parents=True, exist_ok=True)
        # File names have a resolution of one second; two starts within it must not overwrite each other.
        self._writer = events.EventsWriter(str(folder / "events"), filename_suffix=f".{time.time_ns()}")
        start = self._event.SessionLog(status=self._event.SessionLog.START)
        self._write(step=first_step, session_log=start)

    def _write(self, **fields: Any) -> None:
        self._writer.write_event(self._event.Event(wall_time=time.time(), **fields))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes one event with a scalar for every metric.

        Args:
            step: how many steps are done.
            metrics: metric name -> value.
        """
        value = self._summary.Summary.Value
        values = [value(tag=name, simple_value=float(number)) for name, number in metrics.items()]
        self._write(step=step, summary=self._summary.Summary(value=values))

    def flush(self) -> None:
        """Writes all events to the file."""
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()
