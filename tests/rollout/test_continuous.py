"""Continuous batching samples the same tokens as `make_sampler`, and reports every row exactly once."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import prerl_jax as pj
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.layers import DecoderConfig
from prerl_jax.rollout.plan import BatchingPlan
from prerl_jax.runtime.mesh import MeshSpec, make_mesh

CONFIG = DecoderConfig("qwen3", 24, 16, 32, 2, 4, 2, 8, rope_theta=100.0, qk_norm=True, qkv_bias=True)
MODEL = Decoder(CONFIG)
PARAMS = toy.random_params(MODEL, scale=0.4)
KEY = jax.random.key(7)
R, G, Q = 30, 4, 8
SETTINGS = pj.SamplerConfig(R, stop_tokens=(3, 11))


def prompts(**fields):
    drawn = toy.rollouts(prompts=Q, group_size=1, prompt=5)
    return pj.Prompts(drawn.prompt, drawn.prompt_mask, **fields)


@pytest.fixture(scope="module")
def sampled():
    found = toy.to_numpy(pj.make_sampler(MODEL, SETTINGS, G)(PARAMS, prompts(), KEY))
    lengths = found.response_mask.sum(axis=1)
    assert len(np.unique(lengths)) > 8, "rows end at many times"
    assert (lengths == R).sum() > 2
    return found


def engine(group_size=G, model=MODEL, settings=SETTINGS, **numbers):
    return pj.ContinuousBatching(**numbers).make(model, settings, group_size)


def assert_same_rollouts(found, expected, atol=1e-5):
    for name in ("prompt", "prompt_mask", "response", "response_mask", "rewards"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    np.testing.assert_allclose(found.logprobs, expected.logprobs, atol=atol)


NUMBERS = {
    "a slot for every row": {},
    "chunks, longer rings, fewer slots": {"chunk": 7, "rings": (4, 12, 29), "shrink": (8, 4)},
    "refills, a ring that wraps and grows, fewer slots": {
        "slots": 6,
        "chunk": 3,
        "rings": (4, 29),
        "shrink": (4, 2, 1),
    },
    "one slot": {"slots": 1, "chunk": 64},
    "a tail": {"chunk": 7, "tail": 24},
    "refills and a tail": {"slots": 6, "chunk": 3, "tail": 4},
    "a tail of all slots, from the first token on": {"chunk": 64, "tail": 32},
}


SLOW = ("chunks, longer rings, fewer slots", "one slot", "a tail of all slots, from the first token on")
CASES = [pytest.param(case, marks=pytest.mark.slow if case in SLOW else ()) for case in NUMBERS]


@pytest.mark.parametrize("case", CASES)
def test_the_same_tokens_as_the_sampler(case, sampled):
    calls = []
    batching = engine(**NUMBERS[case])
    found = batching.sample(PARAMS, prompts(), KEY, on_complete=lambda *rows: calls.append(rows))
    assert_same_rollouts(found.rollouts, sampled)
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(found.rollouts))
    rows, responses, lengths = (np.concatenate(part) for part in zip(*calls, strict=True))
    assert sorted(rows) == list(range(Q * G))
    np.testing.assert_array_equal(responses, sampled.response[rows])
    np.testing.assert_array_equal(lengths, sampled.response_mask[rows].sum(axis=1))
    spans = np.array(found.idle)
    assert (np.diff(spans.ravel()) >= 0).all(), "in order and disjoint"
    before_and_after = batching.plan(Q * G, 5).shared
    assert (len(spans) == 2) == before_and_after, "the device waits between chunks only where rows wait for a slot"


def test_the_sampler_continues_in_a_longer_ring():
    """Of 80 tokens, 48 are fed to the first ring; continuous batching has one ring of 80 columns throughout."""
    settings = pj.SamplerConfig(80, stop_tokens=(3,))
    expected = toy.to_numpy(pj.make_sampler(MODEL, settings, G)(PARAMS, prompts(), KEY))
    lengths = expected.response_mask.sum(axis=1)
    assert (lengths < 49).any()
    assert (lengths == 80).any()
    assert_same_rollouts(engine(settings=settings).sample(PARAMS, prompts(), KEY).rollouts, expected)


@pytest.mark.parametrize(
    ("spec", "slots", "numbers"),
    [
        pytest.param(MeshSpec(data=2, fsdp=4), 8, {"rings": (12, 29), "shrink": (8,)}, marks=pytest.mark.slow),
        pytest.param(MeshSpec(2, 2, 2), None, {"rings": (12, 29), "shrink": (8,)}, marks=pytest.mark.slow),
        (MeshSpec(data=2, fsdp=2, tensor=2), None, {"tail": 24}),
        pytest.param(MeshSpec(2, 4), 16, {"tail": 16}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_on_eight_devices(spec, slots, numbers, sampled):
    model = Decoder(CONFIG, mesh=make_mesh(spec))
    batching = engine(model=model, slots=slots, chunk=9, **numbers)
    given = toy.to_numpy(prompts(ids=np.arange(Q)))
    params = jax.device_put(PARAMS, model.shardings())
    assert_same_rollouts(batching.sample(params, given, KEY).rollouts, sampled)
    programs = batching.programs(batching.plan(Q * G, 5))
    # One for each pair of a number of slots and a ring that was reached; never a second one for other shardings.
    most = 1 if "tail" in numbers else 2 if slots else 3
    assert programs.decode._cache_size() <= most
    batching.sample(params, given, KEY)
    assert (programs.prefill._cache_size(), programs.decode._cache_size() <= most) == (1, True)


def test_the_tail_is_decoded_at_once(sampled, monkeypatch):
    """The tail is one chunk, after the chunks that run until at most the tail is active."""
    lengths = np.sort(sampled.response_mask.sum(axis=1))

    def chunks(tail: int) -> int:
        batching, results = engine(chunk=4, tail=tail), []
        programs = batching.programs(batching.plan(Q * G, 5))

        def decode(*args):
            slots, result = programs.decode(*args)
            results.append(result)
            return slots, result

        monkeypatch.setattr(type(batching), "programs", lambda *_: dataclasses.replace(programs, decode=decode))
        batching.sample(PARAMS, prompts(), KEY)
        monkeypatch.undo()
        return sum(bool(result.drawn.mask.any()) for result in results)

    assert chunks(0) == -(-(lengths[-1] - 1) // 4)
    assert chunks(20) == -(-(lengths[-21] - 1) // 4) + 1 < chunks(0)


def test_temperatures_share_programs_and_greedy_has_its_own():
    hot, warm, greedy = (
        engine(settings=pj.SamplerConfig(R, temperature=t, stop_tokens=(3, 11)), slots=8) for t in (1.0, 0.7, 0.0)
    )
    assert hot.programs(hot.plan(32, 5)) is warm.programs(warm.plan(32, 5))
    assert hot.programs(hot.plan(32, 5)) is not greedy.programs(greedy.plan(32, 5))
    expected = toy.to_numpy(pj.make_sampler(MODEL, warm.config, G)(PARAMS, prompts(), KEY))
    assert_same_rollouts(warm.sample(PARAMS, prompts(), KEY).rollouts, expected)
    responses = greedy.sample(PARAMS, prompts(), KEY).rollouts.response.reshape(Q, G, R)
    assert (responses == responses[:, :1]).all()


def test_samples_of_a_prompt_over_several_calls(sampled):
    """The last two of four samples, chosen by their numbers."""
    second = prompts(first_sample=jnp.full(Q, 2))
    wanted = sampled.response.reshape(Q, G, R)[:, 2:].reshape(-1, R)
    found = engine(group_size=2, slots=8).sample(PARAMS, second, KEY).rollouts
    np.testing.assert_array_equal(found.response, wanted)


def test_one_new_token(sampled):
    found = engine(settings=pj.SamplerConfig(1), slots=8).sample(PARAMS, prompts(), KEY).rollouts
    np.testing.assert_array_equal(found.response, sampled.response[:, :1])
    assert found.response_mask.all()


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 0.1), ("int8", 0.15)])
def test_a_smaller_cache_is_close(dtype, tolerance):
    """The log-probabilities of its tokens are near the score."""
    settings = pj.SamplerConfig(R, stop_tokens=(3, 11), cache_dtype=dtype)
    found = toy.to_numpy(pj.make_sampler(MODEL, settings, G)(PARAMS, prompts(), KEY))
    score = jax.jit(pj.make_score(MODEL))(PARAMS, pj.PostTrainSpace()(found))[:, -R:]
    error = np.abs(score - found.logprobs)[found.response_mask]
    assert 1e-4 < error.mean() < tolerance / 10
    assert error.max() < tolerance


@pytest.mark.parametrize(
    "numbers",
    [
        {"slots": 8, "rings": (4, 29), "shrink": (4,)},
        {"tail": 16},
        {"slots": 8, "tail": 4},
    ],
)
@pytest.mark.slow
def test_decoding_layers_in_a_loop_gives_the_same_tokens(numbers):
    """Refilled, in longer rings, in fewer slots, with a tail. An int8 cache makes rounding errors larger."""
    settings = pj.SamplerConfig(R, stop_tokens=(3, 11), cache_dtype="int8")
    expected = toy.to_numpy(pj.make_sampler(MODEL, settings, G)(PARAMS, prompts(), KEY))
    batching = engine(model=Decoder(CONFIG, unroll_decode=False), settings=settings, chunk=5, **numbers)
    assert_same_rollouts(batching.sample(PARAMS, prompts(), KEY).rollouts, expected, atol=1e-2)


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.0}, {"top_k": 5, "top_p": 0.9}])
@pytest.mark.slow
def test_the_default_tail_of_short_responses(settings):
    """The tail of 64 rows is the last 8. They get the tokens of the sampler, however tokens are drawn."""
    settings = pj.SamplerConfig(R, stop_tokens=(3, 11), **settings)
    group = 8
    batching = engine(group, settings=settings, chunk=2)
    assert batching.plan(Q * group, 5).tail == 8
    expected = toy.to_numpy(pj.make_sampler(MODEL, settings, group)(PARAMS, prompts(), KEY))
    assert_same_rollouts(batching.sample(PARAMS, prompts(), KEY).rollouts, expected)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"slots": 0}, "slots must be at least 1, got 0"),
        ({"chunk": 0}, "chunk must be at least 1, got 0"),
        ({"group_size": 0}, "group_size must be at least 1, got 0"),
        ({"rings": (4, 8)}, r"rings \(4, 8\) must rise to at least .* = 29"),
        ({"rings": (12, 4, 40)}, "must rise"),
        ({"tail": -1}, "tail must be at least 0, got -1"),
        ({"tail": 8, "rings": (12, 29)}, r"A tail \(8\) needs a single ring.* got rings \(12, 29\)"),
        ({"tail": 8, "shrink": (8,)}, r"A tail \(8\) needs .* shrink \(8,\)"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        engine(**fields)


def test_slots_divide_over_the_mesh():
    model = Decoder(CONFIG, mesh=make_mesh(MeshSpec(data=2, fsdp=4)))
    for fields in ({"slots": 12}, {"tail": 12}, {"shrink": (16, 12)}):
        name = next(iter(fields))
        with pytest.raises(ValueError, match=f"{name} = 12, which do not divide over the 8 shards"):
            engine(model=model, **fields)
    with pytest.raises(ValueError, match="3 prompts do not divide over the 8 shards"):
        engine(model=model).sample(PARAMS, jax.tree.map(lambda x: x[:3], prompts()), KEY)


def test_a_model_without_slots_is_refused():
    with pytest.raises(ValueError, match=r"Toy is not a SlotModel: it has no decode_slots.*StaticBatching"):
        engine(model=toy.Toy())


def test_short_responses_get_one_program():
    def plan(length, slots=None, **numbers) -> BatchingPlan:
        return engine(1, settings=pj.SamplerConfig(length), slots=slots, **numbers).plan(256, 5)

    assert (plan(64).rings, plan(64).shrink, plan(64).tail, plan(64).shared) == ((64,), (), 32, True)
    assert plan(64, 32).tail == 0, "no fewer than FEWEST_SLOTS"
    assert plan(64, shrink=()).tail == 0, "all slots, if asked to"
    assert (plan(128).rings, plan(128).shrink, plan(128).tail) == ((128,), (128, 64, 32, 16), 0)
    assert plan(128, 32).shrink == (16, 8), "no fewer than FEWEST_SLOTS"
    assert (plan(8192, 128).rings, plan(8192, 128).shrink) == ((912, 2736, 8192), (32, 8))
    assert not plan(8192, 128).shared
