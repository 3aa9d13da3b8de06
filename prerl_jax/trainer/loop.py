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
from pathlib import Path
from typing import Any

import jax
import numpy as np

from prerl_jax.analysis.console import Progress
from prerl_jax.config_io import render
from prerl_jax.core.phases import Phase, locate
from prerl_jax.core.types import Prompts, Rollouts, TrainState
from prerl_jax.data import Example, left_pad
from prerl_jax.data.problems import as_text
from prerl_jax.runtime.background import Background
from prerl_jax.runtime.checkpoints import Checkpoints
from prerl_jax.runtime.compilation import Compilations
from prerl_jax.runtime.distributed import together
from prerl_jax.runtime.goodput import Goodput
from prerl_jax.runtime.mesh import all_rows
from prerl_jax.runtime.metrics import MetricsWriter
from prerl_jax.runtime.peak import peak_flops
from prerl_jax.runtime.profile import Profile, annotate
from prerl_jax.runtime.state import reset_optimizer
from prerl_jax.trainer.assembly import Assembly
from prerl_jax.trainer.collect import collect
from prerl_jax.trainer.evaluation import evaluate
from prerl_jax.trainer.programs import Programs
from prerl_jax.trainer.references import References
from prerl_jax.trainer.times import Times, Work
from prerl_jax.trainer.updates import update
from prerl_jax.trainer.verification import Verification
from prerl_jax.verify import InProcess, Pool


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
    verify: Pool | InProcess | None = None
    """None verifies in this process."""
    references: References | None = None
    """What phases are held against; None for a run without checkpoints."""

    def __post_init__(self) -> None:
        self.verify = self.verify or InProcess(self.assembly.config.data.verifier)
        self.references = self.references or References(self.assembly)

    @property
    def assembly(self) -> Assembly:
        return self.programs.assembly


@dataclasses.dataclass
class Step:
    """A step under way: what is known of it, in the order in which it is found out."""

    number: int
    """From 1."""
    phase: Phase
    examples: list[Example]
    prompts: Prompts
    position: dict
    """Of the data, after this step."""
    phase_step: int = 0
    """Steps done in the phase before this one."""
    times: Times = dataclasses.field(default_factory=Times)
    key: jax.Array | None = None
    """Of what is drawn at random in preparing."""
    rollouts: Rollouts | None = None
    responses: list[str] | None = None
    late: np.ndarray | None = None
    """bool: whether verification took too long, of this process's rows; then of all."""
    aligned: dict[str, jax.Array] = dataclasses.field(default_factory=dict)
    metrics: dict[str, Any] = dataclasses.field(default_factory=dict)
    """On the device, which may not have computed them yet."""
    work: Work | None = None
    evaluated: dict[str, float] = dataclasses.field(default_factory=dict)
    free: float | None = None
    """When the device was free of an evaluation after it."""
    scalars: dict[str, float] = dataclasses.field(default_factory=dict)
    """All metrics, as numbers."""


def train(run: Run) -> TrainState:
    """Runs what is left of the phases; returns the final state.

    Raises CheckpointError when a checkpoint cannot be written; the last good one is intact.
    """
    first, total = int(run.state.step), sum(phase.steps for phase in run.assembly.phases)
    with contextlib.closing(run.profile), Loop(run) as loop:
        if first == 0:
            loop.report(0, "base", loop.evaluate())
        for number in range(first + 1, total + 1):
            with run.profile.step(number):
                loop.after(loop.step(number))
    run.checkpoints.wait()
    return run.state


