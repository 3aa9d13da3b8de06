"""The critic in a run: its initial state, its values, its rows of a batch, and its update."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from prerl_jax.core.critic import make_critic_step, rollout_values, value_batch, value_statistics
from prerl_jax.core.gae import GAE
from prerl_jax.core.microbatches import Replicas
from prerl_jax.core.params import merge_params
from prerl_jax.core.train_step import CriticStep, Metrics
from prerl_jax.core.types import Array, Batch, Params, Rollouts, TrainState
from prerl_jax.models.critic import ValueDecoder
from prerl_jax.models.decoder import Decoder
from prerl_jax.runtime.mesh import batch_sharding
from prerl_jax.runtime.state import begin_critic
from prerl_jax.trainer.setup import Setup


def with_critic(setup: Setup, state: TrainState) -> tuple[TrainState, list[str]]:
    """(the state with a critic where the run has one, lines for the log).

    Without a critic in the checkpoint, the critic starts from the policy's parameters.
    """
    if setup.critic is None or state.critic is not None or (abstract := setup.abstract_critic()) is None:
        return state, []
    policy = merge_params(state.params, state.frozen)
    critic = begin_critic(policy, setup.critic.begin, setup.critic_optimizer, abstract)
    return dataclasses.replace(state, critic=critic), ["the critic begins from the policy, with a head of zeros"]


def values_program(setup: Setup) -> Callable[[Params, Rollouts], Array]:
    """(the critic's parameters, rollouts on the mesh) -> f32[B, R], the value before each response token."""

    critic = setup.critic
    if critic is None:
        raise ValueError("The config has no critic, so there are no values to compute.")

    def values(params: Params, rollouts: Rollouts) -> Array:
        return rollout_values(critic, params, rollouts, rollouts.response.shape[0] // setup.part_rows)

    return jax.jit(values, out_shardings=batch_sharding(setup.mesh))


def with_values(batch: Batch, rollouts: Rollouts, values: Array | None) -> tuple[Batch, Metrics]:
    """(the batch with rows for the critic, statistics of its values): the same fields in all phases of a run.

    Args:
      batch: the policy's batch; it has rows for the critic where the phase reads values.
      rollouts: the rollouts that these rows are made of.
      values: f32[B, R] of the critic; None in a run without a critic, which leaves the batch as it is. In a phase that
        does not read values, the critic's rows have weight zero and the statistics are NaN.
    """
    if values is None:
        return batch, {}
    rows = batch.critic or value_batch(GAE(), rollouts, values, jnp.zeros(values.shape[0], bool))
    return dataclasses.replace(batch, critic=rows), value_statistics(rows)


def critic_step(setup: Setup, batch: Batch, model: Decoder, replicas: Replicas | None) -> CriticStep | None:
    """The critic's part of the train step; None for a batch without rows for a critic.

    `model` and `replicas` are those that the policy's part has, see `make_train_step`.
    """
    if batch.critic is None or setup.config.critic is None:
        return None
    parts = batch.critic.weights.shape[0] // setup.part_rows
    critic, clip = ValueDecoder(model), setup.config.critic.value_clip
    return make_critic_step(critic, setup.critic_optimizer, clip=clip, microbatches=parts, replicas=replicas)
