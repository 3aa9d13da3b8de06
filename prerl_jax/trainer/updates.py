"""What a step trains on is given to the device: one update after the other, and the alignment of gradients before.

With epochs and minibatches a step has several. AdvantageEstimator is given over all its rollouts, and what they are held against is
scored once, before the first. All unpacked batches are asked for before the first update, since the device does what it
is given in order; so each is packed on the host while the device computes the update before. The step counts once, with
the last.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import numpy as np

from prerl_jax.core.types import Rollouts
from prerl_jax.runtime.mesh import global_rows
from prerl_jax.runtime.profile import annotate
from prerl_jax.trainer.setup import Setup
from prerl_jax.trainer.steps import due
from prerl_jax.trainer.timing import Trained, Work

if TYPE_CHECKING:
    from prerl_jax.trainer.loop import Run
    from prerl_jax.trainer.steps import Step

Later = Callable[[Callable[[], None]], None]


def update(run: Run, step: Step, later: Later) -> None:
    """Moves `run.state` and fills in the step's metrics, which are computed later: nobody waits for an update here.

    `later` makes calls in the background.
    """
    setup, programs, phase = run.setup, run.programs, step.phase
    rollouts = global_rows(setup.mesh, step.rollouts)
    with annotate("prepare"):
        reference = run.references.of(phase, run.state)
        given = {"key": step.key, "phase_step": np.int32(step.phase_step)}
        given["values"] = programs.values(phase, run.state, rollouts)
        known, scored = programs.batching.score(phase, rollouts, step.key, run.state.params, reference)
        jax.block_until_ready(given["values"])
        step.times.mark("scored")
        given |= known
        unpacked = deque(programs.batching.prepare(phase, rollouts, given, n) for n in range(phase.updates))
    found, trained = [], []
    for number in range(phase.updates):
        with annotate("prepare"):
            batch, statistics = unpacked.popleft()
            packed = programs.batching.pack(phase, batch)
        if not number:
            _align(run, step, later)
        counts = () if phase.updates == 1 else (np.bool_(number == phase.updates - 1),)
        with annotate("train"):
            batch = programs.batching.anchored(phase, packed, reference)
            run.state, stepped = programs.step(phase)(run.state, batch, *counts)
        found.append(statistics | stepped)
        trained.append(Trained.of(packed))
    step.metrics = found[0] if phase.updates == 1 else programs.over_updates(found)
    if not all(term.space.traits.given_prompt for term in phase.all_terms):
        del step.metrics["train/sampler_logprob_diff"]  # the sampler's were given the prompt
    if reference is not None and not phase.logprobs_needed_before_update:
        scored = trained[0].lengths
    group_size = setup.config.sampling.group_size
    step.work = Work(setup.model.config, setup.mesh, step.drawn, trained, group_size, scored)


def _align(run: Run, step: Step, later: Later) -> None:
    """Measures how the gradients of the two spaces align, where it is due; marks the times."""
    if not due(run.setup.config.alignment.every, step.number - 1):
        step.times.mark("prepared", "aligned")
        return
    groups = global_rows(run.setup.mesh, _alignment_groups(run.setup, step.rollouts))
    step.aligned = run.programs.dual(step.phase.temperature)(run.state.params, groups)
    step.times.mark("prepared")
    later(step.wait_aligned)


def _alignment_groups(setup: Setup, rollouts: Rollouts) -> Rollouts:
    """This process's rows of the groups that alignment is measured on: evenly spread over the global batch.

    Which ones they are does not depend on the number of processes.
    """
    sampling, processes = setup.config.sampling, jax.process_count()
    wanted, local = setup.config.alignment.prompts // processes, sampling.prompts_per_step // processes
    groups = np.arange(wanted) * local // wanted
    rows = (groups[:, None] * sampling.group_size + np.arange(sampling.group_size)).ravel()
    return jax.tree.map(lambda x: x[rows], rollouts)
