"""Checkpoints of a run: asynchronous, atomic, retained by policy, read back checked.

A save copies the state to the host, and returns; a thread writes it to a temporary folder and renames that. So at any
moment, whatever is killed, the folders named by a step are whole. Old ones are removed only after a commit.

Retained are the last `keep_last`, the best by a metric (higher is better, the earlier of equals; a value that is not
finite is never the best), and every one where a phase ended. What that needs is in the checkpoints themselves
(`step_files.Record`), so a resume retains the same ones. A save can ask for one more to be kept until the next.

A restore settles what comes next: checkpoints later than the restored one belong to a future that is about to be made
again, damaged ones among them, and the first save after it removes them.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from etils import epath

from prerl_jax.core.types import Params, TrainState
from prerl_jax.runtime.step_files import (
    CheckpointError,
    DamagedError,
    Record,
    Restored,
    committed_steps,
    fingerprint,
    read_newest,
    read_record,
    save_args,
)

__all__ = ["CheckpointError", "Checkpoints", "Restored", "restore_params", "restore_state", "retained"]

log = logging.getLogger(__name__)


def retained(records: Mapping[int, Record], keep_last: int, best: str | None, needed: Sequence[int] = ()) -> set[int]:
    """The steps to keep: the last `keep_last`, the best by `best`, phase boundaries, the last up to each `needed`."""
    keep = set(sorted(records)[-keep_last:]) | {step for step, record in records.items() if record.boundary}
    scores = {step: record.metrics.get(best) for step, record in records.items()} if best else {}
    scores = {step: score for step, score in scores.items() if score is not None and math.isfinite(score)}
    if scores:
        keep.add(max(scores, key=lambda step: (scores[step], -step)))
    earlier = [[step for step in records if step <= limit] for limit in needed]
    return keep | {max(steps) for steps in earlier if steps}


class _Retention:
    """`retained` as Orbax asks for it; a step without a readable record is not kept."""

    def __init__(self, records: Mapping[int, Record], keep_last: int, best: str | None):
        self._arguments = records, keep_last, best
        self.needed: Sequence[int] = ()

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        keep = retained(*self._arguments, self.needed)
        return [checkpoint.step in keep for checkpoint in checkpoints]


def _available(directory: epath.Path, step: int | None) -> list[int]:
    """The steps to try. Raises ValueError when there are none, or not the one that is asked for."""
    steps = committed_steps(directory)
    if not steps:
        raise ValueError(f"there are no checkpoints in {directory}.")
    if step is not None and step not in steps:
        raise ValueError(f"there is no checkpoint of step {step} in {directory}; there are {steps}.")
    return steps if step is None else [step]


def _restore(directory: str | Path, step: int | None, **abstract) -> tuple[Restored, list[str]]:
    directory = epath.Path(directory)
    restored, damaged = read_newest(directory, _available(directory, step), **abstract)
    for reason in damaged:
        log.warning("a checkpoint in %s is damaged: %s. Step %d is used.", directory, reason, restored.step)
    return restored, damaged


def restore_state(directory: str | Path, abstract_state: TrainState, step: int | None = None) -> Restored:
    """The whole state of another run's checkpoint, to start from: as `restore_params`, with the optimizer's state."""
    return _restore(directory, step, state=abstract_state)[0]


def restore_params(directory: str | Path, abstract_params: Params, step: int | None = None) -> Restored:
    """Only the parameters of a checkpoint, on any mesh: to start another run from, or to export. Nothing is written.

    Args:
        directory: a run's checkpoint folder, which another process may be writing to.
        abstract_params: ShapeDtypeStructs; one without a sharding goes to the first device.
        step: which one; the newest that can be read by default.

    Returns:
        Restored, with the parameters as `state`.

    Raises:
        ValueError: there is no such checkpoint, or it is of another model (with the leaves).
        CheckpointError: it is damaged, or all are.
    """
    return _restore(directory, step, params=abstract_params)[0]


class Checkpoints:
    """The checkpoints of one run. In a run of several processes, every one makes this object and calls its methods.

    Args:
        directory: a folder of its own, shared by all processes; made where it is not there.
        keep_last: how many of the newest are kept, at least 1.
        best: the metric whose best checkpoint is kept, or None.

    Attributes:
        skipped: "step n: reason" of the damaged checkpoints that the last restore passed over.

    Raises:
        ValueError: keep_last is less than 1.
        CheckpointError: the folder cannot be made or read.
    """

    def __init__(self, directory: str | Path, *, keep_last: int, best: str | None):
        if keep_last < 1:
            raise ValueError(f"keep_last={keep_last}: at least the newest checkpoint must be kept.")
        self.skipped: list[str] = []
        self._directory = epath.Path(directory)
        self._records: dict[int, Record] = {}
        self._restored: int | None = None
        self._pending: int | None = None
        self._retention = _Retention(self._records, keep_last, best)
        try:
            self._manager: ocp.CheckpointManager | None = self._open()
            for step in committed_steps(self._directory):
                self._read_record(step)
        except OSError as error:
            raise CheckpointError(f"cannot use {self._directory} for checkpoints: {error}.") from error

    def _open(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            # Made in the background, a folder that cannot be made leaves threads waiting for it for five minutes.
            async_options=ocp.options.AsyncOptions(create_directories_asynchronously=False),
            preservation_policy=self._retention,
            cleanup_tmp_directories=True,
            lightweight_initialize=True,
            save_root_metadata=False,
        )
        return ocp.CheckpointManager(self._directory, options=options)

    def _read_record(self, step: int) -> None:
        try:
            self._records[step] = read_record(self._directory / str(step))
        except DamagedError as error:
            log.warning("the checkpoint %s is damaged: %s", self._directory / str(step), error)

    def steps(self) -> list[int]:
        """The steps of all committed checkpoints, in order, damaged ones included; waits for a save that is under way.

        Raises CheckpointError when that save failed.
        """
        self.wait()
        return self._committed()

    def _committed(self) -> list[int]:
        try:
            return committed_steps(self._directory)
        except OSError as error:
            raise CheckpointError(f"cannot read {self._directory}: {error}.") from error

    def latest_step(self) -> int | None:
        """The newest of `steps()`, None where there are none."""
        return max(self.steps(), default=None)

    def save(
        self,
        step: int,
        state: TrainState,
        extra: Mapping[str, Any],
        metrics: Mapping[str, float],
        boundary: bool,
        needed: Sequence[int] = (),
    ) -> None:
        """Starts to write a checkpoint; the state may be donated as soon as this returns.

        It commits at some time after this call: whatever must be on disk before it (metric lines) is flushed first.

        Args:
            step: its step; must not be there already, unless it is later than the step last restored.
            state: all of the run's arrays.
            extra: what else a resume needs, as JSON: data position, config, phase. The same on every process.
            metrics: finite or not; `best` is looked up in them.
            boundary: whether a phase ends here: then it is kept for ever.
            needed: until the next save, the newest checkpoint up to each of these steps is kept.

        Raises:
            ValueError: this step is there already.
            TypeError: `extra` is not JSON.
            CheckpointError: this save, or the one before it in the background, failed.
        """
        self.wait()
        extra = json.loads(json.dumps(dict(extra)))
        metrics = {name: float(value) for name, value in metrics.items()}
        there = set(self._committed())
        later = set() if self._restored is None else {s for s in there if s > self._restored}
        there -= later
        if step in there:
            raise ValueError(f"there is a checkpoint of step {step} in {self._directory} already.")
        record = Record(fingerprint(state), metrics, bool(boundary), extra)
        try:
            if self._manager is None:
                self._manager = self._open()
            self._remove(later)
            for gone in self._records.keys() - there:
                del self._records[gone]
            self._pending, self._records[step], self._retention.needed = step, record, needed
            self._manager.save(step, args=save_args(state, record), force=True)
        except Exception as error:
            self._fail(step, error)

    def _remove(self, later: Set[int]) -> None:
        """Removes the checkpoints of the future that a restore has given up."""
        for step in sorted(later):
            log.warning("removing %s: the run goes on from step %d", self._directory / str(step), self._restored)
            self._manager.delete(step)
        self._restored = None

    def _fail(self, step: int, error: Exception) -> None:
        """Raises CheckpointError for a save that did not succeed, and forgets about it."""
        self._pending = None
        self._records.pop(step, None)
        if self._manager is not None:
            # Orbax raises what went wrong in its threads again in later calls: the next save gets a new manager.
            with contextlib.suppress(Exception):
                self._manager.close()
            self._manager = None
        try:
            good = max((s for s in committed_steps(self._directory) if s in self._records), default=None)
            intact = "there is no earlier one" if good is None else f"the last good checkpoint, step {good}, is intact"
        except OSError as unreadable:
            intact = f"the folder cannot be read now ({unreadable})"
        reason = (str(error).splitlines() or [""])[0]
        raise CheckpointError(
            f"the checkpoint of step {step} could not be written to {self._directory}: {type(error).__name__}: "
            f"{reason}. Is the disk full, or the folder read-only? Of the others, {intact}."
        ) from error

    def wait(self) -> None:
        """Returns when no save is under way. Raises CheckpointError when the last one failed."""
        if self._pending is None:
            return
        step = self._pending
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            self._fail(step, error)
        self._pending = None

    def close(self) -> None:
        """Waits for the save under way and ends the threads. Raises CheckpointError when that save failed."""
        try:
            self.wait()
        finally:
            if self._manager is not None:
                self._manager.close()
                self._manager = None

    def restore(self, abstract_state: TrainState, step: int | None = None) -> Restored:
        """Reads the newest checkpoint that can be read, or that of `step`. The next save goes on from there.

        A damaged checkpoint is logged as a warning, is put into `skipped`, and the one before it is read.

        Args:
            abstract_state: ShapeDtypeStructs with the shardings wanted; without one a leaf goes to the first device.
            step: only this one.

        Raises:
            ValueError: there are no checkpoints, or none of that step (with those that there are), or it is of another
                model or optimizer (with the leaves).
            CheckpointError: it is damaged, or all are (with the reasons).
        """
        self.wait()
        restored, self.skipped = _restore(self._directory, step, state=abstract_state)
        self._restored = restored.step
        return restored

    def read(self, abstract_state: TrainState, newest: int) -> Restored | None:
        """The newest checkpoint up to step `newest`, for a run that goes on from where it is; None without one.

        Raises CheckpointError when there are some and all are damaged, ValueError as `restore`.
        """
        self.wait()
        last = newest if self._restored is None else min(newest, self._restored)
        steps = [step for step in self._committed() if step <= last]
        return read_newest(self._directory, steps, state=abstract_state)[0] if steps else None
