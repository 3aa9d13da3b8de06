"""The value model of a decoder: what it begins with, and that packed rows have the values of their sequences."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from prerl_jax.core.types import Sequences
from prerl_jax.models.critic import ValueDecoder
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.layers import DecoderConfig
from prerl_jax.runtime.mesh import MeshSpec, make_mesh

CONFIG = DecoderConfig("qwen3", 32, 16, 32, 2, 2, 1, 8, qk_norm=True)


def sequences(rows, lengths):
    """Rows of segments of these lengths; the first token of each is not scored."""
    segments = np.concatenate([np.full(n, i + 1) for i, n in enumerate(lengths)])
    positions = np.concatenate([np.arange(n) for n in lengths])
    tokens = (np.arange(segments.size) * 7 + 3) % CONFIG.vocab_size
    arrays = [jnp.asarray(np.tile(x, (rows, 1)), jnp.int32) for x in (tokens, positions, segments)]
    return Sequences(*arrays, arrays[1] > 0)


@pytest.mark.parametrize("tied", [True, False])
def test_it_begins_as_the_policy_and_says_zero(tied):
    decoder = Decoder(dataclasses.replace(CONFIG, tied=tied))
    critic, policy = ValueDecoder(decoder), toy.random_params(decoder)
    params = critic.begin(policy)
    assert params.keys() == (policy.keys() - {"unembed"}) | {"value_head"}
    toy.assert_same_bits({k: params[k] for k in ("embed", "layers")}, {k: policy[k] for k in ("embed", "layers")})
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), params)
    assert shapes == jax.tree.map(lambda x: (x.shape, x.dtype), critic.abstract_params())
    assert not jax.jit(critic.values)(params, sequences(1, [5])).any()


def test_values_are_the_heads_of_the_states_before_and_keep_to_their_segment():
    decoder = Decoder(CONFIG)
    critic = ValueDecoder(decoder)
    params = toy.random_params(critic)
    packed, alone = (np.asarray(jax.jit(critic.values)(params, sequences(1, n))) for n in ([4, 5], [4]))
    assert packed.dtype == np.float32
    np.testing.assert_allclose(packed[:, :4], alone, rtol=1e-5, atol=1e-6)
    s = sequences(1, [4])
    hidden = np.asarray(jax.jit(decoder.hidden)(params, s.tokens, s.positions, s.segments))
    expected = np.pad((hidden[:, :-1] * np.asarray(params["value_head"])).sum(-1), [(0, 0), (1, 0)])
    np.testing.assert_allclose(alone, expected, rtol=1e-5, atol=1e-6)


def test_it_is_sharded_by_the_policys_rules():
    mesh = make_mesh(MeshSpec(data=2, fsdp=2, tensor=2))
    critic = ValueDecoder(Decoder(dataclasses.replace(CONFIG, num_kv_heads=2), mesh=mesh))
    params = critic.abstract_params()
    assert params["value_head"].sharding.spec == jax.sharding.PartitionSpec("fsdp")
    assert params["layers"]["mlp"]["up"].sharding == critic.decoder.abstract_params()["layers"]["mlp"]["up"].sharding
