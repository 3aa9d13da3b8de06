"""The checkpoints of a run: asynchronous, atomic, checked when they are read.

A save copies the state to the host and returns. A thread then writes it to a temporary folder and renames the folder.
So the folders named by a step are complete at any moment, even if the run is killed. Old checkpoints are removed only
after a new one is complete.

Three kinds of checkpoints are kept: the last `keep_last`; the best by a metric (the highest finite value, and the
earliest of equals); and each at which a phase ended. The record of a checkpoint (`step_files.Record`) holds all that
this needs, so a resumed run keeps the same checkpoints. A save may ask to keep others until the next save.

After a restore, the run continues from the restored checkpoint and repeats the steps after it. The first save removes
all later checkpoints, damaged ones included.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from etils import epath

from prerl_jax.core.types import Params, TrainState
from prerl_jax.runtime.checkpoint_reading import read_newest
from prerl_jax.runtime.retention import Retention
from prerl_jax.runtime.step_files import (
    CheckpointError,
    DamagedError,
    Record,
    Restored,
    committed_steps,
    fingerprint,
    read_record,
    save_args,
)

__all__ = ["CheckpointError", "Checkpoints", "Restored", "restore_params", "restore_state"]

log = logging.getLogger(__name__)


def _available(directory: epath.Path, step: int | None) -> list[int]:
    """The steps to try: `step`, or all. Raises ValueError if there are none, or not this one."""
    steps = committed_steps(directory)
    if not steps:
        raise ValueError(f"there are no checkpoints in {directory}.")
    if step is not None and step not in steps:
        raise ValueError(f"there is no checkpoint of step {step} in {directory}; there are {steps}.")
    return steps if step is None else [step]


def _restore(directory: str | Path, step: int | None, **abstract: Any) -> tuple[Restored, list[str]]:
    directory = epath.Path(directory)
    restored, damaged = read_newest(directory, _available(directory, step), **abstract)
    for reason in damaged:
        log.warning("a checkpoint in %s is damaged: %s. Step %d is used.", directory, reason, restored.step)
    return restored, damaged


def restore_state(directory: str | Path, abstract_state: TrainState, step: int | None = None) -> Restored:
    """Reads the whole state of another run's checkpoint, to begin from it. Nothing is written.

    Args:
        directory: the checkpoint folder of the run; another process may be writing into it.
        abstract_state: ShapeDtypeStructs of the state; a leaf without a sharding goes to the first device.
        step: the step of the checkpoint; None for the newest that can be read.

    Returns:
        The checkpoint, with the TrainState as `state`. Raises as `restore_params`.
    """
    return _restore(directory, step, state=abstract_state)[0]


def restore_params(directory: str | Path, abstract_params: Params, step: int | None = None) -> Restored:
    """Reads the parameters of a checkpoint alone, onto any mesh. Nothing is written.

    Args:
        directory: the checkpoint folder of a run; another process may be writing into it.
        abstract_params: ShapeDtypeStructs of the parameters; a leaf without a sharding goes to the first device.
        step: the step of the checkpoint; None for the newest that can be read.

    Returns:
        The checkpoint, with the parameters as `state`.

    Raises:
        ValueError: there is no such checkpoint, or it is of another model (with the leaves).
        CheckpointError: it is damaged, or all are.
    """
    return _restore(directory, step, params=abstract_params)[0]


class Checkpoints:
    """Writes and reads the checkpoints of one run.

    In a run of several processes, every process makes this object and calls all of its methods.

    Args:
        directory: a folder for checkpoints alone, shared by all processes. It is created if it does not exist.
        keep_last: how many of the newest checkpoints are kept, at least 1.
        best: the metric whose best checkpoint is kept (higher is better), or None.

    Attributes:
        skipped: "step n: reason" for each damaged checkpoint that the last `restore` skipped.

    Raises:
        ValueError: keep_last is less than 1.
        CheckpointError: the folder cannot be created or read.
    """

    def __init__(self, directory: str | Path, *, keep_last: int, best: str | None) -> None:
        if keep_last < 1:
            raise ValueError(f"keep_last={keep_last}: at least the newest checkpoint must be kept.")
        self.skipped: list[str] = []
        self._directory = epath.Path(directory)
        self._records: dict[int, Record] = {}
        self._restored: int | None = None
        self._pending: int | None = None
        self._retention = Retention(self._records, keep_last, best)
        try:
            self._manager: ocp.CheckpointManager | None = self._open()
            for step in committed_steps(self._directory):
                self._read_record(step)
        except OSError as error:
            raise CheckpointError(f"cannot use {self._directory} for checkpoints: {error}.") from error

    def _open(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            # If Orbax creates a folder in the background and fails, its threads wait for the folder for five minutes.
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
        """Waits for a running save; returns the steps of all complete checkpoints, in order, damaged ones included.

        Raises:
            CheckpointError: the save failed, or the folder cannot be read.
        """
        self.wait()
        return self._committed()

    def _committed(self) -> list[int]:
        try:
            return committed_steps(self._directory)
        except OSError as error:
            raise CheckpointError(f"cannot read {self._directory}: {error}.") from error

    def latest_step(self) -> int | None:
        """The last of `steps()`, or None if there are none. Raises as `steps`."""
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
        """Starts to write a checkpoint. The state may be donated as soon as this returns.

        The checkpoint is complete at some time after this call. First flush everything that must be on disk before it,
        such as lines of metrics.

        Args:
            step: the step of the checkpoint. It must be a new one, or later than the step last restored.
            state: all arrays of the run.
            extra: what else a resume needs, as JSON: data position, config, phase. The same on every process.
            metrics: metric name -> value, not necessarily finite. They must hold `best` for the checkpoint to be best.
            boundary: whether a phase ends here. Such a checkpoint is never deleted.
            needed: until the next save, the newest checkpoint up to each of these steps is kept.

        Raises:
            ValueError: there is a checkpoint of this step already.
            TypeError: `extra` is not JSON.
            CheckpointError: this save, or the one before it in the background, failed.
        """
        self.wait()
        plain = json.loads(json.dumps(dict(extra)))
        metrics = {name: float(value) for name, value in metrics.items()}
        there = set(self._committed())
        later = set() if self._restored is None else {s for s in there if s > self._restored}
        there -= later
        if step in there:
            raise ValueError(f"there is a checkpoint of step {step} in {self._directory} already.")
        record = Record(fingerprint(state), metrics, bool(boundary), plain)
        try:
            manager = self._manager = self._open() if self._manager is None else self._manager
            self._remove(manager, later)
            for gone in self._records.keys() - there:
                del self._records[gone]
            self._pending, self._records[step], self._retention.needed = step, record, needed
            manager.save(step, args=save_args(state, record), force=True)
        except Exception as error:
            self._fail(step, error)

    def _remove(self, manager: ocp.CheckpointManager, later: Set[int]) -> None:
        """Removes the checkpoints that are later than the restored one."""
        for step in sorted(later):
            log.warning("removing %s: the run continues from step %d", self._directory / str(step), self._restored)
            manager.delete(step)
        self._restored = None

    def _fail(self, step: int, error: Exception) -> None:
        """Forgets a save that failed, and raises CheckpointError for it."""
        self._pending = None
        self._records.pop(step, None)
        if self._manager is not None:
            # Orbax raises an error of its threads again in later calls, so the next save gets a new manager.
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
        """Waits for a running save. Raises CheckpointError if it failed."""
        if self._pending is None or self._manager is None:
            return
        step = self._pending
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            self._fail(step, error)
        self._pending = None

    def close(self) -> None:
        """Waits for a running save and ends the threads. Raises CheckpointError if the save failed."""
        try:
            self.wait()
        finally:
            if self._manager is not None:
                self._manager.close()
                self._manager = None

    def restore(self, abstract_state: TrainState, step: int | None = None) -> Restored:
        """Reads a checkpoint for the run to continue from. The next save removes all later checkpoints.

        If a checkpoint is damaged, the one before it is read; the damaged one is logged as a warning and added to
        `skipped`.

        Args:
            abstract_state: ShapeDtypeStructs of the state; a leaf without a sharding goes to the first device.
            step: the step of the checkpoint; None for the newest that can be read.

        Returns:
            The checkpoint, with the TrainState as `state`.

        Raises:
            ValueError: there are no checkpoints, or none of that step (with the steps that there are), or it is of
                another model or optimizer (with the leaves).
            CheckpointError: it is damaged, or all are (with the reasons).
        """
        self.wait()
        restored, self.skipped = _restore(self._directory, step, state=abstract_state)
        self._restored = restored.step
        return restored

    def read(self, abstract_state: TrainState, newest: int) -> Restored | None:
        """Reads a checkpoint without moving the run to it: later checkpoints stay.

        Args:
            abstract_state: ShapeDtypeStructs of the state, as in `restore`.
            newest: the last step to consider; the newest checkpoint up to it that can be read is returned.

        Returns:
            The checkpoint, or None if there is none up to that step.

        Raises:
            ValueError: the checkpoint is of another model or optimizer (with the leaves).
            CheckpointError: there are checkpoints, but all are damaged.
        """
        self.wait()
        last = newest if self._restored is None else min(newest, self._restored)
        steps = [step for step in self._committed() if step <= last]
        return read_newest(self._directory, steps, state=abstract_state)[0] if steps else None
