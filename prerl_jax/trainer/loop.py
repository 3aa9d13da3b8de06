"""The loop: sample, verify, prepare, step. It only calls the rooms.

Rows are verified as they end, while the device decodes the others. Whatever starts a device program is called by this
thread, in one order on all processes. It does not wait for an update: while the device computes it, and then samples
for the next step, a thread of the background reads the metrics, writes them and the completions, and shows progress.
What fails there ends the run before the next update. Metrics are on disk before a checkpoint is saved.

`train/`, `eval/` and `alignment/` metrics are functions of the config, its seeds among it; what depends on time or the
machine stands under `time/`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from prerl_jax.analysis.console import Progress
from prerl_jax.config.io import render
from prerl_jax.core.guards import RollBack
from prerl_jax.core.phases import following, steps_left
from prerl_jax.core.types import TrainState
from prerl_jax.evaluation.evaluate import evaluate
from prerl_jax.runtime.background import Background
from prerl_jax.runtime.checkpoints import Checkpoints
from prerl_jax.runtime.compilation import Compilations
from prerl_jax.runtime.distributed import share_errors
from prerl_jax.runtime.goodput import Goodput
from prerl_jax.runtime.metrics import MetricsWriter
from prerl_jax.runtime.peak import peak_flops
from prerl_jax.runtime.profile import Profile
from prerl_jax.runtime.state import at_phase, reset_optimizer
from prerl_jax.trainer.guards import Watch
from prerl_jax.trainer.programs import Programs
from prerl_jax.trainer.references import References
from prerl_jax.trainer.rollback import rolled_back, saves
from prerl_jax.trainer.rollouts import sample
from prerl_jax.trainer.setup import Setup
from prerl_jax.trainer.steps import Step, completions, due
from prerl_jax.trainer.updates import update
from prerl_jax.verify import InProcessVerifier, Pool


@dataclasses.dataclass
class Run:
    """What the loop holds: all of it is in a checkpoint, or made from the config."""

    programs: Programs
    state: TrainState
    batches: Any
    writer: MetricsWriter
    checkpoints: Checkpoints
    progress: Progress
    profile: Profile = dataclasses.field(default_factory=lambda: Profile(Path(), None))
    goodput: Goodput = dataclasses.field(default_factory=Goodput)
    verify: Pool | InProcessVerifier | None = None
    """None verifies in this process."""
    references: References | None = None
    """What phases are held against; None for a run without checkpoints."""
    watch: Watch = dataclasses.field(default_factory=Watch)
    initial: Callable[[], TrainState] | None = None
    """Makes the state that the run began with, for a guard that goes back to it."""

    def __post_init__(self) -> None:
        self.verify = self.verify or InProcessVerifier(self.setup.config.data.verifier)
        self.references = self.references or References(self.setup)

    @property
    def setup(self) -> Setup:
        return self.programs.setup


def train(run: Run) -> TrainState:
    """Runs what is left of the phases; returns the final state.

    Raises CheckpointError when a checkpoint cannot be written; the last good one is intact.
    """
    with contextlib.closing(run.profile), Loop(run) as loop:
        if loop.number == 0:
            loop.begin()
        while loop.index < len(run.setup.phases):
            with run.profile.step(loop.number + 1, wait=lambda: jax.block_until_ready(run.state)):
                loop.after(loop.step())
    run.checkpoints.wait()
    return run.state


class Loop:
    """The steps of a run, one after the other.

    Attributes:
      number: steps done.
      index: of the current phase; the number of phases when the run is over.
      done: steps done in it. All three are the state's, on the host.
    """

    def __init__(self, run: Run):
        self.run = run
        self.number, self.index, self.done = (int(n) for n in (run.state.step, run.state.phase, run.state.phase_step))
        self._background = Background("metrics")
        self._compilations = Compilations()

    def __enter__(self) -> Loop:
        setup = self.run.setup
        self._compilations.__enter__()
        self._peak, said = peak_flops(list(setup.mesh.devices.flat), setup.model.compute_dtype)
        self._say(said)
        self._free = time.perf_counter()
        return self

    def __exit__(self, kind: type | None, *error: object) -> None:
        try:
            self._background.__exit__(kind, *error)
        finally:
            self._compilations.__exit__()

    def begin(self) -> None:
        """The evaluation of the base model."""
        evaluated = self.evaluate()
        self._free = time.perf_counter()
        self.run.watch.enter(self.run.setup.phases[0], 0, evaluated)
        self.report(0, "base", evaluated)

    def step(self) -> Step:
        """One rollout batch and its update, which the device may still be computing; moves `run.state`."""
        run, phases = self.run, self.run.setup.phases
        step = Step(self.number + 1, phases[self.index], self.done)
        if self.done == 0 and step.phase.reset_optimizer:
            run.state = reset_optimizer(run.state, run.setup.optimizer(step.phase))
        sample(run, step, self._background.check)
        update(run, step, self._background.submit)
        step.metrics |= step.counted
        self.index, self.done = following(phases, self.index, self.done)
        self.number, step.ended = step.number, self.done == 0
        return step

    def after(self, step: Step) -> None:
        """Evaluation, guards, metrics and checkpoint of a step, each when it is due."""
        config, run = self.run.setup.config, self.run
        if step.ended or due(config.evaluation.every, step.number):
            self._evaluate(step)
        if step.phase.guards:
            self._guard(step)
        if step.ended:
            phases = run.setup.phases
            entered = phases[self.index] if self.index < len(phases) else None
            run.watch.enter(entered, step.number, step.evaluated)
        self._background.submit(self.conclude, step)
        if step.ended or due(config.checkpoints.every, step.number) or due(saves(step.phase), self.done):
            self._save(step)

    def evaluate(self) -> dict[str, float]:
        """`eval/` metrics of the parameters as they are, and the seconds that they took."""
        start = time.perf_counter()
        metrics = evaluate(self.run.programs, self.run.state.params, self.run.verify)
        return metrics | {"time/evaluate": time.perf_counter() - start}

    def report(self, step: int, phase: str, metrics: dict[str, float]) -> None:
        """A line of the metrics, and of the progress."""
        metrics = metrics | {"time/compile": self._compilations.take_seconds()}
        metrics |= self.run.goodput.metrics(metrics)
        self.run.writer.write(step, phase, metrics)
        if self.run.progress:
            self.run.progress.update(step, phase, metrics)

    def _say(self, text: str) -> None:
        if self.run.progress:
            self.run.progress.message(text)

    def _wait(self, step: Step) -> None:
        """Until a step's update is computed."""
        if "done" not in step.times.marks:
            step.wait_aligned()
            jax.block_until_ready(step.metrics)
            step.times.mark("done")

    def _evaluate(self, step: Step) -> None:
        self._wait(step)
        step.evaluated = self.evaluate()
        step.free = time.perf_counter()

    def _guard(self, step: Step) -> None:
        """Lets the phase's guards decide, which waits for the update, and does what they say."""
        run, phases = self.run, self.run.setup.phases
        self._wait(step)
        decision = run.watch.look(step.phase, step.number, step.measured() | step.evaluated)
        step.guarded, done = decision.metrics, ""
        for text in decision.warned:
            self._say(f"warning: guard {text}")
        if decision.reaction is not None:
            if not step.ended:
                self.index, self.done, step.ended = self.index + 1, 0, True
                run.state = at_phase(run.state, run.setup.mesh, self.index)
            if isinstance(decision.reaction, RollBack):
                begun = step.number - step.phase_step - 1
                run.state, back = rolled_back(run, max(decision.good, begun))
                done = f" -> rolled back to step {back}"
                step.evaluated = {}
            if not step.evaluated:
                self._evaluate(step)
            said = f"guard {' and '.join(decision.ended)}{done}"
            run.watch.ended[step.phase.name] = {"steps": step.phase_step + 1, "said": said}
            if run.progress:
                run.progress.replan(step.number + steps_left(phases, self.index, 0))
            self._say(f"{step.phase.name} ended: {said}")

    def conclude(self, step: Step) -> None:
        """Reads and writes what is to be kept of a step; its scalars are there then. In the background."""
        self._wait(step)
        step.scalars = step.measured() | step.times.metrics(self._free)
        step.scalars |= step.work.metrics(step.scalars, self._peak) | step.evaluated | step.guarded
        step.scalars["time/verifier_timeouts"] = float(step.late.sum())
        self._free = step.free or step.times.marks["done"]
        self.run.writer.completions(step.number, completions(self.run.setup.config, step))
        self.report(step.number, step.phase.name, step.scalars)

    def _save(self, step: Step) -> None:
        """A checkpoint, once the lines are on disk that a resume from it keeps."""
        run = self.run
        with share_errors("writing metrics and the checkpoint before"):
            self._background.wait()
            run.writer.flush()
            run.checkpoints.wait()
        extra = {"data": step.position, "phase": self.index, "config": render(run.setup.config)}
        extra["watch"] = run.watch.saved()
        needed = () if step.ended else run.watch.needed(step.phase)
        run.checkpoints.save(step.number, run.state, extra, step.scalars, boundary=step.ended, needed=needed)
