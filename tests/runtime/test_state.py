"""The train state that a run begins with."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from prerl_jax import adamw
from prerl_jax.runtime.mesh import MeshSpec, batch_sharding, make_mesh
from prerl_jax.runtime.state import create_state, reset_optimizer


def test_a_new_state_takes_over_the_parameters():
    """They are not held twice at the start: what was given is gone, and is the state's own memory."""
    mesh = make_mesh(MeshSpec())
    given = jax.device_put(jnp.arange(16.0).reshape(8, 2), batch_sharding(mesh))
    where = [shard.data.unsafe_buffer_pointer() for shard in given.addressable_shards]
    state = create_state({"w": given}, adamw(1e-3), mesh, seed=3)
    kept = state.params["w"]
    assert given.is_deleted()
    assert [shard.data.unsafe_buffer_pointer() for shard in kept.addressable_shards] == where
    np.testing.assert_array_equal(kept, np.arange(16.0).reshape(8, 2))
    assert kept.sharding == batch_sharding(mesh)
    np.testing.assert_array_equal(state.rng, jax.random.PRNGKey(3))


def test_frozen_parameters_are_taken_over_without_moments():
    mesh = make_mesh(MeshSpec())
    trained, frozen = (jax.device_put(jnp.full((8, 2), x), batch_sharding(mesh)) for x in (1.0, 2.0))
    state = create_state({"w": trained}, adamw(1e-3), mesh, seed=3, frozen={"v": frozen})
    assert frozen.is_deleted()
    np.testing.assert_array_equal(state.frozen["v"], np.full((8, 2), 2.0))
    assert state.frozen["v"].sharding == batch_sharding(mesh)
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
    assert len(moments) == 2  # of the trained leaf
    assert all(leaf.sharding.is_equivalent_to(batch_sharding(mesh), leaf.ndim) for leaf in moments)


def test_fresh_moments_take_the_place_of_the_old_ones():
    """At a phase's first step there is no room for both."""
    mesh = make_mesh(MeshSpec())
    params = {"w": jax.device_put(jnp.arange(8.0), batch_sharding(mesh))}
    state = create_state(params, adamw(1e-3), mesh, seed=0)
    moved = dataclasses.replace(state, opt_state=jax.tree.map(lambda x: x + 1, state.opt_state))
    fresh = reset_optimizer(moved, adamw(1e-3))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(moved.opt_state))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(fresh.opt_state))
    np.testing.assert_array_equal(fresh.params["w"], np.arange(8.0))
