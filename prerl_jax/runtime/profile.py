"""Profiles a few steps for TensorBoard, XProf or Perfetto.

The folder `PROFILE/plugins/profile/TIME/` gets two files: `HOST.xplane.pb`, for `tensorboard --logdir PROFILE` with the
plugin xprof, and `HOST.trace.json.gz`, which https://ui.perfetto.dev opens. In the trace a step is annotated with its
number, and its stages are annotated as sample, verify, prepare and train.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

STEPS = 3
"""How many steps are profiled."""

annotate = jax.profiler.TraceAnnotation


class Profile:
    """Profiles the steps `first` to `first + STEPS - 1`, counted from 1.

    Args:
        folder: the folder of the trace. The trace of an earlier run is removed.
        first: the first step to profile; None profiles nothing. If the run ends before the last step, the trace ends
            with the run.

    Raises:
        ValueError: `first` is less than 1.
    """

    def __init__(self, folder: Path, first: int | None) -> None:
        if first is not None and first < 1:
            raise ValueError(f"steps are counted from 1, so none can be profiled from {first} on. Choose 1 or more.")
        self._folder, self._running = Path(folder), False
        self._first, self._last = first, None if first is None else first + STEPS - 1

    def check(self, done: int, total: int) -> None:
        """Checks that the run has a step to profile.

        Args:
            done: how many steps are done.
            total: how many steps the run has.

        Raises:
            ValueError: step `first` is done already, or the run has fewer steps.
        """
        if self._first is not None and not done < self._first <= total:
            raise ValueError(
                f"--profile {self._first} profiles steps {self._first} to {self._last}, and "
                + (f"steps {done + 1} to {total} are left." if done < total else f"all {total} steps are done.")
            )

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[Callable[[Any], None]]:
        """Wraps a step: annotates it, and profiles it if it is one of the steps to profile.

        It yields a function that takes the arrays that the step computes. The trace ends when the arrays of the last
        profiled step are computed.

        Args:
            number: the number of the step, counted from 1.
        """
        computed: list[Any] = []
        if number == self._first:
            if jax.process_index() == 0:
                shutil.rmtree(self._folder, ignore_errors=True)
            jax.profiler.start_trace(self._folder)
            self._running = True
        with jax.profiler.StepTraceAnnotation("step", step_num=number):
            yield computed.append
        if self._running and number == self._last:
            jax.block_until_ready(computed)
            self.close()

    def close(self) -> None:
        """Ends the trace and writes it, if one is being taken."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
