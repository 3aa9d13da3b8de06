"""Beginning, resuming and ending a run in its workdir.

The workdir holds config.py (resolved), metrics.jsonl, completions.jsonl, checkpoints/, tensorboard/, and at the end
summary.json and curves.png; init_from.json says which run it began from, if any. Starting again in the same workdir
resumes from its newest good checkpoint.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from etils import epath
from rich.console import Console

from prerl_jax.analysis.console import Progress
from prerl_jax.analysis.curves import draw
from prerl_jax.analysis.summary import print_table, summary_rows
from prerl_jax.config.io import difference, load_config, render
from prerl_jax.config.schema import TrainConfig
from prerl_jax.core.phases import locate, steps_left
from prerl_jax.core.types import TrainState
from prerl_jax.data import Batches, make_batches
from prerl_jax.runtime.checkpoints import Checkpoints, restore_state
from prerl_jax.runtime.distributed import require_same, require_shared, share_errors
from prerl_jax.runtime.goodput import Goodput
from prerl_jax.runtime.lock import locked_workdir
from prerl_jax.runtime.metrics import MetricsWriter, read_metrics, write_json, write_text
from prerl_jax.runtime.profile import Profile
from prerl_jax.runtime.state import at_phase, create_state
from prerl_jax.runtime.step_files import DamagedError, committed_steps, read_record
from prerl_jax.trainer.critic import with_critic
from prerl_jax.trainer.guards import Watch
from prerl_jax.trainer.loop import Run, train
from prerl_jax.trainer.programs import MakeEngine, Programs
from prerl_jax.trainer.references import References
from prerl_jax.trainer.setup import Setup, set_up
from prerl_jax.trainer.source import Source, read_source, write_source
from prerl_jax.verify import InProcessVerifier, Pool, open_verifier

SHARED = "The workdir must be one shared folder, under the same path on all machines."


def run(
    config: TrainConfig,
    workdir: Path,
    *,
    init_from: str | None = None,
    allow_config_change: bool = False,
    make_engine: MakeEngine | None = None,
    console: Console | None = None,
    profile: int | None = None,
) -> list[dict[str, Any]]:
    """Runs a config in a workdir to its end, resuming what is there; returns the rows of summary.json.

    Args:
      config: what to run.
      workdir: made if need be.
      init_from: another run's workdir, or WORKDIR@STEP: begin with its parameters and optimizer state. A resumed run
        has begun already: then it can only be what it began from.
      allow_config_change: resume under another config than the workdir's.
      make_engine: what generates, with the signature of `EngineSpec.make`; None is that of `sampling.engine`.
      console: where progress goes.
      profile: the first of the steps that are traced into the workdir's profile/; None for none.

    Raises:
      ValueError: the config does not fit the devices, the model, the data or the workdir, or processes differ in it;
        another run is writing into the workdir.
      OtherProcessError: another process has raised an error.
      CheckpointError: a checkpoint cannot be read or written.
    """
    main, workdir = jax.process_index() == 0, workdir.absolute()
    console = console or Console()
    tracer = Profile(workdir / "profile", profile)
    source = None if init_from is None else Source.named(init_from)
    folder = workdir / "checkpoints"
    require_same("their configs", render(config), "Start all of them with one command.")
    with share_errors(f"reading {workdir}"):
        newest = max(committed_steps(folder), default=None)
        saved = None if newest is None else _extra(folder, newest)
    require_same("what they find", f"the newest checkpoint is that of step {newest}", SHARED)
    with share_errors(f"checking {workdir}"):
        changed = newest is not None and _check_config(config, workdir, allow_config_change)
        began = None if newest is None else read_source(workdir, asked=source)
    if not changed and saved is not None and saved.get("phase") == len(config.phases):
        tracer.check(newest, newest)
        return _finish(workdir, console, main, Watch.of(saved.get("watch")))

    if newest is None:
        tracer.check(0, steps_left(config.phases, 0, 0))
    with share_errors(
        "putting the run together"
    ):  # whatever is wrong with the config is found before anything is written
        setup = set_up(config)
    require_shared(workdir)
    programs, spec, data = Programs(setup, make_engine), config.checkpoints, config.data
    with (
        _alone(workdir, main),
        contextlib.closing(Checkpoints(folder, keep_last=spec.keep_last, best=spec.best)) as checkpoints,
        open_verifier(data.verifier, data.verify_workers, data.verify_timeout) as verify,
    ):
        watch = _go(programs, checkpoints, verify, workdir, began or source, console, tracer)
    return _finish(workdir, console, main, watch)


@contextlib.contextmanager
def _alone(workdir: Path, main: bool) -> Iterator[None]:
    """Keeps other runs out of the workdir; of this run's processes, the one that writes does."""
    with contextlib.ExitStack() as held:
        with share_errors(f"taking {workdir} for this run"):
            if main:
                held.enter_context(locked_workdir(workdir))
        yield