class Loop:
    """The steps of a run, one after the other."""

    def __init__(self, run: Run):
        self.run = run
        self._background = Background("metrics")
        self._compilations = Compilations()

    def __enter__(self) -> Loop:
        assembly = self.run.assembly
        self._compilations.__enter__()
        self._peak, said = peak_flops(list(assembly.mesh.devices.flat), assembly.model.compute_dtype)
        if self.run.progress:
            self.run.progress.message(f"time/mfu is a share of {said}")
        self._free = time.perf_counter()
        return self

    def __exit__(self, kind: type | None, *error: object) -> None:
        try:
            self._background.__exit__(kind, *error)
        finally:
            self._compilations.__exit__()

    def step(self, number: int) -> Step:
        """One rollout batch and its update, which the device may still be computing; moves `run.state`."""
        run, phases = self.run, self.run.assembly.phases
        index, already = locate(phases, number - 1)
        if already == 0 and phases[index].reset_optimizer:
            run.state = reset_optimizer(run.state, run.assembly.optimizer(phases[index]))
        step = self._ask(number, phases[index])
        step.phase_step = already
        self._sample(step)
        step.late = all_rows(step.late)
        update(run, step)
        return step

    def after(self, step: Step) -> None:
        """Evaluation, metrics and checkpoint of a step, each when it is due."""
        config = self.run.assembly.config
        ended = locate(self.run.assembly.phases, step.number)[1] == 0
        if ended or _every(config.evaluation.every, step.number):
            self._wait(step)
            step.evaluated = self.evaluate()
            step.free = time.perf_counter()
        self._background.submit(self.conclude, step)
        if ended or _every(config.checkpoints.every, step.number):
            self._save(step, ended)

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

    def _wait(self, step: Step) -> None:
        """Until a step's update is computed."""
        if "done" not in step.times.marks:
            jax.block_until_ready(step.aligned)
            step.times.mark("aligned")
            jax.block_until_ready(step.metrics)
            step.times.mark("done")

    def conclude(self, step: Step) -> None:
        """Reads and writes what is to be kept of a step; its scalars are there then. In the background."""
        self._wait(step)
        step.scalars = _scalars(jax.device_get(step.metrics | step.aligned)) | step.times.metrics(self._free)
        step.scalars |= step.work.metrics(step.scalars, self._peak) | step.evaluated
        step.scalars["time/late_verdicts"] = float(step.late.sum())
        self._free = step.free or step.times.marks["done"]
        self.run.writer.completions(step.number, _completions(self.run.assembly.config, step))
        self.report(step.number, step.phase.name, step.scalars)

    def _save(self, step: Step, ended: bool) -> None:
        """A checkpoint, once the lines are on disk that a resume from it keeps."""
        run = self.run
        with together("writing metrics and the checkpoint before"):
            self._background.wait()
            run.writer.flush()
            run.checkpoints.wait()
        index, _ = locate(run.assembly.phases, step.number)
        extra = {"data": step.position, "phase": index, "config": render(run.assembly.config)}
        run.checkpoints.save(step.number, run.state, extra, step.scalars, boundary=ended)

    def _ask(self, number: int, phase: Phase) -> Step:
        """A step with this process's examples, and their prompts with ids that are unique in the global batch."""
        run, assembly = self.run, self.run.assembly
        examples = [assembly.train[i] for i in next(run.batches)]
        prompts = left_pad(examples, assembly.config.data.max_prompt_tokens, assembly.pad_token)
        ids = np.arange(len(examples), dtype=np.int32) + len(examples) * jax.process_index()
        prompts = Prompts(prompts.prompt, prompts.prompt_mask, ids)
        return Step(number, phase, examples, prompts, run.batches.get_state())

    def _sample(self, step: Step) -> None:
        """Rollouts and their rewards."""
        run, assembly, programs = self.run, self.run.assembly, self.run.programs
        with Verification(assembly, run.verify, _problems(assembly.config, step)) as verification:
            with annotate("sample"):
                key, step.key = programs.step_keys(run.state.rng, step.number - 1)
                engine = programs.engine(step.phase)
                rollouts = collect(engine, run.state.params, step.prompts, key, assembly.mesh, verification.add)
            step.times.mark("sampled")
            with together("verification"):
                self._background.check()
                verdicts = verification.verdicts()
        step.responses, step.late = verdicts.responses, verdicts.verified.late
        step.rollouts = dataclasses.replace(rollouts, rewards=verdicts.verified.rewards, truncated=verdicts.cut)
        step.times.mark("verified")


def _every(steps: int, number: int) -> bool:
    return bool(steps) and number % steps == 0


def _problems(config, step: Step) -> list[Any]:
    return [example.problem for example in step.examples for _ in range(config.sampling.group_size)]


def _completions(config, step: Step) -> list[dict[str, Any]]:
    """A few of the step's responses, evenly spread over its groups."""
    problems = _problems(config, step)
    count = min(config.completions_per_step, len(problems))
    return [
        {
            "phase": step.phase.name,
            "prompt": as_text(problems[row].prompt),
            "answer": problems[row].answer,
            "response": step.responses[row],
            "reward": float(step.rollouts.rewards[row]),
            "truncated": bool(step.rollouts.truncated[row]),
        }
        for row in (i * len(problems) // count for i in range(count))
    ]


def _scalars(metrics: dict[str, Any]) -> dict[str, float]:
    """Vectors by layer become one entry a layer."""
    flat = {}
    for name, value in metrics.items():
        if np.ndim(value):
            flat |= {f"{name}/{i}": float(v) for i, v in enumerate(value)}
        else:
            flat[name] = float(value)
    return flat
