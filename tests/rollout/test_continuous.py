"""The pool says what the sampler says, whatever its slots, chunks, rings and refills, and tells of every row once."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import prerl_jax as pj
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.layers import DecoderConfig
from prerl_jax.rollout.continuous import make_pool
from prerl_jax.rollout.continuous_programs import PoolShape
from prerl_jax.rollout.decode import Drawn
from prerl_jax.rollout.scheduler import Queue
from prerl_jax.runtime.mesh import MeshSpec, batch_sharding, global_rows, make_mesh

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


def assert_same_rollouts(found, expected, atol=1e-5):
    found = toy.to_numpy(found)
    for name in ("prompt", "prompt_mask", "response", "response_mask", "rewards"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    np.testing.assert_allclose(found.logprobs, expected.logprobs, atol=atol)


POOLS = {
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


@pytest.mark.parametrize("shape", POOLS)
def test_the_pool_says_what_the_sampler_says(shape, sampled):
    told = []
    pool = make_pool(MODEL, SETTINGS, G, **POOLS[shape])
    found = pool(PARAMS, prompts(), KEY, on_complete=lambda *rows: told.append(rows))
    assert_same_rollouts(found, sampled)
    rows, responses, lengths = (np.concatenate(part) for part in zip(*told, strict=True))
    assert sorted(rows) == list(range(Q * G))
    np.testing.assert_array_equal(responses, sampled.response[rows])
    np.testing.assert_array_equal(lengths, sampled.response_mask[rows].sum(axis=1))
    spans = np.array(pool.idle)
    assert (np.diff(spans.ravel()) >= 0).all(), "apart from each other, in their order"
    before_and_after = pool.programs(Q * G)[0].shared
    assert (len(spans) == 2) == before_and_after, "the device waits between chunks only where rows wait for a slot"


def test_the_sampler_goes_on_in_a_longer_ring():
    """Of 80 tokens, 48 are fed to the first one; the pool has one of 80 columns throughout."""
    settings = pj.SamplerConfig(80, stop_tokens=(3,))
    found = toy.to_numpy(pj.make_sampler(MODEL, settings, G)(PARAMS, prompts(), KEY))
    lengths = found.response_mask.sum(axis=1)
    assert (lengths < 49).any()
    assert (lengths == 80).any()
    assert_same_rollouts(make_pool(MODEL, settings, G)(PARAMS, prompts(), KEY), found)


@pytest.mark.parametrize(
    ("spec", "slots", "shapes"),
    [
        (MeshSpec(data=2, fsdp=4), 8, {"rings": (12, 29), "shrink": (8,)}),
        (MeshSpec(data=2, fsdp=2, tensor=2), None, {"rings": (12, 29), "shrink": (8,)}),
        (MeshSpec(data=2, fsdp=2, tensor=2), None, {"tail": 24}),
        (MeshSpec(data=2, fsdp=4), 16, {"tail": 16}),
    ],
    ids=str,
)
def test_on_eight_devices(spec, slots, shapes, sampled):
    mesh = make_mesh(spec)
    model = Decoder(CONFIG, mesh=mesh)
    pool = make_pool(model, SETTINGS, G, slots=slots, chunk=9, **shapes)
    given = global_rows(mesh, toy.to_numpy(prompts(ids=np.arange(Q))))
    params = jax.device_put(PARAMS, model.shardings())
    found = pool(params, given, KEY)
    assert found.response.sharding.is_equivalent_to(batch_sharding(mesh), 2)
    assert_same_rollouts(found, sampled)
    _, programs = pool.programs(Q * G)
    # Of slots and rings that were met; never one for the shardings.
    most = 1 if "tail" in shapes else 2 if slots else 3
    assert programs.decode._cache_size() <= most
    pool(params, given, KEY)
    assert (programs.prefill._cache_size(), programs.decode._cache_size() <= most) == (1, True)


def test_the_tail_is_decoded_at_once(sampled, monkeypatch):
    """In one chunk after those that it takes until no more than the tail is active."""
    lengths = np.sort(sampled.response_mask.sum(axis=1))

    def chunks(tail: int) -> int:
        pool, told = make_pool(MODEL, SETTINGS, G, chunk=4, tail=tail), []
        shape, programs = pool.programs(Q * G)

        def decode(*args):
            slots, new = programs.decode(*args)
            told.append(new)
            return slots, new

        monkeypatch.setattr(type(pool), "programs", lambda *_: (shape, dataclasses.replace(programs, decode=decode)))
        pool(PARAMS, prompts(), KEY)
        monkeypatch.undo()
        return sum(bool(new.drawn.mask.any()) for new in told)

    assert chunks(0) == -(-(lengths[-1] - 1) // 4)
    assert chunks(20) == -(-(lengths[-21] - 1) // 4) + 1 < chunks(0)


def test_temperatures_share_programs_and_greedy_has_its_own():
    make = lambda t: make_pool(MODEL, pj.SamplerConfig(R, temperature=t, stop_tokens=(3, 11)), G, slots=8)  # noqa: E731
    hot, warm, greedy = make(1.0), make(0.7), make(0.0)
    assert hot.programs(32)[1] is warm.programs(32)[1]
    assert hot.programs(32)[1] is not greedy.programs(32)[1]
    expected = toy.to_numpy(pj.make_sampler(MODEL, warm.config, G)(PARAMS, prompts(), KEY))
    assert_same_rollouts(warm(PARAMS, prompts(), KEY), expected)
    said = np.asarray(greedy(PARAMS, prompts(), KEY).response).reshape(Q, G, R)
    assert (said == said[:, :1]).all()


def test_samples_of_a_prompt_over_several_calls(sampled):
    """The last two of four samples, asked for by their numbers."""
    second = prompts(first_sample=jnp.full(Q, 2))
    wanted = sampled.response.reshape(Q, G, R)[:, 2:].reshape(-1, R)
    np.testing.assert_array_equal(make_pool(MODEL, SETTINGS, 2, slots=8)(PARAMS, second, KEY).response, wanted)


def test_one_new_token(sampled):
    found = make_pool(MODEL, pj.SamplerConfig(1), G, slots=8)(PARAMS, prompts(), KEY)
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
    "shapes", [{"slots": 8, "rings": (4, 29), "shrink": (4,)}, {"tail": 16}, {"slots": 8, "tail": 4}]
)
def test_layers_in_a_loop_are_layers_apart(shapes):
    """With a cache in int8, refilled, grown, shrunk, with a tail; rounding to int8 makes rounding errors larger."""
    settings = pj.SamplerConfig(R, stop_tokens=(3, 11), cache_dtype="int8")
    expected = toy.to_numpy(pj.make_sampler(MODEL, settings, G)(PARAMS, prompts(), KEY))
    pool = make_pool(Decoder(CONFIG, unroll_decode=False), settings, G, chunk=5, **shapes)
    assert_same_rollouts(pool(PARAMS, prompts(), KEY), expected, atol=1e-2)


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.0}, {"top_k": 5, "top_p": 0.9}])
def test_the_tail_that_short_responses_have(settings):
    """Of 64 rows it is the last 8; they say what the sampler has them say, however they are drawn."""
    settings = pj.SamplerConfig(R, stop_tokens=(3, 11), **settings)
    group = 8
    pool = make_pool(MODEL, settings, group, chunk=2)
    assert pool.programs(Q * group)[0].tail == 8
    expected = toy.to_numpy(pj.make_sampler(MODEL, settings, group)(PARAMS, prompts(), KEY))
    assert_same_rollouts(pool(PARAMS, prompts(), KEY), expected)


def test_the_book():
    """Two parts of two prompts, groups of 2, three slots each: rows wait in order and keep what they said."""
    given = pj.Prompts(
        np.zeros((4, 1), np.int32), np.ones((4, 1), bool), np.array([5, 6, 7, 8]), np.array([0, 0, 4, 0])
    )
    book = Queue(given, 2, 6, 2, length=3)
    first = {name: x.tolist() for name, x in book.assign().items()}
    assert first == {
        "prompt": [0, 0, 1, 0, 0, 1],
        "id": [5, 5, 6, 7, 7, 8],
        "sample": [0, 1, 0, 4, 5, 0],
        "fresh": [True] * 6,
        "waiting": [1, 1],
    }
    mask = np.array([[1, 1], [1, 0], [1, 1], [1, 1], [1, 1], [1, 1]], bool)
    tokens = np.where(mask, np.arange(1, 13).reshape(6, 2), 0)
    rows = book.rows()
    ended = book.end(rows, np.array([0, 1, 0, 0, 0, 1], bool))
    book.keep(rows, Drawn(tokens, tokens / 10, mask))
    assert ended.tolist() == [1, 6]
    assert [x.tolist() for x in book.responses(ended)] == [[1, 6], [[3, 0, 0], [11, 12, 0]], [1, 2]]
    second = book.assign()
    assert second["fresh"].tolist() == [False, True, False, False, False, True]
    assert (second["id"].tolist(), second["sample"].tolist()) == ([5, 6, 6, 7, 7, 8], [0, 1, 0, 4, 5, 1])
    assert second["waiting"].tolist() == [0, 0]
    more = np.array([[0, 9]] * 6)
    rows = book.rows()
    ended = book.end(rows, np.array([1, 1, 0, 1, 1, 0], bool))
    assert ended.tolist() == [0, 3, 4, 5]
    which, prompt = book.compact(2)
    book.keep(rows, Drawn(more, more, more > 0))
    again = book.end(rows, np.array([1, 1, 0, 1, 1, 1], bool))
    assert again.tolist() == [7], "rows that have ended before are not told again"
    assert (which.tolist(), prompt.tolist()) == ([2, 2], [1, 1])
    assert book.rollouts().response[:4].tolist() == [[1, 2, 9], [3, 0, 0], [5, 6, 9], [9, 0, 0]]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"slots": 0}, "slots must be at least 1, got 0"),
        ({"chunk": 0}, "chunk must be at least 1, got 0"),
        ({"group_size": 0}, "group_size must be at least 1, got 0"),
        ({"rings": (4, 8)}, r"rings \(4, 8\) must rise to at least .* = 29"),
        ({"rings": (12, 4, 40)}, "must rise"),
        ({"tail": -1}, "tail must be at least 0, got -1"),
        ({"tail": 8, "rings": (12, 29)}, r"A tail \(8\) .* not beside rings \(12, 29\)"),
        ({"tail": 8, "shrink": (8,)}, r"A tail \(8\) .* shrink \(8,\)"),
    ],
)
def test_pools_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        make_pool(MODEL, SETTINGS, **fields)


def test_slots_divide_over_the_mesh():
    model = Decoder(CONFIG, mesh=make_mesh(MeshSpec(data=2, fsdp=4)))
    for fields in ({"slots": 12}, {"tail": 12}):
        with pytest.raises(ValueError, match="12 slots do not divide over the 8 parts"):
            make_pool(model, SETTINGS, **fields)
    with pytest.raises(ValueError, match="3 prompts do not divide over the 8 parts"):
        make_pool(model, SETTINGS)(PARAMS, jax.tree.map(lambda x: x[:3], prompts()), KEY)


def test_a_model_that_cannot_be_pooled_is_refused():
    with pytest.raises(ValueError, match=r"Toy has no decode_slots.*make_sampler"):
        make_pool(toy.Toy(), SETTINGS)


def test_short_responses_get_one_program():
    def shape(length, slots=None) -> PoolShape:
        return make_pool(MODEL, pj.SamplerConfig(length), slots=slots).programs(256)[0]

    assert (shape(64).rings, shape(64).shrink, shape(64).tail, shape(64).shared) == ((64,), (), 32, True)
    assert shape(64, 32).tail == 0, "no fewer than FEWEST_SLOTS"
    assert make_pool(MODEL, pj.SamplerConfig(64), shrink=()).programs(256)[0].tail == 0, "all slots, if told to"
    assert (shape(128).rings, shape(128).shrink, shape(128).tail) == ((128,), (128, 64, 32, 16), 0)
    assert shape(128, 32).shrink == (16, 8), "no fewer than FEWEST_SLOTS"
    assert (shape(8192, 128).rings, shape(8192, 128).shrink) == ((912, 2736, 8192), (32, 8))
    assert not shape(8192, 128).shared
