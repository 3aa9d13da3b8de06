"""Beginning, resuming and ending a run in its workdir.

The workdir holds config.py (resolved), metrics.jsonl, completions.jsonl, checkpoints/ and tensorboard/, and at the end
summary.json and curves.png. init_from.json names the checkpoint that the run began from, if any, and hub.json the
commits of what it takes from the hub. contamination.json lists training problems that are in the evaluation, if there
are any. The same command in the same workdir resumes from the newest good checkpoint.
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
from prerl_jax.analysis.symptoms import lasting
from prerl_jax.config.io import difference, load_config, render
from prerl_jax.config.schema import TrainConfig
from prerl_jax.core.phases import steps_left
from prerl_jax.data import Batches, make_batches, make_ordered_batches
from prerl_jax.data.arrivals import ExampleStream
from prerl_jax.runtime.checkpoint_address import CheckpointAddress
from prerl_jax.runtime.checkpoints import Checkpoints
from prerl_jax.runtime.distributed import require_same, require_shared, share_errors
from prerl_jax.runtime.goodput import Goodput
from prerl_jax.runtime.lock import locked_workdir
from prerl_jax.runtime.metrics import MetricsWriter, read_metrics, write_json, write_text
from prerl_jax.runtime.profile import Profile
from prerl_jax.runtime.step_files import DamagedError, committed_steps, read_record
from prerl_jax.trainer.beginning import Beginning, begin, begin_or_resume
from prerl_jax.trainer.engines import decode_layout
from prerl_jax.trainer.guards import GuardState
from prerl_jax.trainer.hub import fetch, pinned, write_commits
from prerl_jax.trainer.init_from import read_source, write_source
from prerl_jax.trainer.loop import Run, train
from prerl_jax.trainer.position import Position
from prerl_jax.trainer.programs import Programs
from prerl_jax.trainer.references import References
from prerl_jax.trainer.reporting import Reporter
from prerl_jax.trainer.setup import Setup, set_up
from prerl_jax.trainer.verifiers import Verifiers, open_verifiers, probe_verifiers

SHARED = "The workdir must be one shared folder, under the same path on all machines."


def run(
    config: TrainConfig,
    workdir: Path,
    *,
    init_from: str | None = None,
    allow_config_change: bool = False,
    console: Console | None = None,
    profile: int | None = None,
) -> list[dict[str, Any]]:
    """Runs a config in a workdir to its end, or resumes it there; returns the rows of summary.json.

    Args:
      config: what to run.
      workdir: the folder for everything the run writes; created if it does not exist.
      init_from: another run's WORKDIR or WORKDIR@STEP: begin with its parameters and optimizer state. A resumed run
        accepts only the checkpoint that it began from.
      allow_config_change: resume under another config than the workdir's.
      console: shows the progress.
      profile: the first of the steps that are profiled into the workdir's profile/; None for none.

    Raises:
      ValueError: the config does not fit the devices, the model, the data or the workdir, or the processes differ in
        it; the verifier accepts no problem's own answer; its answers cannot be trained on, or too many verdicts are
        unknown; another run is writing into the workdir.
      OSError: something of the hub is not there, or can neither be reached nor is it in the cache.
      OtherProcessError: another process has raised an error.
      CheckpointError: a checkpoint cannot be read or written.
    """
    main, workdir = jax.process_index() == 0, workdir.absolute()
    console = console or Console()
    tracer = Profile(workdir / "profile", profile)
    source = None if init_from is None else CheckpointAddress.parse(init_from)
    folder, keep_last, best = workdir / "checkpoints", config.checkpoints.keep_last, config.checkpoints.best
    require_same("their configs", render(config), "Start all of them with one command.")
    config, commits = pinned(config, workdir)
    with share_errors(f"reading {workdir}"):
        newest = max(committed_steps(folder), default=None)
        saved = None if newest is None else _saved_extra(folder, newest)
    require_same("what they find", f"the newest checkpoint is that of step {newest}", SHARED)
    with share_errors(f"checking {workdir}"):
        changed = newest is not None and _check_config(config, workdir, allow_config_change)
        began = None if newest is None else read_source(workdir, asked=source)
    if not changed and newest is not None and saved is not None and saved.get("phase") == len(config.phases):
        tracer.check(newest, newest)
        return _finish(workdir, console, main, GuardState.of(saved.get("guards")))
    if newest is None:
        tracer.check(0, steps_left(config.phases, 0, 0))
    setup = _set_up(config)  # an error in the config is found before anything is written
    require_shared(workdir)
    with open_verifiers(config) as verifiers:
        probed = _probed(setup, verifiers, main) if newest is None or changed else ()
        with (
            _only_run_in(workdir, main),
            contextlib.closing(Checkpoints(folder, keep_last=keep_last, best=best)) as checkpoints,
        ):
            _record_commits(workdir, commits, main)
            beginning = begin_or_resume(setup, checkpoints, began or source, allow_config_change)
            beginning = dataclasses.replace(beginning, notes=(*probed, *beginning.notes))
            guards = _train(setup, beginning, checkpoints, verifiers, workdir, console, tracer)
    return _finish(workdir, console, main, guards)


def _set_up(config: TrainConfig) -> Setup:
    """Downloads what the config takes from the hub, and sets the run up, with the same prompts on all processes."""
    fetch(config)
    with share_errors("setting the run up"):
        setup = set_up(config)
        if setup.mesh.size > 1:
            setup = dataclasses.replace(setup, notes=(*setup.notes, f"decoding: {decode_layout(setup)}"))
        prompts = "\n".join(f"{record.first}\n{record.digest}" for record in setup.prompts.values())
    require_same("their prompts", prompts, "They need the same data files, and one date in the chat template.")
    return setup


def _record_commits(workdir: Path, commits: dict[str, str], main: bool) -> None:
    """Process 0 writes hub.json; an error in it is raised on all processes."""
    with share_errors(f"writing into {workdir}"):
        if main:
            write_commits(workdir, commits)


def _probed(setup: Setup, verifiers: Verifiers, main: bool) -> tuple[str, ...]:
    """The notes of the probe, on process 0; an error in it is raised on all processes."""
    with share_errors("the check that the verifier accepts the problems' own answers"):
        return probe_verifiers(setup, verifiers) if main else ()


@contextlib.contextmanager
def _only_run_in(workdir: Path, main: bool) -> Iterator[None]:
    """Locks the workdir against other runs, on process 0."""
    with contextlib.ExitStack() as held:
        with share_errors(f"taking {workdir} for this run"):
            if main:
                held.enter_context(locked_workdir(workdir))
        yield


def _train(
    setup: Setup,
    beginning: Beginning,
    checkpoints: Checkpoints,
    verifiers: Verifiers,
    workdir: Path,
    console: Console,
    profile: Profile,
) -> GuardState:
    """Trains from a beginning to the end of the last phase; returns the final state of the guards."""
    state, main = beginning.state, jax.process_index() == 0
    position = Position.of(state)
    step = position.step
    resumed = None if beginning.saved is None else step
    total = step + steps_left(setup.phases, position.phase, position.phase_step)
    profile.check(step, total)
    guards = GuardState.of(None if beginning.saved is None else beginning.saved.get("guards"))
    batches = _batches(setup, beginning)
    with share_errors(f"writing into {workdir}"):
        if main:
            write_text(workdir / "config.py", render(setup.config))
            write_source(workdir, beginning.source)
            if setup.overlaps:
                write_json(workdir / "contamination.json", [dataclasses.asdict(overlap) for overlap in setup.overlaps])
        writer = MetricsWriter(workdir, resume_step=resumed, enabled=main)
    goodput = Goodput(read_metrics(workdir) if main else ())
    try:
        with Progress(total, step, enabled=main, console=console) as progress:
            for note in (*setup.notes, *beginning.notes):
                progress.message(note)
            if isinstance(batches, ExampleStream):
                batches.listen(progress.message)
            work = Run(
                programs=Programs(setup),
                batches=batches,
                verifiers=verifiers,
                references=References(setup, workdir / "checkpoints", beginning.source),
                guards=guards,
                checkpoints=checkpoints,
                reporter=Reporter(setup, writer, progress, goodput),
                profile=profile,
                begin=lambda: begin(setup, beginning.source)[0],
            )
            train(work, state)
    finally:
        writer.close()
    return guards


def _saved_extra(folder: Path, step: int) -> dict[str, Any] | None:
    """What the trainer saved in a checkpoint beside the arrays; None if the checkpoint is damaged."""
    try:
        return read_record(epath.Path(folder) / str(step)).extra
    except DamagedError:
        return None


def _check_config(config: TrainConfig, workdir: Path, allow: bool) -> bool:
    """Whether a resumed workdir has another config. Raises ValueError with the differences unless that is allowed."""
    saved = workdir / "config.py"
    try:
        lines = difference(load_config(saved), config)
    except (ValueError, OSError, ImportError) as error:  # from another version of prerl_jax, or of the user's module
        lines = [str(error)]
    if lines and not allow:
        raise ValueError(
            f"{workdir} holds a run of another config:\n  "
            + "\n  ".join(lines)
            + "\nUse another --workdir, or --allow-config-change to resume under the new config."
        )
    return bool(lines)


def _batches(setup: Setup, beginning: Beginning) -> Batches | ExampleStream:
    """The order of problems, at the checkpoint's position. It begins anew if a changed config has other problems."""
    batches, saved = _fresh_batches(setup), beginning.saved
    if saved is not None and not (beginning.changed and not batches.accepts(saved["data"])):
        batches.set_state(saved["data"])
    return batches


def _fresh_batches(setup: Setup) -> Batches | ExampleStream:
    """The order of problems, at its beginning."""
    config = setup.config
    if isinstance(setup.train, ExampleStream):
        return setup.train
    if setup.order is not None:
        return make_ordered_batches(setup.order)
    return make_batches(len(setup.train), batch=config.sampling.prompts_per_step, seed=config.seed)


def _finish(workdir: Path, console: Console, main: bool, guards: GuardState) -> list[dict[str, Any]]:
    """Writes summary.json and curves.png, and prints the table and the paths of the files."""
    records = read_metrics(workdir)
    symptoms = lasting(records)
    warned = {name: [*guards.warned.get(name, ()), *symptoms.get(name, ())] for name in {**guards.warned, **symptoms}}
    rows = summary_rows(records, ended={name: end["reason"] for name, end in guards.ended.items()}, warned=warned)
    if main:
        write_json(workdir / "summary.json", rows)
        draw(records, workdir / "curves.png")
        print_table(rows, console)
        for name in ("metrics.jsonl", "completions.jsonl", "curves.png", "checkpoints"):
            console.print(f"{name.partition('.')[0]:<12} {workdir / name}", highlight=False, soft_wrap=True)
    return rows
