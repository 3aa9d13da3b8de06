"""The updates of a step: batches are prepared, gradients are compared, and the parameters are updated.

A step with epochs and minibatches has several updates. Advantages are computed over all rollouts of the step, and old
log-probabilities are scored once, before the first update. The device runs programs in the order in which they are
started. So the programs that prepare all batches are started before the first update; then the host packs each batch
while the device computes the previous update. The step counter rises once, with the last update.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from collections.abc import Iterator

import jax
import numpy as np

from prerl_jax.core.params import merge_params
from prerl_jax.core.phases import Phase
from prerl_jax.core.train_step import Metrics
from prerl_jax.core.types import Array, Batch, Params, Rollouts, TrainState
from prerl_jax.runtime.mesh import global_rows
from prerl_jax.runtime.profile import annotate
from prerl_jax.trainer.programs import Programs
from prerl_jax.trainer.timing import StepClock, TrainedTokens


@dataclasses.dataclass(frozen=True)
class PackedUpdate:
    """The packed batch of one update.

    Attributes:
      batch: this process's rows; numpy.
      statistics: metrics f32[] of the rollouts, on the device.
    """

    batch: Batch
    statistics: Metrics


@dataclasses.dataclass(frozen=True)
class Prepared:
    """The inputs of a step's updates.

    Attributes:
      rollouts: the rollouts of the step, on the mesh.
      updates: yields one packed batch for each update; it packs a batch when it is asked for it.
      reference: the parameters of the reference policy; None where the phase has none.
      scored: i64[n], the lengths of the sequences that were scored before the first update. A sequence that two
        policies score is listed twice.
    """

    rollouts: Rollouts
    updates: Iterator[PackedUpdate]
    reference: Params | None
    scored: np.ndarray


@dataclasses.dataclass(frozen=True)
class Updated:
    """The results of a step's updates.

    Attributes:
      metrics: the metrics of the step, on the device; reading one waits for it.
      trained: the work of each update.
      scored: i64[n], the lengths of the sequences that were scored without a gradient.
    """

    metrics: Metrics
    trained: list[TrainedTokens]
    scored: np.ndarray


def prepare(
    programs: Programs,
    phase: Phase,
    state: TrainState,
    rollouts: Rollouts,
    *,
    reference: Params | None,
    key: Array,
    phase_step: int,
    clock: StepClock,
) -> Prepared:
    """Puts the rollouts onto the mesh, scores what the phase needs, and prepares the batches of all updates.

    Args:
      programs: the run's programs.
      phase: the current phase.
      state: the state before the step.
      rollouts: this process's rollouts, verified; numpy.
      reference: the parameters of the reference policy, or None.
      key: the step's key for preparing.
      phase_step: steps done in the phase.
      clock: gets the mark "scored".
    """
    batching = programs.batching
    with annotate("prepare"):
        on_mesh = global_rows(programs.setup.mesh, rollouts, programs.setup.share)
        values = programs.values(phase, state, on_mesh)
        policy = merge_params(state.params, state.frozen)
        logprobs, scored = batching.score(phase, on_mesh, key, policy, reference)
        jax.block_until_ready(values)
        clock.mark("scored")
        inputs = {"key": key, "phase_step": np.int32(phase_step), "values": values} | logprobs
        unpacked = deque(batching.prepare(phase, on_mesh, inputs, number) for number in range(phase.updates))
    updates = _packed(programs, phase, unpacked)
    first = next(updates)
    return Prepared(on_mesh, itertools.chain([first], updates), reference, scored)


def _packed(programs: Programs, phase: Phase, unpacked: deque[tuple[Batch, Metrics]]) -> Iterator[PackedUpdate]:
    while unpacked:
        with annotate("prepare"):
            batch, statistics = unpacked.popleft()
            packed = PackedUpdate(programs.batching.pack(phase, batch), statistics)
            del batch  # the unpacked batch on the mesh is freed before the update
        yield packed


def align(programs: Programs, phase: Phase, params: Params, prepared: Prepared) -> Metrics:
    """The `alignment/` metrics of a step before its first update, on the device, not necessarily computed."""
    return programs.align(phase.temperature)(params, prepared.rollouts)


def update(programs: Programs, phase: Phase, state: TrainState, prepared: Prepared) -> tuple[TrainState, Updated]:
    """Updates the parameters; the state is donated. Nothing here waits for an update to be computed."""
    metrics, trained, step = [], [], programs.step(phase)
    for number, packed in enumerate(prepared.updates):
        last = () if phase.updates == 1 else (np.bool_(number == phase.updates - 1),)
        with annotate("train"):
            batch = programs.batching.place(phase, packed.batch, prepared.reference)
            state, of_update = step(state, batch, *last)
        metrics.append(packed.statistics | of_update)
        trained.append(TrainedTokens.of(packed.batch))
    joined = metrics[0] if phase.updates == 1 else programs.mean_over_updates(metrics)
    scored = prepared.scored
    if prepared.reference is not None and not phase.logprobs_needed_before_update:
        scored = trained[0].lengths
    return state, Updated(joined, trained, scored)
