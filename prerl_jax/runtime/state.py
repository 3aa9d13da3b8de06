"""The train state on a mesh: its shapes and shardings without allocating it, and its creation in place."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from prerl_jax.core.train_step import init_state
from prerl_jax.core.types import Params, TrainState


def abstract_state(abstract_params: Any, tx: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """The TrainState's tree of ShapeDtypeStruct: moments are sharded as their parameters, the rest is replicated.

    Args:
      abstract_params: the parameters' tree of ShapeDtypeStruct with shardings, see `Decoder.abstract_params`.
      tx: the optimizer.
      mesh: the devices.
    """
    shapes = jax.eval_shape(lambda p: init_state(p, tx, jax.random.PRNGKey(0)), abstract_params)
    everywhere = NamedSharding(mesh, PartitionSpec())
    shardings = jax.tree.map(lambda s: s.sharding, abstract_params)
    opt_shardings = optax.tree_utils.tree_map_params(
        tx, lambda _, sharding: sharding, shapes.opt_state, shardings, transform_non_params=lambda _: everywhere
    )
    replicated = TrainState(everywhere, shardings, opt_shardings, everywhere, everywhere, everywhere)
    return jax.tree.map(lambda s, where: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=where), shapes, replicated)


def create_state(params: Params, tx: optax.GradientTransformation, mesh: Mesh, seed: int) -> TrainState:
    """The state of a run that begins with these parameters, sharded as `abstract_state` says. They are donated."""
    abstract = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=p.sharding), params)
    shardings = jax.tree.map(lambda s: s.sharding, abstract_state(abstract, tx, mesh))

    def begin(p: Params) -> TrainState:
        return init_state(p, tx, jax.random.PRNGKey(seed))

    return jax.jit(begin, out_shardings=shardings, donate_argnums=0)(params)


def reset_optimizer(state: TrainState, tx: optax.GradientTransformation) -> TrainState:
    """The state with fresh moments."""
    shardings = jax.tree.map(lambda x: x.sharding, state.opt_state)
    opt_state = jax.jit(tx.init, out_shardings=shardings)(state.params)
    return TrainState(state.step, state.params, opt_state, state.rng, state.phase, state.phase_step)


def bytes_per_device(tree: Any) -> int:
    """Bytes that the largest shard of every leaf takes, added up: what one device holds of the tree."""
    return sum(
        jnp.dtype(leaf.dtype).itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape))
        for leaf in jax.tree.leaves(tree)
    )
