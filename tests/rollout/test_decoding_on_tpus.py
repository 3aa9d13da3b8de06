"""The compiled programs of decoding for TPU slices, read as their users' bill: what goes between chips in its loop."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from tpu_devices import slice_of

import prerl_jax as pj
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.layers import DecoderConfig
from prerl_jax.plan.count import count
from prerl_jax.runtime.mesh import MeshSpec, batch_sharding, make_mesh

pytestmark = pytest.mark.slow

FULL_WIDTH = {"rope_theta": 1e6, "qk_norm": True, "max_position_embeddings": 40960}
QWEN3_4B = 151936, 2560, 9728
MIB = 2**20


def decode_chunk(topology, layers, tensor, prompts, slots):
    """The compiled decode chunk of Qwen3-4B with so many layers; the parameters are split over all devices."""
    mesh = make_mesh(MeshSpec(), slice_of(topology))
    config = DecoderConfig("qwen3", *QWEN3_4B, layers, 32, 8, 128, **FULL_WIDTH)
    model = Decoder(config, compute_dtype="bfloat16", mesh=mesh)
    engine = pj.ContinuousBatching(slots=slots, shrink=(), tensor=tensor).make(
        model, pj.SamplerConfig(8192, stop_tokens=(2,), top_p=0.95), 8
    )
    tokens, mask = (
        jax.ShapeDtypeStruct((prompts, 1024), kind, sharding=batch_sharding(mesh)) for kind in (jnp.int32, bool)
    )
    key = jax.ShapeDtypeStruct((2,), jnp.uint32, sharding=NamedSharding(mesh, PartitionSpec()))
    compiled = engine.compile(model.abstract_params(), pj.Prompts(tokens, mask), key)
    return next(program for name, program in compiled if name.startswith("decode_chunk"))


def assert_only_activations_between_chips(program, rows, layers, chunk=16):
    found = count(program.as_text())
    assert not found.unbounded
    hidden = rows * QWEN3_4B[1]
    for exchange, _ in found.collectives(depth=1):
        for array in exchange.arrays:
            assert array.size <= hidden, f"{exchange.kind} of {array} in the decode loop: {exchange.source}"
    in_loop = sum(exchange.sent * times for exchange, times in found.collectives(depth=1))
    return in_loop / chunk


@pytest.mark.parametrize(("topology", "prompts", "slots"), [("v5e:2x4", 32, 32), ("v5e:4x8", 128, 128)])
def test_no_weight_and_no_logits_go_between_chips_in_the_decode_loop(topology, prompts, slots):
    """Two layers at full width: what is left are sums of activations bf16[16, 2560], two for each layer."""
    sent = assert_only_activations_between_chips(decode_chunk(topology, 2, 4, prompts, slots), rows=16, layers=2)
    assert sent < MIB
