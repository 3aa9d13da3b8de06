"""Probability statistics in chunks against a dense computation, and cosines by parameter group."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import prerl_jax as pj
from prerl_jax.alignment.gradients import cosine_by_group
from prerl_jax.alignment.measurements import make_probability_statistics
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.layers import DecoderConfig

MODEL = toy.Toy()
PARAMS, ROLLOUTS = MODEL.init(), toy.rollouts(seed=3)
SPACES = {"pre": pj.PreTrainSpace(0), "post": pj.PostTrainSpace(), "bare": pj.PreTrainSpace(None)}


def dense(space, stop_tokens, temperature):
    """The same in float64 from all probabilities at once."""
    rows = jax.jit(space)(ROLLOUTS)
    hidden = jax.jit(MODEL.hidden)(PARAMS, rows.tokens, rows.positions, rows.segments)
    logits = np.asarray(hidden, np.float64) @ np.asarray(PARAMS["unembed"], np.float64) / temperature
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p = (p / p.sum(-1, keepdims=True))[:, :-1]
    mask, own = np.asarray(rows.mask)[:, 1:], np.take_along_axis(p, np.asarray(rows.tokens)[:, 1:, None], -1)[..., 0]
    ordered = np.sort(p, axis=-1)[..., ::-1]
    found = {
        "logprob": np.log(own),
        "probability": own,
        "entropy": -(p * np.log(p)).sum(-1),
        **{f"top{k + 1}": ordered[..., k] for k in range(3)},
        "eos": p[..., list(stop_tokens)].sum(-1),
    }
    return {name: value[mask].mean() for name, value in found.items()}


def test_equals_the_dense_computation():
    chunk, temperature = 2, 0.7
    statistics = make_probability_statistics(MODEL, SPACES, (2, 5, 2), temperature=temperature, chunk=chunk)
    found = jax.jit(statistics)(PARAMS, ROLLOUTS)
    wanted = {f"{n}/{k}": v for n, space in SPACES.items() for k, v in dense(space, (2, 5), temperature).items()}
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)
    assert found["pre/top1"] > found["pre/top2"] > found["pre/top3"] > 0


def test_without_stop_tokens_there_is_no_probability_of_them():
    found = jax.eval_shape(make_probability_statistics(MODEL, {"post": SPACES["post"]}, top=1), PARAMS, ROLLOUTS)
    assert set(found) == {f"post/{name}" for name in ("logprob", "probability", "entropy", "top1")}


def test_more_than_the_vocabulary_is_refused():
    with pytest.raises(ValueError, match="top is 14, but the vocabulary has 13"):
        jax.eval_shape(make_probability_statistics(MODEL, SPACES, top=14), PARAMS, ROLLOUTS)


@pytest.mark.parametrize(("tied", "groups"), [(True, 7), (False, 8)])
def test_every_parameter_of_a_decoder_has_a_group(tied, groups):
    """ "other" is empty, and what a group says is what its own leaves alone say."""
    config = DecoderConfig("qwen3", 13, 16, 24, 2, 2, 1, 8, tied=tied, qk_norm=True, qkv_bias=True, mlp_bias=True)
    model = Decoder(config)
    a, b = (toy.random_params(model, seed) for seed in (0, 1))
    found = jax.jit(cosine_by_group)(a, b)
    assert len(found) == groups
    assert "other" not in found
    mlp = [np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(x["layers"]["mlp"])]) for x in (a, b)]
    np.testing.assert_allclose(found["mlp"], mlp[0] @ mlp[1] / np.prod(np.linalg.norm(mlp, axis=1)), rtol=1e-5)
    queries = [np.concatenate([np.ravel(x["layers"]["attention"][n]) for n in ("q", "q_bias")]) for x in (a, b)]
    wanted = queries[0] @ queries[1] / np.prod(np.linalg.norm(queries, axis=1))
    np.testing.assert_allclose(found["attention_q"], wanted, rtol=1e-4)


def test_leaves_of_no_group_and_gradients_of_zero():
    a = {"embed": jnp.array([3.0, 4.0]), "mine": {"x": jnp.array([1.0])}, "layers": {"norm": jnp.zeros(2)}}
    b = a | {"embed": 1e-15 * jnp.array([-6.0, -8.0])}
    found = cosine_by_group(a, b)
    assert list(found) == ["norm", "embedding", "other"]
    np.testing.assert_allclose([found["embedding"], found["other"]], [-1, 1], rtol=1e-6)
    assert np.isnan(found["norm"])
    assert list(cosine_by_group(a, b, groups=(("all", ""),))) == ["all"]
