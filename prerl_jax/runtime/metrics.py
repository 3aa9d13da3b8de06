"""Metrics and completions as JSON lines, metrics also for TensorBoard, and the files that are replaced whole.

`metrics.jsonl` holds one object a line: `step`, `phase`, then the metrics by name. JSON has no NaN and no infinity:
such a value is written as null (TensorBoard gets it as it is).

Each step stands once, whatever was killed when. The trainer calls `flush()` before it saves a checkpoint, so that the
lines up to a checkpoint are on disk before it; and a resume cuts what is later than its checkpoint, a half-written last
line included, before it appends. A new run (`resume_step=None`) starts with empty files.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from prerl_jax.runtime.tensorboard import TensorBoard

log = logging.getLogger(__name__)

METRICS = "metrics.jsonl"
COMPLETIONS = "completions.jsonl"
TENSORBOARD = "tensorboard"


class MetricsError(RuntimeError):
    """A file of the workdir could not be written; the message says which and why."""


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MetricsError(
            f"cannot write {path}: {error.strerror or error}. Is the disk full, or the workdir read-only?"
        ) from error


def _plain(value: Any) -> Any:
    """`value` as JSON can hold it: scalars of numpy and JAX become numbers, what is not finite becomes None."""
    if isinstance(value, Mapping):
        return {str(name): _plain(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(_plain(record), ensure_ascii=False, allow_nan=False) + "\n"


def write_text(path: Path, text: str) -> None:
    """Writes a file so that at any moment there is either the old one or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    with _explained(path):
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` as JSON, atomically; what is not finite becomes null. Raises MetricsError on an OSError."""
    write_text(Path(path), json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _records(path: Path) -> Iterator[tuple[str, dict]]:
    """(line, its object) of every whole line with a step; a half-written last line is not one."""
    if not path.exists():
        return
    for number, raw in enumerate(path.read_bytes().split(b"\n"), start=1):
        try:
            record = json.loads(raw) if raw else None
        except ValueError:
            log.warning("%s: line %d is not JSON (half-written?) and is left out", path, number)
            continue
        if isinstance(record, dict) and "step" in record:
            yield raw.decode() + "\n", record


def read_metrics(workdir: str | Path) -> list[dict]:
    """The objects of a workdir's metrics.jsonl in order; [] without the file."""
    return [record for _, record in _records(Path(workdir) / METRICS)]


def _cut(path: Path, step: int) -> None:
    """Leaves of a JSON lines file what belongs to the steps up to `step`."""
    if path.exists():
        write_text(path, "".join(line for line, record in _records(path) if record["step"] <= step))


class MetricsWriter:
    """Writes the metrics and completions of a run.

    Args:
        workdir: a folder of the local file system (or one mounted into it); it is made where it is not there.
        resume_step: the step of the checkpoint that the run goes on from: everything later is cut. None for a new run:
            whatever an earlier one left in these files is removed.
        enabled: False on every process but one; then nothing is touched.

    Raises:
        ValueError: the workdir is a remote address, where lines cannot be appended.
        MetricsError: from any method, when a file cannot be written.
    """

    def __init__(self, workdir: str | Path, *, resume_step: int | None = None, enabled: bool = True):
        self._enabled = enabled
        if not enabled:
            return
        if "://" in str(workdir):
            raise ValueError(f"{workdir}: metrics need a local folder (or a mounted one), lines are appended to files.")
        self._workdir = Path(workdir)
        with _explained(self._workdir):
            self._workdir.mkdir(parents=True, exist_ok=True)
            self._metrics = self._open(METRICS, resume_step)
            self._completions = self._open(COMPLETIONS, resume_step)
        folder = self._workdir / TENSORBOARD
        with _explained(folder):
            self._board = TensorBoard(folder, first_step=0 if resume_step is None else resume_step + 1)

    def _open(self, name: str, resume_step: int | None) -> TextIO:
        path = self._workdir / name
        if resume_step is not None:
            _cut(path, resume_step)
        return path.open("w" if resume_step is None else "a", encoding="utf-8", buffering=1)

    def write(self, step: int, phase: str, metrics: Mapping[str, float]) -> None:
        """One line {"step", "phase", **metrics}. ValueError for a metric named step or phase."""
        if not self._enabled:
            return
        taken = {"step", "phase"} & set(metrics)
        if taken:
            raise ValueError(f"a metric cannot be named {sorted(taken)[0]!r}: that is a field of every line.")
        with _explained(self._workdir / METRICS):
            self._metrics.write(_line({"step": int(step), "phase": phase, **metrics}))
        with _explained(self._workdir / TENSORBOARD):
            self._board.write(int(step), metrics)

    def completions(self, step: int, records: Sequence[Mapping[str, Any]]) -> None:
        """One line {"step", **record} a sampled completion."""
        if not self._enabled:
            return
        with _explained(self._workdir / COMPLETIONS):
            for record in records:
                self._completions.write(_line({"step": int(step), **record}))

    def flush(self) -> None:
        """Everything written so far is on disk when this returns; to be called before a checkpoint is saved."""
        if not self._enabled:
            return
        for name, file in ((METRICS, self._metrics), (COMPLETIONS, self._completions)):
            with _explained(self._workdir / name):
                file.flush()
                os.fsync(file.fileno())
        with _explained(self._workdir / TENSORBOARD):
            self._board.flush()

    def close(self) -> None:
        """Flushes and closes the files; a second call does nothing."""
        if not self._enabled:
            return
        self.flush()
        self._enabled = False
        self._metrics.close()
        self._completions.close()
        self._board.close()
