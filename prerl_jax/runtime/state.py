"""The train state on a mesh: its shapes and shardings without allocating it, its creation in place, its changes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, Sharding

from prerl_jax.core.train_step import init_state
from prerl_jax.core.types import CriticState, Params, TrainState
from prerl_jax.runtime.mesh import replicate, replicated


def abstract_state(
    abstract_params: Any, tx: optax.GradientTransformation, mesh: Mesh, critic: CriticState | None = None
) -> TrainState:
    """The TrainState's tree of ShapeDtypeStruct: moments are sharded as their parameters, the rest is replicated.

    Args:
      abstract_params: the parameters' tree of ShapeDtypeStruct with shardings, see `Decoder.abstract_params`.
      tx: the optimizer.
      mesh: the devices.
      critic: of a run with a critic, see `abstract_critic`.
    """
    shapes = jax.eval_shape(lambda p: init_state(p, tx, jax.random.PRNGKey(0)), abstract_params)
    placed = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=replicated(mesh)), shapes)
    opt_state = _abstract_moments(abstract_params, tx, mesh)
    return dataclasses.replace(placed, params=abstract_params, opt_state=opt_state, critic=critic)


def abstract_critic(abstract_params: Any, tx: optax.GradientTransformation, mesh: Mesh) -> CriticState:
    """The CriticState's tree of ShapeDtypeStruct, sharded as `abstract_state` says; arguments likewise."""
    return CriticState(abstract_params, _abstract_moments(abstract_params, tx, mesh))


def _abstract_moments(abstract_params: Any, tx: optax.GradientTransformation, mesh: Mesh) -> Any:
    def place(shape: jax.ShapeDtypeStruct, where: Sharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=where)

    return optax.tree_utils.tree_map_params(
        tx,
        lambda shape, param: place(shape, param.sharding),
        jax.eval_shape(tx.init, abstract_params),
        abstract_params,
        transform_non_params=lambda shape: place(shape, replicated(mesh)),
    )


def create_state(params: Params, tx: optax.GradientTransformation, mesh: Mesh, seed: int) -> TrainState:
    """The state of a run that begins with these parameters, sharded as `abstract_state` says. They are donated."""
    abstract = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=p.sharding), params)
    shardings = jax.tree.map(lambda s: s.sharding, abstract_state(abstract, tx, mesh))

    def begin(p: Params) -> TrainState:
        return init_state(p, tx, jax.random.PRNGKey(seed))

    return jax.jit(begin, out_shardings=shardings, donate_argnums=0)(params)


def begin_critic(
    policy: Params, begin: Callable[[Params], Params], tx: optax.GradientTransformation, abstract: CriticState
) -> CriticState:
    """The state of a critic that begins from a policy's parameters, which stay as they are.

    Args:
      policy: the parameters.
      begin: those of the policy -> those of the critic.
      tx: the critic's optimizer.
      abstract: see `abstract_critic`.
    """

    def start(policy: Params) -> CriticState:
        params = begin(policy)
        return CriticState(params, tx.init(params))

    return jax.jit(start, out_shardings=jax.tree.map(lambda s: s.sharding, abstract))(policy)


def reset_optimizer(state: TrainState, tx: optax.GradientTransformation) -> TrainState:
    """The state with fresh moments of the policy; the critic keeps its own."""
    shardings = jax.tree.map(lambda x: x.sharding, state.opt_state)
    opt_state = jax.jit(tx.init, out_shardings=shardings)(state.params)
    return dataclasses.replace(state, opt_state=opt_state)


def at_phase(state: TrainState, mesh: Mesh, phase: int, phase_step: int = 0) -> TrainState:
    """The state at another place in the phases."""
    place = {"phase": phase, "phase_step": phase_step}
    return dataclasses.replace(state, **{name: replicate(mesh, np.int32(n)) for name, n in place.items()})


def bytes_per_device(tree: Any) -> int:
    """Bytes that the largest shard of every leaf takes, added up: what one device holds of the tree."""
    return sum(
        jnp.dtype(leaf.dtype).itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape))
        for leaf in jax.tree.leaves(tree)
    )
