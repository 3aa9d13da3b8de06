"""The train state that a run begins with."""

import jax
import jax.numpy as jnp
import numpy as np

from prerl_jax import adamw
from prerl_jax.runtime.mesh import MeshSpec, batch_sharding, make_mesh
from prerl_jax.runtime.state import create_state


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
