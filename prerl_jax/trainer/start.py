"""Beginning, resuming and ending a run in its workdir.

The workdir holds config.py (resolved), metrics.jsonl, completions.jsonl, checkpoints/, tensorboard/, and at the end
summary.json and curves.png. Starting again in the same workdir resumes from its newest good checkpoint.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from prerl_jax.analysis.console import Progress
from prerl_jax.analysis.curves import draw
from prerl_jax.analysis.summary import print_table, summary_rows
from prerl_jax.config import TrainConfig
from prerl_jax.config_io import difference, load_config, render
from prerl_jax.core.types import TrainState
from prerl_jax.data import make_batches
from prerl_jax.rollout.sampler import make_sampler
from prerl_jax.runtime.checkpoints import Checkpoints
from prerl_jax.runtime.metrics import MetricsWriter, read_metrics, write_json
from prerl_jax.runtime.state import abstract_state, create_state
from prerl_jax.trainer.assembly import Assembly, assemble
from prerl_jax.trainer.loop import Run, train
from prerl_jax.trainer.programs import MakeEngine, Programs


def run(
    config: TrainConfig,
    workdir: Path,
    *,
    init_from: str | None = None,
    allow_config_change: bool = False,
    make_engine: MakeEngine = make_sampler,
    console: Console | None = None,
) -> list[dict[str, Any]]:
    """Runs a config in a workdir to its end, resuming what is there; returns the rows of summary.json.

    Args:
      config: what to run.
      workdir: made if need be.
      init_from: another run's workdir, or WORKDIR@STEP: begin with its parameters and optimizer state.
      allow_config_change: resume under another config than the workdir's.
      make_engine: what generates, with the signature of `make_sampler`.
      console: where progress goes.

    Raises:
      ValueError: the config does not fit the devices, the model, the data or the workdir.
      CheckpointError: a checkpoint cannot be read or written.
    """
    main, workdir = jax.process_index() == 0, workdir.absolute()
    console = console or Console()
    changed = _check_config(config, workdir, allow_config_change)
    spec = config.checkpoints
    checkpoints = Checkpoints(workdir / "checkpoints", keep_last=spec.keep_last, best=spec.best)
    total = sum(phase.steps for phase in config.phases)
    latest = checkpoints.latest_step()
    if latest is not None and latest >= total and not changed:
        checkpoints.close()
        return _finish(workdir, console, main)

    assembly = assemble(config)
    programs = Programs(assembly, make_engine)
    state, position = _state(assembly, checkpoints, init_from)
    if main:
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / "config.py").write_text(render(config))
    step = int(state.step)
    writer = MetricsWriter(workdir, resume_step=step if position else None, enabled=main)
    with Progress(total, step, enabled=main, console=console) as progress:
        for note in (*assembly.notes, *_resumed(checkpoints, step if position else None)):
            progress.message(note)
        try:
            train(Run(programs, state, _batches(assembly, position, changed), writer, checkpoints, progress))
        finally:
            writer.close()
    checkpoints.close()
    return _finish(workdir, console, main)


def _check_config(config: TrainConfig, workdir: Path, allow: bool) -> bool:
    """Whether the workdir's config differs; ValueError with the difference unless that is allowed."""
    saved = workdir / "config.py"
    if not saved.exists():
        return False
    lines = difference(load_config(saved), config)
    if lines and not allow:
        raise ValueError(
            f"{workdir} holds a run of another config:\n  "
            + "\n  ".join(lines)
            + "\nUse another --workdir, or --allow-config-change to go on under the new config."
        )
    return bool(lines)


def _state(assembly: Assembly, checkpoints: Checkpoints, init_from: str | None) -> tuple[TrainState, dict | None]:
    """(state, data position): of the newest checkpoint, or of a run that begins, whose position is None."""
    tx = assembly.optimizer(assembly.phases[0])
    abstract = abstract_state(assembly.model.abstract_params(), tx, assembly.mesh)
    if checkpoints.latest_step() is not None:
        restored = checkpoints.restore(abstract)
        return restored.state, restored.extra["data"]
    seed = assembly.config.seed
    if init_from is None:
        return create_state(assembly.load_params(), tx, assembly.mesh, seed), None
    folder, _, at = init_from.partition("@")
    source = Checkpoints(Path(folder).absolute() / "checkpoints", keep_last=1, best=None)
    if source.latest_step() is None:
        raise ValueError(f"--init-from {folder}: there is no checkpoint in {folder}/checkpoints.")
    loaded = source.restore(abstract, int(at) if at else None).state
    source.close()
    fresh = create_state(loaded.params, tx, assembly.mesh, seed)
    return dataclasses.replace(fresh, opt_state=loaded.opt_state), None


def _batches(assembly: Assembly, position: dict | None, changed: bool):
    config = assembly.config
    batches = make_batches(
        len(assembly.train),
        batch=config.sampling.prompts,
        seed=config.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    if position is not None and not (changed and _other_data(position, batches.get_state())):
        batches.set_state(position)
    return batches


def _other_data(position: dict, fresh: dict) -> bool:
    """Whether a data position belongs to another data size, batch or seed; then the order of problems starts anew."""
    return any(position.get(name) != value for name, value in fresh.items() if name != "next_index")


def _resumed(checkpoints: Checkpoints, step: int | None) -> list[str]:
    skipped = [f"passed over a damaged checkpoint, {reason}" for reason in checkpoints.skipped]
    return skipped if step is None else [*skipped, f"resumed from the checkpoint at step {step}"]


def _finish(workdir: Path, console: Console, main: bool) -> list[dict[str, Any]]:
    """Writes summary.json and curves.png, prints the table and where everything is."""
    records = read_metrics(workdir)
    rows = summary_rows(records)
    if main:
        write_json(workdir / "summary.json", rows)
        draw(records, workdir / "curves.png")
        print_table(rows, console)
        console.print(
            f"metrics      {workdir / 'metrics.jsonl'}\ncurves       {workdir / 'curves.png'}", highlight=False
        )
        console.print(
            f"completions  {workdir / 'completions.jsonl'}\ncheckpoints  {workdir / 'checkpoints'}", highlight=False
        )
    return rows
