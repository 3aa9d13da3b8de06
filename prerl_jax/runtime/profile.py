"""A trace of a few steps, for TensorBoard, XProf or Perfetto.

`PROFILE/plugins/profile/TIME/` gets `HOST.xplane.pb` (tensorboard --logdir PROFILE, with the plugin xprof) and
`HOST.trace.json.gz`, which https://ui.perfetto.dev opens. A step is annotated with its number, its parts as sample,
verify, prepare and train.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

STEPS = 3

annotate = jax.profiler.TraceAnnotation


class Profile:
    """Traces steps `first` to `first + STEPS - 1`, counted from 1; None traces nothing.

    Args:
      folder: where the trace goes; one of an earlier run is removed.
      first: the first step. A run that ends earlier has traced what there was.
    """

    def __init__(self, folder: Path, first: int | None):
        if first is not None and first < 1:
            raise ValueError(f"steps are counted from 1, so none can be profiled from {first} on.")
        self._folder, self._first, self._running = Path(folder), first, False

    def check(self, done: int, total: int) -> None:
        """Raises ValueError where a run with so many steps done, of so many, has no step to trace."""
        if self._first is not None and not done < self._first <= total:
            raise ValueError(
                f"--profile {self._first} traces steps {self._first} to {self._first + STEPS - 1}, and "
                + (f"steps {done + 1} to {total} are left." if done < total else f"all {total} steps are done.")
            )

    @contextlib.contextmanager
    def step(self, number: int, wait: Callable[[], object]) -> Iterator[None]:
        """Around a step, which is traced if it is one of them; `wait` is for all that the device has been given."""
        if number == self._first:
            if jax.process_index() == 0:
                shutil.rmtree(self._folder, ignore_errors=True)
            jax.profiler.start_trace(self._folder)
            self._running = True
        with jax.profiler.StepTraceAnnotation("step", step_num=number):
            yield
        if self._running and number == self._first + STEPS - 1:
            wait()
            self.close()

    def close(self) -> None:
        """Ends a trace that is under way, and writes it."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
