"""The progress of a run: a live display on a terminal, one plain line per step in a file.

The logs of continuous integration and of TPU pods are files, in which the control characters of a live display would be
unreadable. There every step gets one aligned line of plain text.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterable, Mapping
from typing import Any

from rich import progress as rich_progress
from rich.console import Console, RenderableType
from rich.text import Text

from prerl_jax.analysis.passk import largest_k

COMPILING = 0.05
"""Steps that spend more than this share of their time on compilation do not count for the time left."""

CELLS = (
    ("accuracy", "train/accuracy", 3),
    ("reward", "train/reward", 3),
    ("length", "train/length", 1),
    ("tokens/s", "time/tokens_per_second", 0),
)
"""(label, metric, decimals) of the metrics that are shown."""
UNKNOWN = ("train/unknown", "eval/unknown")
"""The shares of unknown verdicts, which are shown where they are above MOST_UNKNOWN."""
MOST_UNKNOWN = 0.01


class Progress:
    """Shows the progress of a run.

        with Progress(total_steps, start_step) as progress:
            progress.update(step, phase, {"train/accuracy": 0.5, ...})
            progress.message("checkpoint at step 25")

    Args:
      total_steps: how many steps the whole run has.
      start_step: how many steps were done when this process started. They are shown as done, and do not count for the
        time left.
      enabled: True on one process only. On the others no method does anything.
      console: where to write; standard output by default.
    """

    def __init__(
        self, total_steps: int, start_step: int = 0, enabled: bool = True, console: Console | None = None
    ) -> None:
        self._total = total_steps
        self._console = (console or Console()) if enabled else None
        self._clock = Clock(total_steps, start_step)
        self._latest: dict[str, float] = {}
        self._phase_width = 10
        self._live: rich_progress.Progress | None = None
        if self._console and self._console.is_terminal:
            self._live = _Display(console=self._console, expand=True)
            fields: dict[str, Any] = {"metrics": {}, "left": _duration(None)}
            self._task = self._live.add_task("starting", total=total_steps, completed=start_step, **fields)

    def __enter__(self) -> Progress:
        self._clock.start(time.monotonic())
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._live.stop()

    def update(self, step: int, phase: str, metrics: Mapping[str, Any]) -> None:
        """Shows a step, or an evaluation after it.

        Args:
          step: how many steps are done.
          phase: the name of the phase; "base" for the evaluation before training.
          metrics: metric name -> value. `train/accuracy`, `train/reward`, `train/length`, `time/tokens_per_second` and
            `eval/avg@k` are shown if present, and the shares of unknown verdicts above 1 %. `time/compile` is
            subtracted in the estimate of the time left. Other metrics are ignored.
        """
        if not self._console:
            return
        left = self._clock.left(step, time.monotonic(), metrics.get("time/compile", 0.0))
        if self._live:
            self._latest |= metrics
            fields: dict[str, Any] = {"metrics": self._latest, "left": _duration(left)}
            self._live.update(self._task, completed=step, description=phase, **fields)
        else:
            self._print(self._line(step, phase, metrics, left))

    def replan(self, total_steps: int) -> None:
        """Changes the number of steps of the run, because a phase has ended early.

        Args:
          total_steps: how many steps the whole run has now.
        """
        self._total = self._clock.total = total_steps
        if self._live:
            self._live.update(self._task, total=total_steps)

    def message(self, text: str) -> None:
        """Prints a separate line, above the live display if there is one.

        Args:
          text: printed as it is: markup is not interpreted, and control characters are removed.
        """
        self._print("".join(letter for letter in text if letter.isprintable() or letter in "\n\t"))

    def _print(self, text: str) -> None:
        if self._console:
            self._console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def _line(self, step: int, phase: str, metrics: Mapping[str, Any], left: float | None) -> str:
        self._phase_width = max(self._phase_width, len(phase))
        parts = [f"step {step:>{len(str(self._total))}}/{self._total}", f"{phase:<{self._phase_width}}"]
        parts += [f"{name} {_number(metrics.get(metric), digits):>6}" for name, metric, digits in CELLS]
        parts.append(f"left {_duration(left):>8}")
        if average := largest_k("avg", metrics):
            parts.append(f"{average} {_number(metrics[average], 3)}")
        parts += [f"{name} {metrics[name]:.1%}" for name in _many_unknown(metrics)]
        return "  ".join(parts)


class Clock:
    """Estimates the time left of a run from the time per step of this process.

    Evaluations and checkpoints between steps count as time of a step. Steps with compilation do not count; until there
    are other steps, they count without the seconds of compilation.

    Args:
      total_steps: how many steps the whole run has.
      start_step: how many steps were done when this process started.

    Attributes:
      total: how many steps the whole run has; may be changed.
    """

    def __init__(self, total_steps: int, start_step: int) -> None:
        self.total = total_steps
        self._last = (start_step, 0.0)
        self._ordinary: list[float] = [0, 0.0]  # steps, seconds
        self._compiling: list[float] = [0, 0.0]

    def start(self, now: float) -> None:
        """Starts the clock at time `now`, in seconds."""
        self._last = (self._last[0], now)

    def left(self, step: int, now: float, compiling: float = 0.0) -> float | None:
        """Counts the time since the last call, and estimates the time left.

        Args:
          step: how many steps are done.
          now: the time, in seconds.
          compiling: how many seconds since the last call were spent on compilation.

        Returns:
          Seconds left; None before the first step of this process.
        """
        steps, seconds = step - self._last[0], now - self._last[1]
        self._last = (step, now)
        if steps > 0:
            kind = self._compiling if compiling > COMPILING * seconds else self._ordinary
            kind[0] += steps
            kind[1] += max(0.0, seconds - compiling)
        done, spent = self._ordinary if self._ordinary[0] else self._compiling
        return spent / done * (self.total - step) if done else None


class _Display(rich_progress.Progress):
    """The live display: phase, bar, step and time left on one line, the metrics below it."""

    @classmethod
    def get_default_columns(cls) -> tuple[rich_progress.ProgressColumn, ...]:
        return (
            rich_progress.TextColumn("{task.description}", style="bold", markup=False),
            rich_progress.BarColumn(bar_width=None),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TextColumn("{task.fields[left]} left", style="cyan", markup=False),
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        yield from (_cells(task.fields["metrics"]) for task in self.tasks)


def _cells(metrics: Mapping[str, Any]) -> Text:
    cells = [(name, metric, digits) for name, metric, digits in CELLS if metric in metrics]
    if average := largest_k("avg", metrics):
        cells.append((average, average, 3))
    parts = [Text.assemble((f"{name} ", "dim"), _number(metrics[metric], digits)) for name, metric, digits in cells]
    parts += [Text(f"{name} {metrics[name]:.1%}", "yellow") for name in _many_unknown(metrics)]
    return Text("   ").join(parts)


def _many_unknown(metrics: Mapping[str, Any]) -> list[str]:
    return [name for name in UNKNOWN if metrics.get(name, 0.0) > MOST_UNKNOWN]


def _number(value: Any, digits: int) -> str:
    return "-" if value is None else f"{float(value):.{digits}f}"


def _duration(seconds: float | None) -> str:
    return "-" if seconds is None else str(datetime.timedelta(seconds=round(seconds)))
