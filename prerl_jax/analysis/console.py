"""What a run says while it goes: a live line on a terminal, one plain line a step anywhere else.

Logs of continuous integration and of TPU pods are files, where a live display leaves control characters and nothing
readable; there every step is one aligned line of plain text.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterable, Mapping
from typing import Any

from rich import progress as rich_progress
from rich.console import Console, RenderableType
from rich.text import Text

from prerl_jax.analysis.passk import widest

COMPILING = 0.05
"""Share of a step from which on its compilation makes it an extraordinary one."""

CELLS = (
    ("accuracy", "train/accuracy", 3),
    ("reward", "train/reward", 3),
    ("length", "train/length", 1),
    ("tokens/s", "time/tokens_per_second", 0),
)
"""(what it is called, metric, decimals)."""


class Progress:
    """The progress of a run.

        with Progress(total_steps, start_step) as progress:
            progress.update(step, phase, {"train/accuracy": 0.5, ...})
            progress.message("checkpoint at step 25")

    Args:
      total_steps: steps of the whole run.
      start_step: steps done when this process started: they are shown as done and do not count in the time left.
      enabled: False makes every method a no-op, for all processes but one.
      console: where to write; standard output by default.
    """

    def __init__(self, total_steps: int, start_step: int = 0, enabled: bool = True, console: Console | None = None):
        self._total = total_steps
        self._console = (console or Console()) if enabled else None
        self._clock = Clock(total_steps, start_step)
        self._latest: dict[str, float] = {}
        self._phase_width = 10
        self._live: rich_progress.Progress | None = None
        if self._console and self._console.is_terminal:
            self._live = _Display(console=self._console, expand=True)
            fields = {"metrics": {}, "left": _duration(None)}
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
        """Shows a step (`step` of them are done), or an evaluation after it.

        Args:
          step: steps done.
          phase: name of the phase, "base" for the evaluation before training.
          metrics: `train/accuracy`, `train/reward`, `train/length`, `time/tokens_per_second`, `eval/avg@k` are shown,
            each if it is there; `time/compile` is not held against the time left; other names are ignored.
        """
        if not self._console:
            return
        left = self._clock.left(step, time.monotonic(), metrics.get("time/compile", 0.0))
        if self._live:
            self._latest |= metrics
            fields = {"metrics": self._latest, "left": _duration(left)}
            self._live.update(self._task, completed=step, description=phase, **fields)
        else:
            self._print(self._line(step, phase, metrics, left))

    def replan(self, total_steps: int) -> None:
        """The run will have so many steps: a phase has ended early."""
        self._total = self._clock.total = total_steps
        if self._live:
            self._live.update(self._task, total=total_steps)

    def message(self, text: str) -> None:
        """Prints a line of its own, above the live display where there is one. Markup in it is plain text."""
        if self._console:
            self._print("".join(letter for letter in text if letter.isprintable() or letter in "\n\t"))

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def _line(self, step: int, phase: str, metrics: Mapping[str, Any], left: float | None) -> str:
        self._phase_width = max(self._phase_width, len(phase))
        parts = [f"step {step:>{len(str(self._total))}}/{self._total}", f"{phase:<{self._phase_width}}"]
        parts += [f"{name} {_number(metrics.get(metric), digits):>6}" for name, metric, digits in CELLS]
        parts.append(f"left {_duration(left):>8}")
        if average := widest("avg", metrics):
            parts.append(f"{average} {_number(metrics[average], 3)}")
        return "  ".join(parts)


class Clock:
    """Time left, from this process's own steps, evaluations and checkpoints between them included.

    Steps in which something was compiled are left out of the rate; until there are others, they count without it.
    """

    def __init__(self, total_steps: int, start_step: int):
        self.total = total_steps
        self._last = (start_step, 0.0)
        self._ordinary, self._compiling = [0, 0.0], [0, 0.0]

    def start(self, now: float) -> None:
        self._last = (self._last[0], now)

    def left(self, step: int, now: float, compiling: float = 0.0) -> float | None:
        """Seconds left at time `now` with `step` steps done; None before the first step of this process.

        `compiling` is how much of the time since the last call went into compilation.
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
    if average := widest("avg", metrics):
        cells.append((average, average, 3))
    parts = [Text.assemble((f"{name} ", "dim"), _number(metrics[metric], digits)) for name, metric, digits in cells]
    return Text("   ").join(parts)


def _number(value: Any, digits: int) -> str:
    return "-" if value is None else f"{float(value):.{digits}f}"


def _duration(seconds: float | None) -> str:
    return "-" if seconds is None else str(datetime.timedelta(seconds=round(seconds)))
