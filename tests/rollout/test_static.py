"""Static batching: `make_sampler` as an engine, on one device and on eight."""

import jax
import numpy as np
import pytest
import toy

import prerl_jax as pj
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.layers import DecoderConfig
from prerl_jax.rollout.engine import on_host
from prerl_jax.runtime.mesh import MeshSpec, make_mesh

CONFIG = DecoderConfig("qwen3", 24, 16, 32, 2, 4, 2, 8, rope_theta=100.0, qk_norm=True, qkv_bias=True)
KEY = jax.random.key(7)
SETTINGS = pj.SamplerConfig(12, stop_tokens=(3, 11))
Q, G = 8, 2


def prompts():
    drawn = toy.to_numpy(toy.rollouts(prompts=Q, group_size=1, prompt=5))
    return pj.Prompts(drawn.prompt, drawn.prompt_mask, np.arange(Q, dtype=np.int32))


def sample(model, params):
    calls = []
    engine = pj.StaticBatching().make(model, SETTINGS, G)
    sampled = engine.sample(params, prompts(), KEY, lambda *rows: calls.append(rows))
    return sampled, calls


def test_any_model_gives_the_samplers_rollouts_and_every_row_once():
    model = toy.Toy()
    sampled, calls = sample(model, model.init())
    expected = toy.to_numpy(pj.make_sampler(model, SETTINGS, G)(model.init(), prompts(), KEY))
    toy.assert_same_bits(sampled.rollouts, expected)
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(sampled.rollouts))
    ((rows, responses, lengths),) = calls
    assert rows.tolist() == list(range(Q * G))
    np.testing.assert_array_equal(responses, expected.response)
    np.testing.assert_array_equal(lengths, expected.response_mask.sum(axis=1))
    assert sampled.idle == ()


@pytest.mark.slow
def test_eight_devices_give_the_tokens_of_one():
    params = toy.random_params(Decoder(CONFIG), scale=0.4)
    one, _ = sample(Decoder(CONFIG), params)
    sharded = Decoder(CONFIG, mesh=make_mesh(MeshSpec(data=2, fsdp=2, tensor=2)))
    many, _ = sample(sharded, jax.device_put(params, sharded.shardings()))
    for name in ("prompt", "prompt_mask", "response", "response_mask"):
        np.testing.assert_array_equal(getattr(many.rollouts, name), getattr(one.rollouts, name))
    np.testing.assert_allclose(many.rollouts.logprobs, one.rollouts.logprobs, atol=1e-5)


def test_several_processes_need_ids(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    on_host(prompts())
    with pytest.raises(ValueError, match=r"need ids on several processes.*Prompts\.ids"):
        on_host(pj.Prompts(prompts().prompt, prompts().prompt_mask))


def test_a_config_takes_engine_specs_only():
    for spec in (pj.ContinuousBatching(slots=8), pj.StaticBatching()):
        assert isinstance(spec, pj.EngineSpec)
        assert pj.SamplingSpec(engine=spec).engine == spec
    with pytest.raises(ValueError, match=r"sampling\.engine is 8, which is no EngineSpec.*ContinuousBatching"):
        pj.SamplingSpec(engine=8)
