"""The compiled programs of a run: each is compiled at its first use and reused.

The cache key of a program is what it computes. Phases with the same objective, learning rate and temperature share one
train step, whatever their space, advantage and aggregation are. `batching` makes the batches, `alignment` measures
gradients.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from prerl_jax.core.microbatches import Replicas
from prerl_jax.core.phases import Phase, advance
from prerl_jax.core.train_step import Metrics, make_train_step
from prerl_jax.core.types import Array, Batch, Params, Rollouts, TrainState
from prerl_jax.models.partitioning import splits_only_rows, within
from prerl_jax.rollout.engine import Engine
from prerl_jax.runtime.mesh import global_rows, replicated
from prerl_jax.runtime.state import on_device
from prerl_jax.trainer.alignment import make_align
from prerl_jax.trainer.batching import Batching, rollout_statistics
from prerl_jax.trainer.critic import critic_step, values_program
from prerl_jax.trainer.engines import make_engine
from prerl_jax.trainer.metrics import mean_over_updates
from prerl_jax.trainer.setup import Setup

PREPARE = 0x70726570
"""`fold_in(step key, PREPARE)` is the key for preparing batches. The sampler folds in prompt ids, which are smaller."""


class Programs:
    """The programs of one run.

    Args:
      setup: the run's config, model and mesh.
    """

    def __init__(self, setup: Setup):
        self.setup = setup
        self.batching = Batching(setup)
        self.align = functools.cache(functools.partial(make_align, setup))
        self._engine = functools.cache(functools.partial(make_engine, setup))
        self._unread_values = functools.cache(self._zeros)
        self._steps: dict[object, Callable[..., tuple[TrainState, Metrics]]] = {}

    def engine(self, phase: Phase) -> Engine:
        """The engine that samples the rollouts of a phase. Phases with the same temperature share it."""
        sampling = self.setup.config.sampling
        return self._engine(phase.temperature, sampling.top_k, sampling.top_p, sampling.group_size)

    @property
    def evaluation_engine(self) -> Engine:
        """The engine for evaluations. It is the engine of training if the settings are equal."""
        spec = self.setup.config.evaluation
        return self._engine(spec.temperature, spec.top_k, spec.top_p, self.setup.evaluation_calls.group_size)

    @functools.cached_property
    def step_keys(self) -> Callable[[Array, int], tuple[Array, Array]]:
        """(the run's key, steps done) -> (the next step's key for sampling, its key for preparing batches)."""

        def step_keys(key: Array, done: Array) -> tuple[Array, Array]:
            key = jax.random.fold_in(key, done)
            return key, jax.random.fold_in(key, PREPARE)

        return jax.jit(step_keys, out_shardings=replicated(self.setup.mesh))

    def values(self, phase: Phase, state: TrainState, rollouts: Rollouts) -> Array | None:
        """The critic's values f32[B, R] of rollouts on the mesh; None in a run without a critic.

        In a phase that reads no values they are zeros, because the phases of a run share programs and their inputs.
        """
        if state.critic is None:
            return None
        if phase.value_advantage is None:
            return self._unread_values(*rollouts.response.shape)
        return self.values_program(state.critic.params, rollouts)

    def _zeros(self, rows: int, length: int) -> Array:
        share = self.setup.share
        return global_rows(self.setup.mesh, np.zeros((rows // share.count, length), np.float32), share)

    @functools.cached_property
    def values_program(self) -> Callable[[Params, Rollouts], Array]:
        """(the critic's parameters, rollouts on the mesh) -> f32[B, R], the values; for a run with a critic."""
        return values_program(self.setup)

    @functools.cached_property
    def statistics(self) -> Callable[[Rollouts], Metrics]:
        """Computes `rollout_statistics` of the first batch of a step that may resample."""
        measure = functools.partial(rollout_statistics, group_size=self.setup.config.sampling.group_size)
        return jax.jit(measure, out_shardings=replicated(self.setup.mesh))

    @functools.cached_property
    def mean_over_updates(self) -> Callable[[list[Metrics]], Metrics]:
        """The metrics of a step with several updates; see `metrics.mean_over_updates`."""
        return jax.jit(mean_over_updates, out_shardings=replicated(self.setup.mesh))

    def step(self, phase: Phase) -> Callable[..., tuple[TrainState, Metrics]]:
        """(state, packed batch on the mesh) -> (new state, metrics f32[]). The state is donated.

        The state moves to the next phase after the phase's last step. Batches with equally many rows share one program,
        however many of the rows are used. With several updates a step, pass `last` (bool): the step counters rise with
        the last update only.
        """
        key = (phase.objective, self.setup.learning_rate(phase), phase.temperature)
        if key not in self._steps:
            self._steps[key] = self._make_step(phase)
        return self._steps[key]

    def _make_step(self, phase: Phase) -> Callable[..., tuple[TrainState, Metrics]]:
        setup, tx = self.setup, self.setup.optimizer(phase)
        shardings = jax.tree.map(lambda s: s.sharding, setup.abstract_state(phase))

        model, replicas = setup.model, None
        if setup.mesh.shape["data"] > 1 and splits_only_rows(model.rules, "data"):
            model, replicas = within(model, "data"), Replicas("data", setup.mesh.shape["data"])

        def train(state: TrainState, batch: Batch, last: Array | None = None) -> tuple[TrainState, Metrics]:
            rows, length = batch.weights.shape
            step = make_train_step(
                model,
                tx,
                phase.objective,
                microbatches=rows // setup.part_rows,
                temperature=phase.temperature,
                chunk=setup.chunk(length),
                learning_rate=setup.learning_rate(phase),
                critic=critic_step(setup, batch, model, replicas),
                replicas=replicas,
            )
            updated, metrics = step(on_device(state), batch)
            if last is not None:
                updated = dataclasses.replace(
                    updated,
                    step=jnp.where(last, updated.step, state.step),
                    phase_step=jnp.where(last, updated.phase_step, state.phase_step),
                )
            return advance(setup.phases, updated), metrics

        return jax.jit(train, donate_argnums=0, out_shardings=(shardings, replicated(setup.mesh)))
