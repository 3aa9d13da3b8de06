"""`python -m prerl_jax.study configs/studies/NAME.py`: runs a grid of arms and seeds, and writes its table and plots.

Each run is a process of its own, `python -m prerl_jax.launch`. The study's folder, runs/studies/NAME by default, has

    ARM/seed0.py, ARM/seed0/, ARM/seed0.log     the config of a run, its workdir, and its output
    table.md, table.json                        statistics of the finished runs
    FIGURE.png                                  accuracy against steps and compute, pass@k, entropy, length, reflections

The same command continues a study that was stopped: finished runs are not run again, and interrupted runs resume. You
may add arms and seeds. The command refuses a run whose config has changed. It also refuses a run that another process
is still running: a study that was killed with SIGKILL leaves its runs behind.

--jobs N runs N at a time, each on its share of the processor's cores. Use it where several processes can share the
devices; on a TPU they cannot.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import dataclasses
import json
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from prerl_jax.analysis.study_figures import study_figure
from prerl_jax.analysis.study_markdown import markdown
from prerl_jax.analysis.study_statistics import Record
from prerl_jax.analysis.study_table import study_table
from prerl_jax.config.io import difference, load_config, render
from prerl_jax.config.schema import TrainConfig
from prerl_jax.config.study import Figure, Study, load_study
from prerl_jax.runtime.cores import available_cores, pin, shares
from prerl_jax.runtime.lock import try_lock
from prerl_jax.runtime.metrics import MetricsError, read_metrics, write_json, write_text

TAIL = 2000
"""How many characters of a failed run's log are printed."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of the grid.

    Attributes:
      arm: the name of its arm.
      seed: its seed.
      config: its config, with that seed.
      folder: the folder of its arm.
    """

    arm: str
    seed: int
    config: TrainConfig
    folder: Path

    @property
    def workdir(self) -> Path:
        return self.folder / f"seed{self.seed}"

    @property
    def saved(self) -> Path:
        """The run's config file."""
        return self.folder / f"seed{self.seed}.py"

    @property
    def log(self) -> Path:
        return self.folder / f"seed{self.seed}.log"

    @property
    def name(self) -> str:
        return f"{self.arm} seed {self.seed}"

    @property
    def finished(self) -> bool:
        return (self.workdir / "summary.json").is_file()

    def state(self) -> str:
        """The progress of the run, in words."""
        if self.finished:
            return "finished"
        records = read_metrics(self.workdir)
        return f"at step {records[-1]['step']}" if records else "new"

    def lock(self, log: IO[str]) -> None:
        """Locks the run's open log. The run inherits the file, so the lock lasts until the run ends.

        Raises StudyError where another process holds the lock.
        """
        if not try_lock(log):
            raise StudyError(
                f"{self.name} is being run already, by another study command, or because a killed one left it. Wait "
                f"until it ends, or end the process of `prerl_jax.launch --workdir {self.workdir}`."
            )

    def check_free(self) -> None:
        """Raises StudyError if a process is running it."""
        if self.log.is_file():
            with self.log.open("a") as log:
                self.lock(log)

    def guards(self) -> list[str]:
        """What the guards of a finished run did, in words, phase by phase."""
        said = []
        for row in json.loads((self.workdir / "summary.json").read_text()):
            done = [f"ended by {row['ended']}"] if row.get("ended") else []
            said += [f"{row['at']}: {what}" for what in [*row.get("warned", ()), *done]]
        return said

    def changes(self) -> list[str]:
        """The differences between the config that the run was started with and this one, one line for each."""
        if not self.saved.is_file():
            return []
        try:
            return difference(load_config(self.saved), self.config)
        except (ValueError, OSError, ImportError) as error:  # written by another version, or uses a user's module
            return [str(error)]


class StudyError(RuntimeError):
    """Runs failed or cannot be started. The message says which, and where to look."""


def cells(study: Study, out: Path) -> list[Cell]:
    """The runs of a study, seed by seed, so that a study that is stopped early has pairs.

    Raises:
      ValueError: runs in the folder were started with other configs. The error lists the differences.
    """
    grid = [Cell(arm.name, seed, study.config(arm, seed), out / arm.name) for seed in study.seeds for arm in study.arms]
    changed = [(cell, lines) for cell in grid if (lines := cell.changes())]
    if changed:
        said = "\n".join(f"  {cell.name}:\n    " + "\n    ".join(lines) for cell, lines in changed)
        raise ValueError(
            f"{out} has runs with other configs than the study's:\n{said}\n"
            "Use another --out, or remove these runs' folders and .py files."
        )
    return grid


