"""The sampler: which token every row draws, when it stops, and that its log-probabilities are the trainer's."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import prerl_jax as pj
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.layers import DecoderConfig
from prerl_jax.rollout.draw import categorical
from prerl_jax.runtime.mesh import MeshSpec, batch_sharding, global_rows, make_mesh

MODEL = toy.Toy()
PARAMS = MODEL.init() | {"unembed": 0.3 * MODEL.init()["unembed"]}  # flatter, so that many tokens are drawn
KEY = jax.random.key(7)
R, G, STOP = 8, 4, (3, 11)


def prompts(count=4, ids=None, seed=0):
    drawn = toy.rollouts(prompts=count, group_size=1, prompt=5, seed=seed)
    return pj.Prompts(drawn.prompt, drawn.prompt_mask, None if ids is None else jnp.asarray(ids))


@functools.cache
def sampler(group_size=G, model=MODEL, **settings):
    return pj.make_sampler(model, pj.SamplerConfig(**{"max_new_tokens": R} | settings), group_size)


@pytest.fixture(scope="module")
def sampled():
    """Four prompts, four samples each, with stop tokens."""
    return toy.to_numpy(sampler(stop_tokens=STOP)(PARAMS, prompts(), KEY))


def scored(rollouts, temperature=1.0, model=MODEL, params=PARAMS):
    score = jax.jit(pj.make_score(model, temperature))
    return score(params, pj.PostTrainSpace()(rollouts))[:, -rollouts.response.shape[1] :]


def test_shapes_dtypes_and_prompts(sampled):
    rows, given = 4 * G, prompts()
    expected = {
        "prompt": ((rows, 5), np.int32),
        "prompt_mask": ((rows, 5), np.bool_),
        "response": ((rows, R), np.int32),
        "response_mask": ((rows, R), np.bool_),
        "rewards": ((rows,), np.float32),
        "logprobs": ((rows, R), np.float32),
    }
    found = {f.name: getattr(sampled, f.name) for f in dataclasses.fields(sampled)}
    unknown = [found.pop(name) for name in ("truncated", "loss_mask", "known", "right")]
    assert unknown == [None] * 4, "the sampler leaves these to the caller"
    assert {name: (a.shape, a.dtype) for name, a in found.items()} == expected
    np.testing.assert_array_equal(sampled.prompt, np.repeat(given.prompt, G, axis=0))
    np.testing.assert_array_equal(sampled.prompt_mask, np.repeat(given.prompt_mask, G, axis=0))
    assert not sampled.rewards.any()


def test_a_row_ends_with_its_first_stop_token_or_is_truncated(sampled):
    ends = np.isin(sampled.response, STOP) & sampled.response_mask
    stopped = ends.any(axis=1)
    assert 1 < stopped.sum() < 4 * G - 1  # of both kinds
    length = np.where(stopped, ends.argmax(axis=1) + 1, R)
    np.testing.assert_array_equal(sampled.response_mask, np.arange(R) < length[:, None])
    assert (ends.sum(axis=1) == stopped).all()  # nothing is invented where the length limit was hit
    assert not sampled.response[~sampled.response_mask].any()
    assert not sampled.logprobs[~sampled.response_mask].any()
    assert (sampled.logprobs[sampled.response_mask] < 0).all()


def test_without_stop_tokens_every_row_is_full(sampled):
    found = sampler()(PARAMS, prompts(), KEY)
    assert found.response_mask.all()
    mask = sampled.response_mask  # the same tokens up to the stop token
    np.testing.assert_array_equal(found.response[mask], sampled.response[mask])


def test_the_padding_token_may_be_a_stop_token():
    found = toy.to_numpy(sampler(stop_tokens=(0,))(PARAMS, prompts(), KEY))
    full = toy.to_numpy(sampler()(PARAMS, prompts(), KEY))
    zero = full.response == 0
    before = np.cumsum(zero, axis=1) - zero
    assert zero.any()
    np.testing.assert_array_equal(found.response_mask, before == 0)
    np.testing.assert_array_equal(found.response, np.where(before == 0, full.response, 0))


def test_sample_j_of_prompt_i_draws_its_tth_token_with_key_id_j_t(sampled):
    """Token by token, from whole forward passes, for two samples of two prompts."""
    spaces = pj.PostTrainSpace()(sampled)
    hidden = jax.jit(MODEL.hidden)(PARAMS, spaces.tokens, spaces.positions, spaces.segments)
    logits = hidden @ PARAMS["unembed"]
    for i, j in [(0, 0), (0, 3), (2, 1), (3, 3)]:
        row = i * G + j
        for t in np.flatnonzero(sampled.response_mask[row]):
            key = functools.reduce(jax.random.fold_in, (i, j, int(t)), KEY)
            token = categorical(logits[row, 5 + t - 1][None], jax.random.uniform(key)[None])
            assert token[0] == sampled.response[row, t]


def test_the_tokens_of_a_row_depend_on_key_id_and_sample_alone(sampled):
    run = functools.partial(sampler(stop_tokens=STOP), PARAMS)
    every = prompts()

    def rows_of(indices, result):
        wanted = np.concatenate([np.arange(i * G, (i + 1) * G) for i in indices])
        assert [a.shape[0] for a in jax.tree.leaves(result)] == [len(wanted)] * 6
        expected = jax.tree.map(lambda a: a[wanted], sampled)
        found = toy.to_numpy(result)
        for name in ("prompt", "response", "response_mask"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        np.testing.assert_allclose(found.logprobs, expected.logprobs, atol=1e-5)

    for indices in ([2, 0], [3, 1], [3, 2, 1, 0], [2]):  # halves, another order, one alone
        chosen = jnp.asarray(indices)
        rows_of(indices, run(pj.Prompts(every.prompt[chosen], every.prompt_mask[chosen], chosen), KEY))
    rows_of(range(4), run(every, KEY))  # ids are row numbers by default
    smaller = toy.to_numpy(sampler(group_size=2, stop_tokens=STOP)(PARAMS, every, KEY))
    np.testing.assert_array_equal(smaller.response.reshape(4, 2, R), sampled.response.reshape(4, G, R)[:, :2])


def test_other_keys_ids_and_samples_give_other_tokens(sampled):
    run = functools.partial(sampler(stop_tokens=STOP), PARAMS)
    for other in (run(prompts(), jax.random.key(8)), run(prompts(ids=[4, 5, 6, 7]), KEY)):
        assert (np.asarray(other.response) != sampled.response).any(axis=1).mean() > 0.9
    same = prompts()
    repeated = pj.Prompts(jnp.tile(same.prompt[:1], (4, 1)), jnp.tile(same.prompt_mask[:1], (4, 1)))
    assert len({tuple(row) for row in np.asarray(run(repeated, KEY).response).tolist()}) > 12


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_frequencies_of_first_tokens_are_those_of_the_model(temperature):
    """Frequencies from fold_in's uniform numbers: chi-square within four standard deviations."""
    one = jax.tree.map(lambda a: a[:1], prompts())
    found = sampler(group_size=4000, max_new_tokens=1, temperature=temperature)(PARAMS, one, KEY)
    expected = np.zeros(MODEL.vocab)
    response = np.asarray(found.response[:, 0])
    expected[response] = np.exp(found.logprobs[:, 0])
    np.testing.assert_allclose(expected.sum(), 1, atol=1e-4)  # every token was drawn
    counts = np.bincount(response, minlength=MODEL.vocab)
    chi_square = ((counts - 4000 * expected) ** 2 / (4000 * expected)).sum()
    assert abs(chi_square - 12) < 4 * np.sqrt(2 * 12)


