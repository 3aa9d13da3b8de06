"""The critic in a run: where it begins, the program of its values, its part in preparing and in the train step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from prerl_jax.core.critic import make_critic_step, rollout_values, value_batch, value_statistics
from prerl_jax.core.gae import GAE
from prerl_jax.core.train_step import CriticStep, Metrics
from prerl_jax.core.types import Array, Batch, Params, Rollouts, TrainState
from prerl_jax.runtime.mesh import batch_sharding
from prerl_jax.runtime.state import begin_critic
from prerl_jax.trainer.setup import Setup


def with_critic(setup: Setup, state: TrainState) -> tuple[TrainState, list[str]]:
    """(the state with a critic, where the run has one, what there is to say of it).

    One that comes from no checkpoint begins from the policy at hand.
    """
    if setup.critic is None or state.critic is not None:
        return state, []
    begin, tx = setup.critic.begin, setup.critic_optimizer
    critic = begin_critic(state.params, begin, tx, setup.abstract_critic())
    return dataclasses.replace(state, critic=critic), ["the critic begins from the policy, with a head of zeros"]


def values_program(setup: Setup) -> Callable[[Params, Rollouts], Array]:
    """(the critic's parameters, rollouts on the mesh) -> f32[B, R], the value before each token of the responses."""

    def values(params: Params, rollouts: Rollouts) -> Array:
        parts = rollouts.response.shape[0] // setup.part_rows
        return rollout_values(setup.critic, params, rollouts, parts)

    return jax.jit(values, out_shardings=batch_sharding(setup.mesh))


def with_values(batch: Batch, rollouts: Rollouts, values: Array | None) -> tuple[Batch, Metrics]:
    """(the batch, statistics of the critic's values), with the same fields in all phases of a run.

    In a run with a critic, of which `values` f32[B, R] are, a phase that reads none has rows of zeros, and statistics
    that are NaN.
    """
    if values is None:
        return batch, {}
    rows = batch.critic or value_batch(GAE(), rollouts, values, jnp.zeros(values.shape[0], bool))
    return dataclasses.replace(batch, critic=rows), value_statistics(rows)


def critic_step(setup: Setup, batch: Batch) -> CriticStep | None:
    """The critic's part of the train step, for a packed batch that has rows for it."""
    if batch.critic is None:
        return None
    parts = batch.critic.weights.shape[0] // setup.part_rows
    clip = setup.config.critic.value_clip
    return make_critic_step(setup.critic, setup.critic_optimizer, clip=clip, microbatches=parts)