def _go(
    programs: Programs,
    checkpoints: Checkpoints,
    verify: Pool | InProcessVerifier,
    workdir: Path,
    source: Source | None,
    console: Console,
    profile: Profile,
) -> Watch:
    """Trains from the newest checkpoint, or from the beginning: the model's parameters or those of `source`.

    Returns what has become of the phases' guards.
    """
    setup = programs.setup
    config, main = setup.config, jax.process_index() == 0
    state, saved, source = _state(setup, checkpoints, source)
    state, of_critic = with_critic(setup, state)
    watch = Watch.of(None if saved is None else saved.get("watch"))
    batches = _batches(setup, saved)
    step = int(state.step)
    resumed = None if saved is None else step
    total = step + steps_left(config.phases, int(state.phase), int(state.phase_step))
    profile.check(step, total)
    with share_errors(f"writing into {workdir}"):
        if main:
            write_text(workdir / "config.py", render(config))
            write_source(workdir, source)
        writer = MetricsWriter(workdir, resume_step=resumed, enabled=main)
    goodput = Goodput(read_metrics(workdir) if main else ())
    try:
        with Progress(total, step, enabled=main, console=console) as progress:
            began = [] if source is None else [f"begun from {source}"]
            for note in (*setup.notes, *began, *_resumed(checkpoints, resumed), *of_critic):
                progress.message(note)
            references = References(setup, workdir / "checkpoints", source)
            work = Run(
                programs,
                state,
                batches,
                writer,
                checkpoints,
                progress,
                profile,
                goodput,
                verify,
                references,
                watch,
                initial=lambda: _begin(setup, source)[0],
            )
            try:
                train(work)
            except (ValueError, OSError) as error:  # nothing in the config: keep the traceback
                raise RuntimeError(f"the run failed after step {int(work.state.step)}: {error}") from error
    finally:
        writer.close()
    return watch


def _extra(folder: Path, step: int) -> dict[str, Any] | None:
    """What the trainer has put into a checkpoint; None where it is damaged."""
    try:
        return read_record(epath.Path(folder) / str(step)).extra
    except DamagedError:
        return None


def _check_config(config: TrainConfig, workdir: Path, allow: bool) -> bool:
    """Whether the config of a workdir with checkpoints differs; ValueError with the difference if it may not."""
    saved = workdir / "config.py"
    try:
        lines = difference(load_config(saved), config)
    except (ValueError, OSError, ImportError) as error:  # of another version of prerl_jax, or of the user's module
        lines = [str(error)]
    if lines and not allow:
        raise ValueError(
            f"{workdir} holds a run of another config:\n  "
            + "\n  ".join(lines)
            + "\nUse another --workdir, or --allow-config-change to go on under the new config."
        )
    return bool(lines)


