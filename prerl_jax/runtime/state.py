"""The train state on a mesh: its shapes and shardings, its creation, and changes of single fields."""

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

HOST = "pinned_host"
"""JAX's name of the host's memory that a device reads and writes without a copy in between."""
PLACEMENTS = ("device", "host")
"""Where an optimizer's moments can be between updates. In the host's memory they are sharded as on the devices."""


def require_placement(placement: str, mesh: Mesh) -> None:
    """Checks that the mesh has the memory of a placement.

    Args:
      placement: one of PLACEMENTS.
      mesh: the mesh of the run.

    Raises ValueError where the devices cannot use the host's memory.
    """
    device = mesh.devices.flat[0]
    kinds = [memory.kind for memory in device.addressable_memories()]
    if placement == "host" and HOST not in kinds:
        raise ValueError(
            f"optimizer.placement is 'host', but {device.device_kind} devices have no memory {HOST!r}, only "
            f"{', '.join(map(repr, kinds))}. Set it to 'device'."
        )


def on_device(tree: Any) -> Any:
    """The same tree with all arrays in the devices' memory, for a program that computes with them. Traceable."""
    device = jax.memory.Space.Device
    return jax.tree.map(lambda x: x if jax.typeof(x).memory_space == device else jax.device_put(x, device), tree)


def abstract_state(
    abstract_params: Any,
    tx: optax.GradientTransformation,
    mesh: Mesh,
    critic: CriticState | None = None,
    frozen: Any = None,
    placement: str = "device",
) -> TrainState:
    """Describes a TrainState without allocating it.

    Args:
      abstract_params: the trainable parameters as ShapeDtypeStructs with shardings, see `Decoder.abstract_params`.
      tx: the optimizer.
      mesh: the mesh of the run.
      critic: the state of the critic, if the run has one, see `abstract_critic`.
      frozen: the frozen parameters as ShapeDtypeStructs with shardings; None if all parameters are trained.
      placement: where the moments are, one of PLACEMENTS.

    Returns:
      The TrainState with ShapeDtypeStructs as leaves. Moments are sharded like their parameters, scalars are
      replicated.

    Raises ValueError where the mesh cannot use the host's memory.
    """
    shapes = jax.eval_shape(lambda p: init_state(p, tx, jax.random.PRNGKey(0)), abstract_params)
    placed = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=replicated(mesh)), shapes)
    opt_state = _abstract_moments(abstract_params, tx, mesh, placement)
    return dataclasses.replace(placed, params=abstract_params, opt_state=opt_state, critic=critic, frozen=frozen)


def abstract_critic(
    abstract_params: Any, tx: optax.GradientTransformation, mesh: Mesh, placement: str = "device"
) -> CriticState:
    """Describes a CriticState without allocating it.

    Args:
      abstract_params: the critic's parameters as ShapeDtypeStructs with shardings.
      tx: the critic's optimizer.
      mesh: the mesh of the run.
      placement: where the moments are, one of PLACEMENTS.

    Returns:
      The CriticState with ShapeDtypeStructs as leaves, sharded as in `abstract_state`.

    Raises ValueError where the mesh cannot use the host's memory.
    """
    return CriticState(abstract_params, _abstract_moments(abstract_params, tx, mesh, placement))


def _abstract_moments(abstract_params: Any, tx: optax.GradientTransformation, mesh: Mesh, placement: str) -> Any:
    require_placement(placement, mesh)

    def of_moment(param: jax.ShapeDtypeStruct) -> Sharding:
        return param.sharding.with_memory_kind(HOST) if placement == "host" else param.sharding

    def place(shape: jax.ShapeDtypeStruct, where: Sharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=where)

    return optax.tree_utils.tree_map_params(
        tx,
        lambda shape, param: place(shape, of_moment(param)),
        jax.eval_shape(tx.init, abstract_params),
        abstract_params,
        transform_non_params=lambda shape: place(shape, replicated(mesh)),
    )


def create_state(
    params: Params,
    tx: optax.GradientTransformation,
    mesh: Mesh,
    seed: int,
    frozen: Params | None = None,
    placement: str = "device",
) -> TrainState:
    """Creates the state of a run that begins with these parameters.

    Args:
      params: the trainable parameters, on the mesh. They are donated: do not use them afterwards.
      tx: the optimizer.
      mesh: the mesh of the run.
      seed: the seed of the run's random key.
      frozen: the frozen parameters, on the mesh, donated as well; None if all parameters are trained.
      placement: where the moments are, one of PLACEMENTS.

    Returns:
      The state at step 0, sharded as in `abstract_state`.

    Raises ValueError where the mesh cannot use the host's memory.
    """
    given = (params, frozen)
    abstract = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=p.sharding), given)
    described = abstract_state(abstract[0], tx, mesh, frozen=abstract[1], placement=placement)
    shardings = jax.tree.map(lambda s: s.sharding, described)

    def begin(given: tuple[Params, Params | None]) -> TrainState:
        return init_state(given[0], tx, jax.random.PRNGKey(seed), given[1])

    return jax.jit(begin, out_shardings=shardings, donate_argnums=0)(given)


def begin_critic(
    policy: Params, begin: Callable[[Params], Params], tx: optax.GradientTransformation, abstract: CriticState
) -> CriticState:
    """Creates the state of a critic from the parameters of a policy.

    Args:
      policy: all parameters of the policy. They are not donated.
      begin: maps the policy's parameters to the critic's; it must be traceable.
      tx: the critic's optimizer.
      abstract: the shapes and shardings of the result, see `abstract_critic`.

    Returns:
      The critic's parameters with fresh moments.
    """

    def start(policy: Params) -> CriticState:
        params = begin(policy)
        return CriticState(params, tx.init(params))

    return jax.jit(start, out_shardings=jax.tree.map(lambda s: s.sharding, abstract))(policy)


def reset_optimizer(state: TrainState, tx: optax.GradientTransformation) -> TrainState:
    """Returns the state with fresh moments of the policy. The critic keeps its moments. The old moments are donated.

    Args:
      state: the state of a run.
      tx: the policy's optimizer.
    """
    shardings = jax.tree.map(lambda x: x.sharding, state.opt_state)

    def fresh(old: Any, params: Params) -> Any:
        del old
        return tx.init(params)

    begin = jax.jit(fresh, donate_argnums=0, out_shardings=shardings, keep_unused=True)
    return dataclasses.replace(state, opt_state=begin(state.opt_state, state.params))


def at_phase(state: TrainState, mesh: Mesh, phase: int, phase_step: int = 0) -> TrainState:
    """Returns the state at another position in the phases.

    Args:
      state: the state of a run.
      mesh: the mesh of the run.
      phase: the index of the phase, from 0.
      phase_step: how many steps of that phase are done.
    """
    place = {"phase": phase, "phase_step": phase_step}
    numbers: dict[str, Any] = {name: replicate(mesh, np.int32(n)) for name, n in place.items()}
    return dataclasses.replace(state, **numbers)


def bytes_per_device(tree: Any) -> int:
    """The bytes that one device holds of a pytree: the sum of the bytes of one shard of all leaves in its memory.

    Args:
      tree: a pytree of arrays or ShapeDtypeStructs with shardings.
    """
    return sum(
        jnp.dtype(leaf.dtype).itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape))
        for leaf in jax.tree.leaves(tree)
        if leaf.sharding.memory_kind != HOST
    )
