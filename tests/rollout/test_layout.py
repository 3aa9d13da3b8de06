"""Decoding has a mesh of its own: which, and that the tokens are those of one device on every one."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import prerl_jax as pj
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.layers import DecoderConfig
from prerl_jax.rollout import layout_choice
from prerl_jax.rollout.draw import categorical, filter_logits, likeliest
from prerl_jax.rollout.layout import decode_mesh, decode_rules
from prerl_jax.rollout.layout_choice import Cached, choose_layout
from prerl_jax.runtime.chips import CHIPS
from prerl_jax.runtime.mesh import MeshSpec, make_mesh
from prerl_jax.runtime.state import bytes_per_device

CONFIG = DecoderConfig("qwen3", 32, 16, 32, 2, 8, 8, 8, rope_theta=100.0, qk_norm=True)
ONE = Decoder(CONFIG)
PARAMS = toy.random_params(ONE, scale=0.4)
KEY = jax.random.key(7)
SETTINGS = pj.SamplerConfig(20, stop_tokens=(3, 11))
G, Q = 2, 16


def prompts():
    drawn = toy.rollouts(prompts=Q, group_size=1, prompt=5)
    return pj.Prompts(drawn.prompt, drawn.prompt_mask)


def sampled(model, **numbers):
    engine = pj.ContinuousBatching(**numbers).make(model, SETTINGS, G)
    params = PARAMS if model.mesh is None else jax.device_put(PARAMS, model.shardings())
    return engine.sample(params, prompts(), KEY).rollouts


@pytest.fixture(scope="module")
def expected():
    return sampled(ONE)


def assert_tokens_of_one_device(spec, expected, **numbers):
    found = sampled(Decoder(CONFIG, mesh=make_mesh(spec)), **numbers)
    np.testing.assert_array_equal(found.response, expected.response)
    np.testing.assert_array_equal(found.response_mask, expected.response_mask)
    np.testing.assert_allclose(found.logprobs, expected.logprobs, atol=1e-5)


REFILLED = {"slots": 8, "chunk": 3, "rings": (4, 19), "shrink": ()}


def test_weights_that_training_splits_over_all_devices(expected):
    """Eight shards in training; decoding has two copies of the weights, each on four devices."""
    assert_tokens_of_one_device(MeshSpec(fsdp=8), expected, tensor=4, **REFILLED)


LAYOUTS = [
    (MeshSpec(data, fsdp, tensor), decoding)
    for data, fsdp, tensor in itertools.product((1, 2, 4, 8), repeat=3)
    if data * fsdp * tensor == 8
    for decoding in (1, 2, 4, 8)
    if decoding % tensor == 0
]


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "tensor"), LAYOUTS, ids=str)
def test_every_mesh_and_layout(expected, spec, tensor):
    assert_tokens_of_one_device(spec, expected, tensor=tensor, **REFILLED)


def test_a_replica_has_neighbouring_devices():
    mesh = make_mesh(MeshSpec(data=2, fsdp=4))
    found = decode_mesh(mesh, 4)
    assert dict(found.shape) == {"data": 2, "fsdp": 1, "part": 4, "tensor": 1}
    assert list(found.devices.flat) == list(mesh.devices.flat)


MODEL = Decoder(CONFIG, mesh=make_mesh(MeshSpec(fsdp=8)))
STATE = 3 * bytes_per_device(MODEL.abstract_params())
CACHE = Cached(prompts=16, prompt=5, slots=16, response=19)


def with_memory(monkeypatch, size, **given):
    monkeypatch.setattr(layout_choice, "device_memory", lambda device: size)
    return choose_layout(MODEL, given.get("tensor"), CACHE, None)


def needed(tensor):
    """Bytes of a device with this layout: the train state, 1 / tensor of most weights, 1 / 8 of the cache."""
    weights = bytes_per_device(
        MODEL.on_mesh(decode_mesh(MODEL.mesh, tensor), decode_rules(MODEL.rules)).abstract_params()
    )
    return STATE + weights + 2 * 2 * 8 * 8 * (16 * 5 + 16 * 19) * 4 // 8


@pytest.mark.parametrize("tensor", [1, 2, 4, 8])
def test_the_fewest_devices_that_leave_a_quarter_free(monkeypatch, tensor):
    enough = int(needed(tensor) / 0.75) + 2
    assert with_memory(monkeypatch, enough).tensor == tensor
    less = with_memory(monkeypatch, enough - 8)
    assert less.tensor == min(2 * tensor, 8)
    assert less.reason.startswith("no number of devices" if tensor == 8 else "at least 25% stays free")


@pytest.mark.parametrize(
    ("bandwidth", "links", "tensor"),
    [
        (1e9, 1e15, 8),  # reading the weights is all that counts
        (1e9, 2e9, 4),
        (1e15, 1e9, 1),  # sending is all that counts
    ],
)
def test_of_the_layouts_that_fit_the_one_with_the_fastest_token(monkeypatch, bandwidth, links, tensor):
    chip = dataclasses.replace(CHIPS[0], bandwidth=bandwidth, links=links)
    monkeypatch.setattr(layout_choice, "chip_of_kind", lambda kind: chip)
    found = with_memory(monkeypatch, 2**40)
    assert found.tensor == tensor
    assert "ms a token at the bound" in found.reason


def test_where_the_memory_is_not_known_a_copy_lies_on_as_few_devices_as_possible(monkeypatch):
    assert with_memory(monkeypatch, None).tensor == 1


def test_a_number_that_is_given(monkeypatch):
    assert with_memory(monkeypatch, 1, tensor=2).tensor == 2
    with pytest.raises(ValueError, match=r"tensor = 3\. The 8 devices and the model allow 1, 2, 4, 8"):
        with_memory(monkeypatch, 1, tensor=3)
    with pytest.raises(ValueError, match="Decoder decodes where training has it: there is one device"):
        choose_layout(ONE, 2, CACHE, None)


@pytest.mark.parametrize("parts", [4, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 7))])
def test_a_split_vocabulary_draws_the_same_tokens(parts):
    vocab, rows = 7 * 4 * 50, 500
    logits = 3 * jax.random.normal(jax.random.key(1), (rows, vocab))
    uniform = jax.random.uniform(jax.random.key(2), (rows,))
    for kept in (logits, filter_logits(logits, 20, None), filter_logits(logits, None, 0.9)):
        np.testing.assert_array_equal(categorical(kept, uniform, parts), categorical(kept, uniform))
    np.testing.assert_array_equal(likeliest(logits, parts), jnp.argmax(logits, axis=-1))


def test_of_equal_logits_the_first_one_is_the_likeliest():
    logits = jnp.asarray([[0.0, 5.0, 1.0, 5.0], [2.0, 2.0, 2.0, 2.0], [0.0, 1.0, 2.0, 3.0]])
    assert likeliest(logits, 2).tolist() == [1, 0, 3]


class Elsewhere:
    """A `SlotModel` that lies where training has it: all of a decoder but what makes it a `MeshModel`."""

    def __init__(self, decoder):
        self.decoder = decoder
        self.mesh, self.rules, self.compute_dtype = decoder.mesh, decoder.rules, decoder.compute_dtype
        self.unroll_decode, self.reads_filled = decoder.unroll_decode, decoder.reads_filled
        self.hidden, self.head, self.init_cache = decoder.hidden, decoder.head, decoder.init_cache
        self.decode, self.decode_slots, self.decoding = decoder.decode, decoder.decode_slots, decoder.decoding
        self.pin_cache = decoder.pin_cache


def test_a_model_without_a_layout_decodes_where_training_has_it_and_leaves_the_parameters(expected):
    model = Elsewhere(Decoder(CONFIG, mesh=make_mesh(MeshSpec(fsdp=4, data=2))))
    params = jax.device_put(PARAMS, model.decoder.shardings())
    engine = pj.ContinuousBatching(**REFILLED).make(model, SETTINGS, G)
    assert str(engine.layout(Q * G, 5)).endswith("decoding reads the weights where training has them")
    for _ in range(2):
        found = engine.sample(params, prompts(), KEY).rollouts
        np.testing.assert_array_equal(found.response, expected.response)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(params))


def test_decoding_splits_no_weight_over_replicas():
    """Whatever training splits over them, and however it splits its tensor axis."""
    rules = tuple((a, ("data", "fsdp") if a == "embed" else entry) for a, entry in MODEL.rules)
    assert dict(decode_rules(rules)) == dict(decode_rules(MODEL.rules)) | {"embed": None}
    wide = Decoder(CONFIG, mesh=make_mesh(MeshSpec(fsdp=4, tensor=2)), rules=rules)
    decoding = wide.on_mesh(decode_mesh(wide.mesh, 4), decode_rules(rules))
    assert decoding.shardings()["layers"]["mlp"]["up"].spec == jax.sharding.PartitionSpec(
        None, None, ("tensor", "part")
    )


def test_a_mesh_that_no_layout_divides():
    model = Decoder(dataclasses.replace(CONFIG, vocab_size=33), mesh=make_mesh(MeshSpec(fsdp=4, tensor=2)))
    with pytest.raises(ValueError, match=r"no decode layout fits: no multiple of the mesh's tensor axis \(2\)"):
        choose_layout(model, None, CACHE, None)