def run_study(study: Study, out: Path, jobs: int = 1) -> None:
    """Runs the unfinished runs of a study, then writes the tables and the pictures.

    Args:
      study: the study.
      out: its folder.
      jobs: how many runs at a time, 1 or more.

    Raises:
      ValueError: runs in the folder were started with other configs. No run was started.
      StudyError: runs failed; the others are finished and in the table. Or another process is running one of them; no
        run was started.
    """
    if jobs < 1:
        raise ValueError(f"jobs is {jobs}; it must be 1 or more.")
    out = out.absolute()
    grid = cells(study, out)
    left = [cell for cell in grid if not cell.finished]
    for cell in left:
        cell.check_free()
    print(f"{len(grid)} runs in {out}, {len(left)} of them to run, {jobs} at a time", flush=True)
    failed = _run_all(left, jobs)
    write_results(study, grid, out)
    if failed:
        logs = "\n".join(f"  {cell.name}: {cell.log}" for cell in failed)
        raise StudyError(f"{len(failed)} of {len(grid)} runs failed; the table has the others. Their logs:\n{logs}")


def _run_all(left: list[Cell], jobs: int) -> list[Cell]:
    """Runs the cells and returns those that failed. Ends the runs that it started, also on an exception."""
    for cell in left:
        cell.folder.mkdir(parents=True, exist_ok=True)
        write_text(cell.saved, render(cell.config))
    places: queue.SimpleQueue[set[int]] = queue.SimpleQueue()
    for place in shares(available_cores(), jobs):
        places.put(place)
    running: set[subprocess.Popen] = set()
    failed = []
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        try:
            started = {pool.submit(_run, cell, places, running): cell for cell in left}
            for number, future in enumerate(concurrent.futures.as_completed(started), start=1):
                cell, (status, seconds) = started[future], future.result()
                said = "finished" if status == 0 else f"FAILED, exit status {status},"
                print(f"[{number}/{len(left)}] {cell.name} {said} after {seconds:.0f} s", flush=True)
                if status:
                    failed.append(cell)
                    print(cell.log.read_text(errors="replace")[-TAIL:], file=sys.stderr, flush=True)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in tuple(running):
                process.terminate()
    return failed


def command(cell: Cell) -> list[str]:
    """The command that runs or resumes a cell."""
    return [sys.executable, "-m", "prerl_jax.launch", "--config", str(cell.saved), "--workdir", str(cell.workdir)]


def _run(cell: Cell, places: queue.SimpleQueue[set[int]], running: set[subprocess.Popen]) -> tuple[int, float]:
    """(exit status, seconds) of one run, on the first share of the cores that is free."""
    place, start = places.get(), time.monotonic()
    try:
        with cell.log.open("a") as log:
            cell.lock(log)
            process = subprocess.Popen(command(cell), stdout=log, stderr=subprocess.STDOUT)
            running.add(process)
            pin(process.pid, place)
            status = process.wait()
            running.discard(process)
    finally:
        places.put(place)
    return status, time.monotonic() - start


def write_results(study: Study, grid: list[Cell], out: Path) -> None:
    """Writes table.json, table.md and the pictures of the finished runs, if there are any."""
    runs: dict[str, dict[int, list[Record]]] = {arm.name: {} for arm in study.arms}
    for cell in grid:
        if cell.finished:
            runs[cell.arm][cell.seed] = read_metrics(cell.workdir)
    numbers = {arm: i for i, arm in enumerate(runs)}
    finished = {arm: found for arm, found in runs.items() if found}
    if not finished:
        return
    said = {arm: {cell.seed: cell.guards() for cell in grid if cell.arm == arm and cell.finished} for arm in finished}
    table = study_table(
        study.name,
        finished,
        accuracy=study.accuracy,
        targets=study.targets,
        watched=study.watched,
        baselines=study.baselines,
        guards=said,
    )
    write_json(out / "table.json", table)
    write_text(out / "table.md", markdown(table))
    for figure in study.figures or (Figure(study.name, tuple(runs)),):
        if shown := {arm: finished[arm] for arm in figure.arms if arm in finished}:
            study_figure(shown, study.accuracy, numbers).savefig(out / f"{figure.name}.png", dpi=110)
    print(markdown(table), flush=True)
    print(f"written to {out}", flush=True)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m prerl_jax.study", description="Run a grid of configs and seeds; write its table and plots."
    )
    p.add_argument("study", help="a study file, or the name of one that ships with the package (studies/NAME)")
    p.add_argument("--out", type=Path, help="the study's folder; runs/studies/NAME by default")
    p.add_argument("--dry-run", action="store_true", help="print the runs and how far each one is, and stop")
    p.add_argument("--jobs", type=int, default=1, metavar="N", help="how many runs at a time; 1 by default")
    return p


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Turns SIGTERM into an exception, so that the runs are ended, too."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    args = parser().parse_args(argv)
    try:
        study = load_study(args.study)
        out = args.out or Path("runs") / "studies" / study.name
        if args.dry_run:
            for cell in cells(study, out):
                steps = sum(phase.steps for phase in cell.config.phases)
                print(f"{cell.name:<40} {steps} steps, {cell.state()}")
            return 0
        with _ended_by_sigterm():
            run_study(study, out, args.jobs)
    except (ValueError, OSError, ImportError, MetricsError, StudyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
