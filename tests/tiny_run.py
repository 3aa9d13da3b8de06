"""A run of four steps that takes seconds: a config file (`--config tests/tiny_run.py`), and what tests ask of it."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import json
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import jax
import numpy as np
import pytest
from rich.console import Console

from prerl_jax import AdvantageTraits, StaticBatching, dsrl, launch
from prerl_jax.config import AlignmentSpec, TrainConfig
from prerl_jax.config.io import load_config
from prerl_jax.core.types import TrainState
from prerl_jax.data import make_batches
from prerl_jax.models import xla_cpu
from prerl_jax.rollout.continuous import ContinuousBatchingEngine
from prerl_jax.runtime.checkpoints import restore_state
from prerl_jax.runtime.goodput import Goodput
from prerl_jax.runtime.profile import Profile
from prerl_jax.runtime.state import create_state
from prerl_jax.trainer import meshes
from prerl_jax.trainer.guards import GuardState
from prerl_jax.trainer.loop import Run, train_step
from prerl_jax.trainer.position import Position
from prerl_jax.trainer.programs import Programs
from prerl_jax.trainer.references import References
from prerl_jax.trainer.reporting import Reporter
from prerl_jax.trainer.setup import set_up
from prerl_jax.trainer.verifiers import Verifiers
from prerl_jax.verify import InProcessVerifier

xla_cpu.UNROLLED_LAYERS = 0  # compiled in less time, and as on TPUs
FOLDER = Path(__file__).resolve().parent
COMMAND = [sys.executable, "-m", "prerl_jax.launch", "--config", str(FOLDER / "tiny_run.py")]


def config() -> TrainConfig:
    """The lab: two steps of NSR-PreRL and two of RL on 4 x 4 responses, a checkpoint every step."""
    lab = load_config("lab")
    return dataclasses.replace(
        lab,
        name="tiny",
        data=dataclasses.replace(
            lab.data,
            train=dataclasses.replace(lab.data.train, count=64),
            evaluation=dataclasses.replace(lab.data.evaluation, count=4),
        ),
        phases=dsrl(warmup=2, total=4),
        sampling=dataclasses.replace(lab.sampling, prompts_per_step=4, group_size=4, max_new_tokens=32),
        optimizer=dataclasses.replace(lab.optimizer, learning_rate=3e-4),
        evaluation=dataclasses.replace(lab.evaluation, every=0, samples=2),
        checkpoints=dataclasses.replace(lab.checkpoints, every=1, keep_last=2, best=None),
        alignment=AlignmentSpec(every=2, prompts=4, mean_logprob=True),
    )


@dataclasses.dataclass(frozen=True)
class AgainstHalf:
    """A user's own advantage estimator: the reward minus one half."""

    scale: float = 1.0
    traits = AdvantageTraits()

    def __call__(self, rollouts, group_size, values=None):
        return self.scale * (rollouts.rewards - 0.5), rollouts.rewards >= 0


@dataclasses.dataclass(frozen=True)
class Later:
    """A user's own condition of a guard: there are more than `count` measurements."""

    count: int

    def __call__(self, values):
        return len(values) > self.count


class Died(BaseException):
    """An exception that no code of a run expects."""


@dataclasses.dataclass(frozen=True)
class CountedEngine:
    """A user's own engine: responses are sampled in one static batch, and calls are counted."""

    calls: ClassVar[list[tuple[int, int]]] = []

    def check(self, shards):
        pass

    def make(self, model, config, group_size):
        engine = StaticBatching().make(model, config, group_size)

        class Counted:
            def sample(self, params, prompts, key, on_complete=None):
                CountedEngine.calls.append((group_size, len(prompts.prompt)))
                return engine.sample(params, prompts, key, on_complete)

        return Counted()


@contextlib.contextmanager
def dies_at(config: TrainConfig, at: int) -> Iterator[None]:
    """The engine raises Died when it is to sample for training step `at` + 1 of this process."""
    calls, real = itertools.count(), ContinuousBatchingEngine.sample

    def sample(self, *arguments, **keywords):
        if self.group_size == config.sampling.group_size and next(calls) == at:
            raise Died
        return real(self, *arguments, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ContinuousBatchingEngine, "sample", sample)
        yield


class Lines:
    """A MetricsWriter that keeps the lines."""

    def __init__(self):
        self.metrics, self.responses = [], []

    def write(self, step, phase, metrics):
        self.metrics.append(metrics)

    def completions(self, step, rows):
        self.responses.append(rows)

    def flush(self):
        pass


class NoCheckpoints:
    """Checkpoints that are not written."""

    def save(self, *_, **__):
        pass

    def wait(self):
        pass


def begin(config: TrainConfig, devices: list[jax.Device] | None = None) -> tuple[Run, TrainState, Lines]:
    """(a run without a workdir, its first state, the lines that it will report)."""
    setup, lines, verifier = set_up(config, devices), Lines(), InProcessVerifier(config.data.verifier)
    state = create_state(setup.load_params(), setup.optimizer(setup.phases[0]), setup.mesh, config.seed)
    run = Run(
        programs=Programs(setup),
        batches=make_batches(len(setup.train), batch=config.sampling.prompts_per_step, seed=config.seed),
        verifiers=Verifiers(verifier, verifier),
        references=References(setup),
        guards=GuardState(),
        checkpoints=NoCheckpoints(),
        reporter=Reporter(setup, lines, None, Goodput()),
        profile=Profile(Path(), None),
        begin=lambda: state,
    )
    return run, state, lines


def steps(
    config: TrainConfig, count: int, devices: list[jax.Device] | None = None
) -> tuple[Run, TrainState, list[dict]]:
    """(the run, its state, the metrics of each step) after some steps of a config, without the base's evaluation."""
    run, state, lines = begin(config, devices)
    with run.reporter:
        place = Position.of(state)
        for _ in range(count):
            state, place = train_step(run, state, place)
        run.reporter.flush()
    return run, state, lines.metrics


def quiet() -> Console:
    """A console whose text can be asked for: `console.file.getvalue()`."""
    return Console(file=io.StringIO(), width=200)


def lines(workdir: Path, name: str = "metrics.jsonl") -> list[dict]:
    return [json.loads(line) for line in (workdir / name).read_text().splitlines()]


def timeless(workdir: Path) -> list[dict]:
    """The metric lines without the metrics that depend on time."""
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in lines(workdir)]


def state_at(workdir: Path, setup, step: int | None = None):
    """The train state of a checkpoint, as numpy."""
    return jax.tree.map(np.asarray, restore_state(workdir / "checkpoints", setup.abstract_state(), step).state)


def on_one_device(patch) -> None:
    """Runs that do not name their devices get the first one; `patch` has monkeypatch's `setattr`."""
    real = meshes.make_mesh
    patch.setattr(meshes, "make_mesh", lambda spec, devices=None: real(spec, devices or jax.devices()[:1]))


def environment(**more: str) -> dict[str, str]:
    """Of a process of its own that shares this session's compilation cache."""
    cache = {"JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir or ""}
    cache |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
    path = os.pathsep.join([str(FOLDER), str(FOLDER.parent)])
    return {**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu", **cache, **more}


if __name__ == "__main__":  # the command line with the devices of the tests, whose bits depend on their number
    on_one_device(types.SimpleNamespace(setattr=setattr))
    sys.exit(launch.main(sys.argv[1:]))
