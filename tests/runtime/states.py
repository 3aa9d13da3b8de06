"""Small train states for the checkpoint tests."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from prerl_jax.core.types import TrainState
from prerl_jax.runtime.mesh import MeshSpec, make_mesh

TX = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(lambda step: 1e-3))


def make_state(value=0, width=512, dtype=jnp.float32, rng=None, mesh=None):
    """A state whose arrays all depend on `value`, sharded over `mesh`."""
    mesh = make_mesh(MeshSpec(data=1, fsdp=-1, tensor=2)) if mesh is None else mesh

    def put(x, *axes):
        return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*axes)))

    params = {
        "embed": put(np.random.default_rng(value).normal(size=(8, width)).astype(np.float32), "tensor", "fsdp"),
        "layers": {"up": put((np.arange(2 * width) + value).reshape(2, width)).astype(dtype)},
    }
    opt_state = jax.tree.map(lambda x: put(x) if x.ndim == 0 else x + value, TX.init(params))
    rng = jax.random.PRNGKey(value) if rng is None else rng
    scalars = {name: put(jnp.int32(value)) for name in ("step", "phase", "phase_step")}
    return TrainState(params=params, opt_state=opt_state, rng=put(rng), **scalars)


def abstract(tree):
    """What a restore asks for."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def assert_same(a, b):
    """Bit for bit the same arrays in the same tree, PRNG keys included."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()
