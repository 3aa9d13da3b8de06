"""The train state on a mesh: its shapes and shardings without allocating it, its creation, its changes."""

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
    abstract_params: Any,
    tx: optax.GradientTransformation,
    mesh: Mesh,
    critic: CriticState | None = None,
    frozen: Any = None,
) -> TrainState:
    """The TrainState's tree of ShapeDtypeStruct: moments are sharded as their parameters, scalars are replicated.

    Args:
      abstract_params: tree of ShapeDtypeStruct with shardings of the trainable parameters, see
        `Decoder.abstract_params`.
      tx: the optimizer.
      mesh: the devices.
      critic: of a run with a critic, see `abstract_critic`.
      frozen: tree of ShapeDtypeStruct with shardings of the frozen parameters; None where there are none.
    """
    shapes = jax.eval_shape(lambda p: init_state(p, tx, jax.random.PRNGKey(0)), abstract_params)
    placed = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=replicated(mesh)), shapes)
    opt_state = _abstract_moments(abstract_params, tx, mesh)
    return dataclasses.replace(placed, params=abstract_params, opt_state=opt_state, critic=critic, frozen=frozen)


def abstract_critic(abstract_params: Any, tx: optax.GradientTransformation, mesh: Mesh) -> CriticState:
    """The CriticState's tree of ShapeDtypeStruct. Sharding and arguments are those of `abstract_state`."""
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


def create_state(
    params: Params, tx: optax.GradientTransformation, mesh: Mesh, seed: int, frozen: Params | None = None
) -> TrainState:
    """The state at the start of a run, sharded as `abstract_state` says.

    Args:
      params: the trainable parameters on the mesh. Their memory is donated to the state.
      tx: the optimizer.
      mesh: the devices.
      seed: of the run's PRNG key.
      frozen: the other parameters on the mesh, donated as well; None where all are trained.
    """
    given = (params, frozen)
    abstract = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=p.sharding), given)
    shardings = jax.tree.map(lambda s: s.sharding, abstract_state(abstract[0], tx, mesh, frozen=abstract[1]))

    def begin(given: tuple[Params, Params | None]) -> TrainState:
        return init_state(given[0], tx, jax.random.PRNGKey(seed), given[1])

    return jax.jit(begin, out_shardings=shardings, donate_argnums=0)(given)


def begin_critic(
    policy: Params, begin: Callable[[Params], Params], tx: optax.GradientTransformation, abstract: CriticState
) -> CriticState:
    """The state of a critic that starts from a policy's parameters. The policy's arrays are not donated.

    Args:
      policy: the policy's whole parameters.
      begin: maps the policy's parameters to the critic's.
      tx: the critic's optimizer.
      abstract: see `abstract_critic`.
    """

    def start(policy: Params) -> CriticState:
        params = begin(policy)
        return CriticState(params, tx.init(params))

    return jax.jit(start, out_shardings=jax.tree.map(lambda s: s.sharding, abstract))(policy)


def reset_optimizer(state: TrainState, tx: optax.GradientTransformation) -> TrainState:
    """The state with fresh moments for the policy. The critic keeps its moments."""
    shardings = jax.tree.map(lambda x: x.sharding, state.opt_state)
    opt_state = jax.jit(tx.init, out_shardings=shardings)(state.params)
    return dataclasses.replace(state, opt_state=opt_state)


def at_phase(state: TrainState, mesh: Mesh, phase: int, phase_step: int = 0) -> TrainState:
    """The state moved to step `phase_step` of phase number `phase`."""
    place = {"phase": phase, "phase_step": phase_step}
    return dataclasses.replace(state, **{name: replicate(mesh, np.int32(n)) for name, n in place.items()})


def bytes_per_device(tree: Any) -> int:
    """The bytes of the tree that one device holds: the largest shard of every leaf, added up."""
    return sum(
        jnp.dtype(leaf.dtype).itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape))
        for leaf in jax.tree.leaves(tree)
    )
