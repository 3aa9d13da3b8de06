"""What a run reports: metrics, completions and progress, written while the device computes.

One thread reads the metrics of a step when the device has computed them, writes them with the completions, and shows
the progress. An error in it ends the run before the next update. Lines are on disk before a checkpoint is saved.
"""

from __future__ import annotations

import dataclasses
import time
from concurrent.futures import Future

import jax

from prerl_jax.analysis.console import Progress
from prerl_jax.analysis.symptoms import Watch
from prerl_jax.core.train_step import Metrics
from prerl_jax.runtime.background import Background
from prerl_jax.runtime.compilation import Compilations
from prerl_jax.runtime.goodput import Goodput
from prerl_jax.runtime.metrics import MetricsWriter
from prerl_jax.runtime.peak import peak_flops
from prerl_jax.trainer.metrics import as_numbers
from prerl_jax.trainer.rollouts import RolloutBatch, completions
from prerl_jax.trainer.setup import Setup
from prerl_jax.trainer.timing import StepClock, Work, wait_until_aligned


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
      metrics: `eval/` metrics, and the seconds it took.
      ended: the time (`time.perf_counter`) at which it ended.
    """

    metrics: dict[str, float]
    ended: float


@dataclasses.dataclass(frozen=True)
class StepReport:
    """The report of a step. The device may still be computing its metrics.

    Attributes:
      step: the number of the step, from 1.
      phase: the name of its phase.
      batch: the rollouts it was trained on.
      clock: the times at which its stages ended.
      metrics: `train/` metrics f32[], on the device.
      alignment: `alignment/` metrics, on the device; empty where alignment was not measured.
      work: its tokens and FLOPs.
      timeouts: the number of verifier timeouts.
      evaluation: the evaluation after it; None without one.
      guards: the metrics of the guards.
    """

    step: int
    phase: str
    batch: RolloutBatch
    clock: StepClock
    metrics: Metrics
    alignment: Metrics
    work: Work
    timeouts: int
    evaluation: Evaluation | None = None
    guards: dict[str, float] = dataclasses.field(default_factory=dict)

    def wait(self) -> None:
        """Waits until the device has computed the step, and sets the clock's mark "done"."""
        wait_until_aligned(self.clock, self.alignment)
        jax.block_until_ready(self.metrics)
        self.clock.mark_once("done")

    def measured(self) -> dict[str, float]:
        """The `train/` and `alignment/` metrics as numbers; waits for the device."""
        self.wait()
        return as_numbers(jax.device_get(self.metrics | self.alignment))


class Reporter:
    """Writes the lines of a run and shows its progress. Use it as a context manager: on exit it waits for the thread.

    Args:
      setup: the run's config, devices and training data.
      writer: writes metrics.jsonl and completions.jsonl.
      progress: shows the progress; None shows nothing.
      goodput: computes `time/goodput`.
    """

    def __init__(self, setup: Setup, writer: MetricsWriter, progress: Progress | None, goodput: Goodput):
        self._setup, self._writer, self._progress, self._goodput = setup, writer, progress, goodput
        self._background = Background("metrics")
        self._compilations = Compilations()
        self._watch = Watch()
        self._peak: float | None = None
        self._free = 0.0

    def __enter__(self) -> Reporter:
        self._compilations.__enter__()
        devices, dtype = list(self._setup.mesh.devices.flat), self._setup.model.compute_dtype
        self._peak, note = peak_flops(devices, dtype)
        self.message(note)
        self._free = time.perf_counter()
        return self

    def __exit__(self, kind: type | None, *error: object) -> None:
        try:
            self._background.__exit__(kind, *error)
        finally:
            self._compilations.__exit__()

    def message(self, text: str) -> None:
        """Shows a line of text."""
        if self._progress:
            self._progress.message(text)

    def replan(self, total_steps: int) -> None:
        """Sets the total number of steps, after a phase has ended early."""
        if self._progress:
            self._progress.replan(total_steps)

    def check(self) -> None:
        """Raises the error of the reporting thread, if it failed."""
        self._background.check()

    def evaluated(self, step: int, phase: str, evaluation: Evaluation) -> None:
        """Reports an evaluation on its own: of the base model, as phase "base" of step 0, or after `step`.

        Its time does not count as time of the next step.
        """
        self._background.wait()
        self._free = time.perf_counter()
        self._line(step, phase, evaluation.metrics)

    def watch_alignment(self, clock: StepClock, alignment: Metrics) -> None:
        """Sets the clock's mark "aligned" when the device has measured the alignment."""
        self._background.submit(wait_until_aligned, clock, alignment)

    def step(self, report: StepReport) -> Future[dict[str, float]]:
        """Reports a step in the background; the result is all its metrics as numbers."""
        return self._background.submit(self._report, report)

    def flush(self) -> None:
        """Waits until all lines are on disk; raises an error of the thread."""
        self._background.wait()
        self._writer.flush()

    def _report(self, report: StepReport) -> dict[str, float]:
        numbers = report.measured() | report.clock.metrics(self._free)
        numbers |= report.work.metrics(numbers, self._peak)
        self._free = report.clock.marks["done"]
        if report.evaluation is not None:
            numbers |= report.evaluation.metrics
            self._free = report.evaluation.ended
        numbers |= report.guards
        numbers["time/verifier_timeouts"] = float(report.timeouts)
        count = self._setup.config.completions_per_step
        self._writer.completions(report.step, completions(report.batch, self._setup.train, report.phase, count))
        self._line(report.step, report.phase, numbers)
        self._watch, warnings = self._watch.after(report.step, report.phase, numbers)
        for warning in warnings:
            self.message(f"warning: {warning}")
        return numbers

    def _line(self, step: int, phase: str, metrics: dict[str, float]) -> None:
        """Writes one line of metrics, and shows it."""
        metrics = metrics | {"time/compile": self._compilations.take_seconds()}
        metrics |= self._goodput.metrics(metrics)
        self._writer.write(step, phase, metrics)
        if self._progress:
            self._progress.update(step, phase, metrics)
