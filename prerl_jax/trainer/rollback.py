"""Going back to a good checkpoint without going back in time: arrays of then, counters and data of now."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import jax

from prerl_jax.core.guards import RollBack
from prerl_jax.core.phases import Phase
from prerl_jax.core.types import TrainState
from prerl_jax.runtime.distributed import require_same
from prerl_jax.trainer.critic import with_critic

if TYPE_CHECKING:
    from prerl_jax.trainer.loop import Run


def saves(phase: Phase) -> int:
    """Steps between the checkpoints that a phase's guards ask for; 0 is none."""
    every = [guard.reaction.every for guard in phase.guards if isinstance(guard.reaction, RollBack)]
    return min((n for n in every if n), default=0)


def rolled_back(run: Run, good: int) -> tuple[TrainState, int]:
    """(the run's state with the arrays of the newest checkpoint up to step `good`, that step).

    Without such a checkpoint it is the state that the run began with, of step 0. The arrays of now are deleted first:
    there need not be room for both.

    Raises CheckpointError where all these checkpoints are damaged, ValueError where the processes find different ones.
    """
    now, setup = run.state, run.setup
    steps = [step for step in run.checkpoints.steps() if step <= good]
    require_same("what they find", f"the checkpoints up to step {good} are {steps}", "The workdir must be shared.")
    for leaf in jax.tree.leaves((now.params, now.opt_state, now.critic)):
        leaf.delete()
    found = run.checkpoints.read(setup.abstract_state(), good)
    then, _ = with_critic(setup, run.initial() if found is None else found.state)
    counters = {name: getattr(now, name) for name in ("step", "rng", "phase", "phase_step")}
    return dataclasses.replace(then, **counters), 0 if found is None else found.step