SETTINGS = [
    # sampler's, and the temperature at which the trainer scores
    ({"stop_tokens": STOP}, 1.0),
    ({"temperature": 0.7, "stop_tokens": STOP}, 0.7),
    ({"temperature": 0.7, "top_k": 3, "top_p": 0.8, "stop_tokens": STOP}, 0.7),  # of the whole distribution
    ({"temperature": 0.0}, 1.0),
]


@pytest.mark.parametrize(("settings", "temperature"), SETTINGS)
def test_logprobs_are_the_score_of_the_same_tokens(settings, temperature):
    found = sampler(**settings)(PARAMS, prompts(), KEY)
    np.testing.assert_allclose(found.logprobs, scored(found, temperature), atol=1e-5)


CONFIG = DecoderConfig("qwen3", 24, 16, 32, 2, 4, 2, 8, rope_theta=100.0, qk_norm=True, qkv_bias=True)


@pytest.fixture(scope="module")
def decoder():
    """(decoder, parameters) with distributions far from uniform, so that another temperature is noticed."""
    model = Decoder(CONFIG)
    return model, toy.random_params(model, scale=0.4)


def test_logprobs_of_a_decoder_are_its_score(decoder):
    """Of the whole distribution, at the temperature of sampling; at temperature 1 in the next test."""
    model, params = decoder
    config = pj.SamplerConfig(R, temperature=0.7, top_k=6, top_p=0.9, stop_tokens=STOP)
    found = pj.make_sampler(model, config, 3)(params, prompts(), KEY)
    wanted = scored(found, 0.7, model, params)
    assert wanted.min() < -3
    assert not found.response_mask.all()
    np.testing.assert_allclose(found.logprobs, wanted, atol=1e-4)