def _other_config(setup: Setup, saved: dict) -> bool:
    """Whether a checkpoint was written under another config.

    The workdir's config.py cannot tell: it is the new one from the start that was allowed to change it, even if that
    was killed before its first checkpoint.
    """
    return saved["config"] != render(setup.config)


def _rephased(setup: Setup, state: TrainState, watch: Watch) -> TrainState:
    """The state at its step's place in phases that have changed: a run that was longer or shorter goes on rightly.

    A phase that a guard has ended stays ended.
    """
    ended = {name: ended["steps"] for name, ended in watch.ended.items()}
    phases = [dataclasses.replace(phase, steps=ended.get(phase.name, phase.steps)) for phase in setup.phases]
    total = sum(phase.steps for phase in phases)
    if int(state.step) > total:
        raise ValueError(
            f"the workdir's newest checkpoint is of step {int(state.step)}, and the new config has {total} steps: give "
            "its phases more, or begin another run with another --workdir."
        )
    return at_phase(state, setup.mesh, *locate(tuple(phases), int(state.step)))


def _state(
    setup: Setup, checkpoints: Checkpoints, source: Source | None
) -> tuple[TrainState, dict | None, Source | None]:
    """(state, what else its checkpoint holds, where the run began); the second is None for a run that begins."""
    if checkpoints.latest_step() is None:
        state, source = _begin(setup, source)
        return state, None, source
    restored = checkpoints.restore(setup.abstract_state())
    state, saved = restored.state, restored.extra
    if _other_config(setup, saved):
        state = _rephased(setup, state, Watch.of(saved.get("watch")))
    return state, saved, source


def _begin(setup: Setup, source: Source | None) -> tuple[TrainState, Source | None]:
    """The state that a run begins with, and the source with the step that was found there."""
    tx, seed = setup.optimizer(setup.phases[0]), setup.config.seed
    if source is None:
        with share_errors("loading the model"):
            params = setup.load_params()
        return create_state(params, tx, setup.mesh, seed), None
    loaded = restore_state(source.workdir / "checkpoints", setup.abstract_state(), source.step)
    fresh = create_state(loaded.state.params, tx, setup.mesh, seed)
    then = dataclasses.replace(fresh, opt_state=loaded.state.opt_state, critic=loaded.state.critic)
    return then, dataclasses.replace(source, step=loaded.step)


def _batches(setup: Setup, saved: dict | None) -> Batches:
    """The order of problems, at the checkpoint's place in it."""
    config = setup.config
    batches = make_batches(
        len(setup.train),
        batch=config.sampling.prompts_per_step,
        seed=config.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    if saved is not None and not (_other_config(setup, saved) and _other_data(saved["data"], batches.get_state())):
        batches.set_state(saved["data"])
    return batches


def _other_data(position: dict, fresh: dict) -> bool:
    """Whether a data position belongs to another data size, batch or seed; then the order of problems starts anew."""
    return any(position.get(name) != value for name, value in fresh.items() if name != "next_index")


def _resumed(checkpoints: Checkpoints, step: int | None) -> list[str]:
    skipped = [f"passed over a damaged checkpoint, {reason}" for reason in checkpoints.skipped]
    return skipped if step is None else [*skipped, f"resumed from the checkpoint at step {step}"]


def _finish(workdir: Path, console: Console, main: bool, watch: Watch) -> list[dict[str, Any]]:
    """Writes summary.json and curves.png, prints the table and where everything is."""
    records = read_metrics(workdir)
    rows = summary_rows(records, ended={name: e["said"] for name, e in watch.ended.items()}, warned=watch.warned)
    if main:
        write_json(workdir / "summary.json", rows)
        draw(records, workdir / "curves.png")
        print_table(rows, console)
        for name in ("metrics.jsonl", "completions.jsonl", "curves.png", "checkpoints"):
            console.print(f"{name.partition('.')[0]:<12} {workdir / name}", highlight=False, soft_wrap=True)
    return rows
