"""Writes metrics and completions as JSON lines, metrics also for TensorBoard, and whole files atomically.

`metrics.jsonl` holds one object per line: `step`, `phase`, then the metrics by name. JSON has no NaN and no infinity,
so such a value is written as null (TensorBoard gets the value itself).

Every step appears once, also after a run was killed at any moment. The trainer calls `flush()` before it saves a
checkpoint, so the lines up to a checkpoint are on disk before the checkpoint. A resume cuts everything later than its
checkpoint, a half-written last line included, before it appends. A new run (`resume_step=None`) starts with empty
files.
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
    """A file of the workdir could not be written. The message says which file, and why."""


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MetricsError(
            f"cannot write {path}: {error.strerror or error}. Is the disk full, or the workdir read-only?"
        ) from error


def _plain(value: Any) -> Any:
    """The value in types that JSON has: numpy and JAX scalars become numbers, NaN and infinity become None."""
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
    """Writes a text file atomically: at any moment the path holds either the old text or the new one.

    Args:
        path: the file to write.
        text: its new content.

    Raises:
        MetricsError: the file cannot be written.
    """
    temporary = path.with_name(path.name + ".tmp")
    with _explained(path):
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)


def write_json(path: str | Path, value: Any) -> None:
    """Writes a value as JSON, atomically.

    Args:
        path: the file to write.
        value: dicts, lists, strings and numbers, also those of numpy and JAX. NaN and infinity become null.

    Raises:
        MetricsError: the file cannot be written.
    """
    write_text(Path(path), json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(line, object) of every line that is JSON and has a step; a half-written last line is left out."""
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


def read_metrics(workdir: str | Path) -> list[dict[str, Any]]:
    """Reads the lines of a workdir's metrics.jsonl.

    Args:
        workdir: the workdir of a run.

    Returns:
        One dict per line, in the order of the file; [] if there is no file. Lines that are not JSON are left out, with
        a warning in the log.
    """
    return [record for _, record in _records(Path(workdir) / METRICS)]


def _cut(path: Path, step: int) -> None:
    """Removes the lines of steps later than `step` from a JSON lines file."""
    if path.exists():
        write_text(path, "".join(line for line, record in _records(path) if record["step"] <= step))


class MetricsWriter:
    """Writes the metrics and completions of a run.

    Args:
        workdir: a folder of the local file system, or mounted into it. It is created if it does not exist.
        resume_step: the step of the checkpoint that a resumed run continues; all later lines are cut. None for a new
            run: the files of an earlier run are emptied.
        enabled: True on one process only. On the others no method does anything.

    Raises:
        ValueError: the workdir is a remote address, where lines cannot be appended to a file.
        MetricsError: a file cannot be written; any method may raise it.
    """

    def __init__(self, workdir: str | Path, *, resume_step: int | None = None, enabled: bool = True) -> None:
        self._enabled = enabled
        if not enabled:
            return
        if "://" in str(workdir):
            raise ValueError(
                f"{workdir}: metrics need a local or a mounted folder, because lines are appended to files."
            )
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
        """Appends one line {"step", "phase", **metrics} to metrics.jsonl, and writes the metrics for TensorBoard.

        Args:
            step: how many steps are done.
            phase: the name of the phase.
            metrics: metric name -> value.

        Raises:
            ValueError: a metric is named "step" or "phase".
        """
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
        """Appends one line {"step", **record} to completions.jsonl for every record.

        Args:
            step: how many steps are done.
            records: one sampled completion each.
        """
        if not self._enabled:
            return
        with _explained(self._workdir / COMPLETIONS):
            for record in records:
                self._completions.write(_line({"step": int(step), **record}))

    def flush(self) -> None:
        """Flushes all files to disk. Call it before a checkpoint is saved."""
        if not self._enabled:
            return
        for name, file in ((METRICS, self._metrics), (COMPLETIONS, self._completions)):
            with _explained(self._workdir / name):
                file.flush()
                os.fsync(file.fileno())
        with _explained(self._workdir / TENSORBOARD):
            self._board.flush()

    def close(self) -> None:
        """Flushes and closes the files. A second call does nothing."""
        if not self._enabled:
            return
        self.flush()
        self._enabled = False
        self._metrics.close()
        self._completions.close()
        self._board.close()