@pytest.mark.slow
def test_sampling_on_eight_devices_is_sampling_on_one(decoder):
    model, params = decoder
    mesh = make_mesh(MeshSpec(data=2, fsdp=4))
    sharded = Decoder(CONFIG, mesh=mesh)
    config = pj.SamplerConfig(R, stop_tokens=STOP)
    given = prompts(8, ids=range(8))
    one = toy.to_numpy(pj.make_sampler(model, config, 2)(params, given, KEY))
    places = jax.device_put(params, sharded.shardings()), global_rows(mesh, toy.to_numpy(given))
    many = pj.make_sampler(sharded, config, 2)(*places, KEY)
    assert many.response.sharding.is_equivalent_to(batch_sharding(mesh), 2)
    many = toy.to_numpy(many)
    for name in ("prompt", "prompt_mask", "response", "response_mask"):
        np.testing.assert_array_equal(getattr(many, name), getattr(one, name))
    np.testing.assert_allclose(many.logprobs, one.logprobs, atol=1e-5)
    np.testing.assert_allclose(one.logprobs, scored(one, 1.0, model, params), atol=1e-4)


def test_the_likeliest_token_is_that_of_top_k_1(sampled):
    greedy = sampler(temperature=0.0)(PARAMS, prompts(), KEY)
    found = sampler(top_k=1)(PARAMS, prompts(), KEY)
    np.testing.assert_array_equal(found.response, greedy.response)
    np.testing.assert_allclose(found.logprobs, greedy.logprobs, atol=1e-6)
    assert (greedy.response.reshape(4, G, R) == greedy.response.reshape(4, G, R)[:, :1]).all()
    assert (greedy.response != sampled.response).any()


def test_truncated_draws_stay_within_the_likeliest(sampled):
    found = sampler(top_k=2)(PARAMS, prompts(), KEY)
    spaces = pj.PostTrainSpace()(found)
    logits = jax.jit(MODEL.hidden)(PARAMS, spaces.tokens, spaces.positions, spaces.segments) @ PARAMS["unembed"]
    rank = (logits[:, 4:-1] > jnp.take_along_axis(logits[:, 4:-1], found.response[..., None], axis=-1)).sum(axis=-1)
    assert set(np.unique(rank)) == {0, 1}


def test_one_new_token():
    found = sampler(max_new_tokens=1)(PARAMS, prompts(), KEY)
    longer = sampler()(PARAMS, prompts(), KEY)
    np.testing.assert_array_equal(found.response, longer.response[:, :1])
    np.testing.assert_array_equal(found.response_mask, np.ones((4 * G, 1), bool))
    np.testing.assert_allclose(found.logprobs, longer.logprobs[:, :1], atol=1e-6)


@dataclasses.dataclass(frozen=True)
class Counting(toy.Toy):
    """Counts the steps that are decoded."""

    steps: list = dataclasses.field(default_factory=list, hash=False)

    def decode(self, params, cache, tokens, index):
        jax.debug.callback(lambda i: self.steps.append(int(i)), index)
        return super().decode(params, cache, tokens, index)


def test_decoding_ends_when_every_row_has_stopped(sampled):
    model = Counting()
    found = pj.make_sampler(model, pj.SamplerConfig(50, stop_tokens=STOP), G)(PARAMS, prompts(), KEY)
    jax.effects_barrier()
    longest = int(found.response_mask.sum(axis=1).max())
    assert longest < 50
    assert sorted(model.steps) == list(range(longest - 1))  # the last token is never fed
    model.steps.clear()
    jax.block_until_ready(
        pj.make_sampler(model, pj.SamplerConfig(50, stop_tokens=tuple(range(13))))(PARAMS, prompts(), KEY)
    )
    jax.effects_barrier()
    assert model.steps == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ({"temperature": -0.1}, "or more, got -0.1"),
        ({"top_k": 0}, "top_k must be at least 1.*got 0"),
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\].*got 0.0"),
        ({"top_p": 1.1}, r"top_p must be in \(0, 1\].*got 1.1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        pj.SamplerConfig(**{"max_new_tokens": 5} | settings)


def test_a_group_needs_a_sample():
    with pytest.raises(ValueError, match="group_size must be at least 1, got 0"):
        pj.make_sampler(MODEL, pj.SamplerConfig(5), 0)
