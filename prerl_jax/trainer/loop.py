"""The loop: sample, verify, prepare, step. It only calls the rooms.

`train/`, `eval/` and `alignment/` metrics are functions of the config, its seeds among it; what depends on time or the
machine stands under `time/`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from prerl_jax.analysis.console import Progress
from prerl_jax.config_io import render
from prerl_jax.core.phases import Phase, advance
from prerl_jax.core.types import Prompts, Rollouts, TrainState
from prerl_jax.data import Example, left_pad
from prerl_jax.data.problems import as_text
from prerl_jax.runtime.checkpoints import Checkpoints
from prerl_jax.runtime.mesh import global_rows
from prerl_jax.runtime.metrics import MetricsWriter
from prerl_jax.runtime.state import reset_optimizer
from prerl_jax.trainer.assembly import Assembly
from prerl_jax.trainer.collect import collect, texts, truncated
from prerl_jax.trainer.evaluation import evaluate
from prerl_jax.trainer.programs import Programs
from prerl_jax.verify import verify_all


@dataclasses.dataclass
class Run:
    """What the loop holds: all of it is in a checkpoint, or made from the config."""

    programs: Programs
    state: TrainState
    batches: Any
    writer: MetricsWriter
    checkpoints: Checkpoints
    progress: Progress

    @property
    def assembly(self) -> Assembly:
        return self.programs.assembly


class Stopwatch:
    """Seconds spent in named parts of a step."""

    def __init__(self):
        self.seconds: dict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[f"time/{name}"] += time.perf_counter() - start


def train(run: Run) -> TrainState:
    """Runs what is left of the phases; returns the final state.

    Raises CheckpointError when a checkpoint cannot be written; the last good one is intact.
    """
    phases = run.assembly.phases
    if int(run.state.step) == 0:
        watch = Stopwatch()
        with watch("evaluate"):
            metrics = evaluate(run.programs, run.state.params)
        _report(run, 0, "base", metrics | watch.seconds)
    while int(run.state.phase) < len(phases):
        phase = phases[int(run.state.phase)]
        metrics = _step(run, phase)
        step = int(run.state.step)
        ended = int(run.state.phase_step) == 0
        spec = run.assembly.config
        if ended or (spec.evaluation.every and step % spec.evaluation.every == 0):
            start = time.perf_counter()
            metrics |= evaluate(run.programs, run.state.params)
            metrics["time/evaluate"] = time.perf_counter() - start
        _report(run, step, phase.name, metrics)
        if ended and int(run.state.phase) < len(phases) and phases[int(run.state.phase)].reset_optimizer:
            run.state = reset_optimizer(run.state, run.assembly.optimizer(phases[int(run.state.phase)]))
        if ended or (spec.checkpoints.every and step % spec.checkpoints.every == 0):
            _save(run, metrics, boundary=ended)
    run.checkpoints.wait()
    return run.state


def _step(run: Run, phase: Phase) -> dict[str, float]:
    """One rollout batch and its update; moves `run.state`."""
    assembly, programs, watch = run.assembly, run.programs, Stopwatch()
    config, started = assembly.config, time.perf_counter()
    with watch("sample"):
        examples, prompts = _next_prompts(run)
        key = jax.random.fold_in(run.state.rng, run.state.step)
        rollouts = collect(programs.engine(phase), run.state.params, prompts, key, assembly.mesh, assembly.calls)
    with watch("verify"):
        responses = texts(rollouts, assembly.decode)
        cut = truncated(rollouts, assembly.stop_tokens)
        problems = [example.problem for example in examples for _ in range(config.sampling.group_size)]
        rewards = verify_all(config.data.verifier, problems, responses, cut)
        rollouts = dataclasses.replace(rollouts, rewards=rewards)
    with watch("prepare"):
        on_mesh, cut_on_mesh = global_rows(assembly.mesh, (rollouts, cut))
        batch, statistics = programs.prepare(phase)(on_mesh, cut_on_mesh)
        batch = programs.place(phase, batch)
    metrics = dict(statistics)
    if config.alignment_every and int(run.state.step) % config.alignment_every == 0:
        with watch("align"):
            metrics |= jax.block_until_ready(
                programs.dual(phase.temperature)(run.state.params, _subset(assembly, rollouts))
            )
    with watch("train"):
        run.state, stepped = programs.step(phase)(run.state, batch)
        metrics |= jax.block_until_ready(stepped)
        run.state = advance(assembly.phases, run.state)
    run.writer.completions(int(run.state.step), _completions(config, phase, problems, responses, rollouts, cut))
    total = watch.seconds["time/step"] = time.perf_counter() - started
    metrics = jax.device_get(metrics)
    tokens = metrics["train/length"] * config.sampling.prompts * config.sampling.group_size
    return _scalars(metrics) | watch.seconds | {"time/tokens_per_second": float(tokens) / total}


def _next_prompts(run: Run) -> tuple[list[Example], Prompts]:
    """This process's examples of the next batch, and their prompts with ids that are unique in the global batch."""
    assembly = run.assembly
    examples = [assembly.train[i] for i in next(run.batches)]
    prompts = left_pad(examples, assembly.config.data.max_prompt_tokens, assembly.pad_token)
    ids = np.arange(len(examples), dtype=np.int32) + len(examples) * jax.process_index()
    return examples, Prompts(prompts.prompt, prompts.prompt_mask, ids)


def _subset(assembly: Assembly, rollouts: Rollouts) -> Rollouts:
    """The groups that alignment is measured on: the first of every process, on the mesh."""
    rows = assembly.config.alignment_prompts // jax.process_count() * assembly.config.sampling.group_size
    return global_rows(assembly.mesh, jax.tree.map(lambda x: x[:rows], rollouts))


def _completions(config, phase, problems, responses, rollouts, cut) -> list[dict[str, Any]]:
    """A few of the step's responses, evenly spread over its groups."""
    count = min(config.completions_per_step, len(responses))
    return [
        {
            "phase": phase.name,
            "prompt": as_text(problems[row].prompt),
            "answer": problems[row].answer,
            "response": responses[row],
            "reward": float(rollouts.rewards[row]),
            "truncated": bool(cut[row]),
        }
        for row in (i * len(responses) // count for i in range(count))
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


def _report(run: Run, step: int, phase: str, metrics: dict[str, float]) -> None:
    run.writer.write(step, phase, metrics)
    run.progress.update(step, phase, metrics)


def _save(run: Run, metrics: dict[str, float], *, boundary: bool) -> None:
    """Metrics reach the disk before the checkpoint that a resume would cut them to."""
    run.writer.flush()
    extra = {"data": run.batches.get_state(), "phase": int(run.state.phase), "config": render(run.assembly.config)}
    run.checkpoints.save(int(run.state.step), run.state, extra, metrics, boundary=boundary)
