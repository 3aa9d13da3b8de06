"""The train state that a run begins with."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prerl_jax import adamw
from prerl_jax.runtime.mesh import MeshSpec, batch_sharding, make_mesh
from prerl_jax.runtime.state import bytes_per_device, create_state, on_device, require_placement, reset_optimizer


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


def kinds(tree):
    return {leaf.sharding.memory_kind for leaf in jax.tree.leaves(tree) if leaf.ndim}


def test_moments_in_the_hosts_memory():
    """They are sharded as on the devices, count for no bytes there, stay there when they are reset, and come back."""
    mesh = make_mesh(MeshSpec())
    params = {"w": jax.device_put(jnp.arange(8.0), batch_sharding(mesh))}
    state = create_state(params, adamw(1e-3), mesh, seed=0, placement="host")
    assert (kinds(state.opt_state), kinds(state.params)) == ({"pinned_host"}, {"device"})
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
    assert {leaf.sharding.spec for leaf in moments} == {state.params["w"].sharding.spec}
    assert bytes_per_device(moments) == 0 < bytes_per_device(state.params)
    assert kinds(jax.jit(on_device)(state).opt_state) == {"device"}
    assert kinds(reset_optimizer(state, adamw(1e-3)).opt_state) == {"pinned_host"}


def test_a_device_that_cannot_use_the_hosts_memory_is_refused():
    device = types.SimpleNamespace(device_kind="toy", addressable_memories=lambda: [types.SimpleNamespace(kind="own")])
    mesh = types.SimpleNamespace(devices=np.array([[device]]))
    require_placement("device", mesh)
    with pytest.raises(ValueError, match=r"toy devices have no memory 'pinned_host', only 'own'. Set it to 'device'"):
        require_placement("host", mesh)
