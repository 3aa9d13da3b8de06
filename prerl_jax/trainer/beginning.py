"""Where a run starts or resumes: the config's model, another run's checkpoint, or its own newest good one."""

from __future__ import annotations

import dataclasses
from typing import Any

from prerl_jax.config.io import render
from prerl_jax.core.phases import locate
from prerl_jax.core.types import TrainState
from prerl_jax.runtime.checkpoint_address import CheckpointAddress
from prerl_jax.runtime.checkpoints import Checkpoints, restore_state
from prerl_jax.runtime.distributed import share_errors
from prerl_jax.runtime.state import at_phase, create_state
from prerl_jax.trainer.critic import with_critic
from prerl_jax.trainer.guards import GuardState
from prerl_jax.trainer.prompts import PromptRecord, difference
from prerl_jax.trainer.setup import Setup

REMEDY = """A data file has changed, or the chat template writes today's date into the prompts. Restore the file. Or pin
the date, data.template=ChatTemplate(arguments=(("date_string", "26 Jul 2024"),)), if the template has such an argument.
--allow-config-change resumes under this new config, or with the other problems."""


@dataclasses.dataclass(frozen=True)
class Beginning:
    """Where a run starts or resumes.

    Attributes:
      state: the train state, on the mesh.
      saved: what the trainer saved beside the arrays; None for a new run.
      changed: whether `saved` was written under another config or with other problems, which the user has allowed.
      source: the checkpoint that the run began from, with its step; None for the config's model.
      notes: lines for the log.
    """

    state: TrainState
    saved: dict[str, Any] | None
    changed: bool
    source: CheckpointAddress | None
    notes: tuple[str, ...]


def _under_other_config(setup: Setup, saved: dict[str, Any]) -> bool:
    """Whether a checkpoint was written under another config.

    The workdir's config.py cannot tell. It is the new config as soon as a run starts that may change it, even if that
    run is killed before its first checkpoint.
    """
    return saved["config"] != render(setup.config)


def place_in_changed_phases(setup: Setup, state: TrainState, guards: GuardState) -> TrainState:
    """Moves the state to the position of its step in changed phases, so that a run can resume with more or fewer steps.

    A phase that a guard has ended stays ended. Raises ValueError where the new phases have fewer steps than were done.
    """
    ended = {name: end["steps"] for name, end in guards.ended.items()}
    phases = [dataclasses.replace(phase, steps=ended.get(phase.name, phase.steps)) for phase in setup.phases]
    total = sum(phase.steps for phase in phases)
    if int(state.step) > total:
        raise ValueError(
            f"the workdir's newest checkpoint is of step {int(state.step)}, and the new config has {total} steps: give "
            "its phases more steps, or begin another run with another --workdir."
        )
    return at_phase(state, setup.mesh, *locate(tuple(phases), int(state.step)))


def begin_or_resume(
    setup: Setup, checkpoints: Checkpoints, source: CheckpointAddress | None, allow_change: bool
) -> Beginning:
    """From the newest good checkpoint; without one, from the config's model or from `source`.

    Args:
      setup: the run.
      checkpoints: those of its workdir.
      source: the checkpoint of another run to begin from.
      allow_change: resume with other prompts or answers than the checkpoint's.

    Raises ValueError where the checkpoint's prompts or answers are others, and CheckpointError where all checkpoints
    are damaged.
    """
    if checkpoints.latest_step() is None:
        state, source = begin(setup, source)
        saved, changed, notes = None, False, []
    else:
        restored = checkpoints.restore(setup.abstract_state())
        state, saved = restored.state, restored.extra
        changed = _under_other_config(setup, saved)
        if changed:
            state = place_in_changed_phases(setup, state, GuardState.of(saved.get("guards")))
        notes = [f"resumed from the checkpoint at step {int(state.step)}"]
        others = _other_prompts(setup, saved, allow_change or changed)
        notes += others
        changed = changed or bool(others)
    state, of_critic = with_critic(setup, state)
    began = [] if source is None else [f"started from {source}"]
    damaged = [f"skipped a damaged checkpoint, {reason}" for reason in checkpoints.skipped]
    return Beginning(state, saved, changed, source, (*began, *damaged, *notes, *of_critic))


def _other_prompts(setup: Setup, saved: dict[str, Any], allow: bool) -> list[str]:
    """A line for each data set with other prompts or answers than the checkpoint. Raises ValueError unless allowed.

    A checkpoint of an older version has no record of its prompts, and nothing is compared. A stream has no record: it
    compares the line before the checkpoint's position.
    """
    lines = []
    there = saved.get("prompts", {})
    with share_errors("comparing the prompts with those of the checkpoint"):
        for split, now in setup.prompts.items() if there else ():
            was = PromptRecord.of(there.get(split, {}))
            if was is None:
                other = "may have other prompts than the checkpoint: its record of them is of another version"
                lines.append(f"data.{split} {other} of prerl_jax, and cannot be compared")
            elif found := difference(was, now, setup.fixed[split], setup.prompt_text):
                lines.append(f"data.{split} has {found}")
        if lines and not allow:
            raise ValueError(
                "\n  ".join(["the run cannot be resumed with other prompts or answers:", *lines]) + "\n" + REMEDY
            )
    return lines


def begin(setup: Setup, source: CheckpointAddress | None) -> tuple[TrainState, CheckpointAddress | None]:
    """(the state that a run begins with, the source with the step that was found there)."""
    tx, seed = setup.optimizer(setup.phases[0]), setup.config.seed
    placement = setup.config.optimizer.placement
    if source is None:
        with share_errors("loading the model"):
            params = setup.load_params()
        return create_state(params, tx, setup.mesh, seed, placement=placement), None
    loaded = restore_state(source.checkpoints, setup.abstract_state(), source.step)
    fresh = create_state(loaded.state.params, tx, setup.mesh, seed, placement=placement)
    state = dataclasses.replace(fresh, opt_state=loaded.state.opt_state, critic=loaded.state.critic)
    return state, dataclasses.replace(source, step=loaded.step)
