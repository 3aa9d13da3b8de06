"""Per-token alignment in closed form against explicit gradients of every token, its edges, and its buckets."""

import dataclasses
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import prerl_jax as pj
from prerl_jax.alignment.buckets import Buckets, bucketed, token_alignment_metrics
from prerl_jax.alignment.tokens import make_token_alignment
from prerl_jax.core.scoring import score_with_entropy
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.layers import DecoderConfig

MODEL = toy.Toy()
PARAMS, ROLLOUTS = MODEL.init(), toy.rollouts(seed=3)
R = ROLLOUTS.response.shape[1]
POST = pj.PostTrainSpace()
DECODER = Decoder(DecoderConfig("qwen3", 13, 16, 24, 1, 2, 1, 8, tied=True, qk_norm=True))
CASES = {"untied": (MODEL, PARAMS), "tied": (DECODER, toy.random_params(DECODER))}


@dataclasses.dataclass(frozen=True)
class Unembedded:
    """A model whose head's matrix is given from outside: no gradient reaches it through the input."""

    model: Any
    matrix: jax.Array

    def hidden(self, *arguments):
        return self.model.hidden(*arguments)

    def head(self, params):
        return dataclasses.replace(self.model.head(params), weights=self.matrix)


def explicit(model, params, space, temperature):
    """(log-probabilities [B, R], their gradients with respect to the unembedding [B, R, D, V]), one token at a time."""
    rows = space(ROLLOUTS)

    def logprobs(matrix):
        return pj.make_score(Unembedded(model, matrix), temperature)(params, rows)[:, -R:]

    matrix = model.head(params).weights
    return logprobs(matrix), jax.jacrev(logprobs)(matrix)


@pytest.mark.parametrize(
    ("case", "prefix", "temperature", "chunk"),
    [("untied", 0, 0.7, None), ("untied", None, 1.0, 3), ("tied", 0, 1.3, 4)],
)
def test_equals_explicit_gradients_of_every_token(case, prefix, temperature, chunk):
    model, params = CASES[case]
    pre = pj.PreTrainSpace(prefix)
    found = jax.jit(make_token_alignment(model, pre, POST, temperature, chunk))(params, ROLLOUTS)
    (logprobs_pre, a), (logprobs_post, b) = jax.jit(
        lambda p: [explicit(model, p, space, temperature) for space in (pre, POST)]
    )(params)
    mask = np.asarray(ROLLOUTS.response_mask & (jnp.arange(R) > 0) if prefix is None else ROLLOUTS.response_mask)
    a, b = (np.asarray(x, np.float64).reshape(*mask.shape, -1) for x in (a, b))
    inner, norm_a, norm_b = (a * b).sum(-1), np.linalg.norm(a, axis=-1), np.linalg.norm(b, axis=-1)
    wanted = {
        "inner": inner,
        "norm_pre": norm_a,
        "norm_post": norm_b,
        "cosine": np.divide(inner, norm_a * norm_b, where=mask, out=np.zeros_like(inner)),
        "logprobs_pre": logprobs_pre,
        "logprobs_post": logprobs_post,
        "marginal_gap": logprobs_post - logprobs_pre,
    }
    np.testing.assert_array_equal(found.mask, mask)
    for name, value in wanted.items():
        assert getattr(found, name).dtype == jnp.float32
        np.testing.assert_allclose(
            getattr(found, name), np.where(mask, value, 0), rtol=1e-5, atol=1e-5, err_msg=f"{case} {name}"
        )
    assert found.cosine[mask].max() - found.cosine[mask].min() > 0.01  # it tells tokens apart
    assert (np.abs(found.cosine) <= np.abs(found.hidden_cosine) + 1e-6).all()


def test_entropies_are_those_of_the_scores():
    @jax.jit
    def both():
        found = make_token_alignment(MODEL, pj.PreTrainSpace(0), POST, 0.8, 2)(PARAMS, ROLLOUTS)
        rows = [space(ROLLOUTS) for space in (pj.PreTrainSpace(0), POST)]
        scored = [score_with_entropy(MODEL, PARAMS, row, 0.8, None)[1][:, -R:] for row in rows]
        return (found.entropy_pre, found.entropy_post), tuple(scored)

    toy.assert_close(*both(), atol=3e-5)


def test_one_space_twice_is_aligned_and_has_no_gap():
    found = jax.jit(make_token_alignment(MODEL, POST, POST))(PARAMS, ROLLOUTS)
    np.testing.assert_allclose(found.cosine, ROLLOUTS.response_mask, atol=1e-6)
    assert not found.marginal_gap.any()
    np.testing.assert_allclose(found.inner, found.norm_pre**2, rtol=1e-5)


@dataclasses.dataclass(frozen=True)
class Given:
    """Logits straight from a table: those of P(y) for rows without a prompt, those of P(y|x) for the others."""

    vocab: int

    def hidden(self, params, tokens, positions, segments):
        del positions, segments
        return jnp.broadcast_to(params["pre" if tokens.shape[1] == 2 else "post"], (*tokens.shape, self.vocab))

    def head(self, params):
        return pj.Head(jnp.eye(self.vocab))


@pytest.mark.parametrize("margin", [0.0, 30.0, 60.0])
def test_confident_tokens_lose_no_precision(margin):
    """At a margin of 30 nats 1 - p is 1e-13, and the naive e_y - p is 0 in float32."""
    one, two = jnp.ones((1, 1), int), jnp.ones((1, 2), int)
    rollouts = pj.Rollouts(two, two > 0, one, one > 0, jnp.zeros(1), jnp.zeros((1, 1)))
    states = {name: np.random.default_rng(i).normal(size=5) for i, name in enumerate(("pre", "post"))}
    for z in states.values():
        z[1] = margin  # the response's token
    params = {name: jnp.asarray(z, jnp.float32) for name, z in states.items()}
    found = jax.jit(make_token_alignment(Given(5), pj.PreTrainSpace(0), POST))(params, rollouts)

    def residual(z):
        z = z.astype(np.longdouble)
        p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        return np.where(np.arange(5) == 1, np.delete(p, 1).sum(), -p)

    a, b = (residual(np.asarray(params[name])) for name in ("pre", "post"))
    h, k = (np.asarray(params[name], np.longdouble) for name in ("pre", "post"))
    np.testing.assert_allclose(found.norm_pre[0, 0], float(np.sqrt(a @ a) * np.sqrt(h @ h)), rtol=1e-5)
    np.testing.assert_allclose(found.inner[0, 0], float((a @ b) * (h @ k)), rtol=1e-4, atol=1e-37)
    cosine = (a @ b) * (h @ k) / np.sqrt((a @ a) * (b @ b) * (h @ h) * (k @ k))
    np.testing.assert_allclose(found.cosine[0, 0], float(cosine), rtol=1e-5)
    assert np.isfinite(jax.tree.leaves(found)).all()


def test_no_array_of_all_logits():
    rollouts = toy.rollouts(response=48, vocab=13)
    model = toy.Toy(vocab=1000)
    align = jax.jit(make_token_alignment(model, pj.PreTrainSpace(0), POST, chunk=4))
    text = align.lower(model.init(), rollouts).compile().as_text()
    shapes = [[int(n) for n in found.split(",")] for found in re.findall(r"f32\[([\d,]+)\]", text)]
    largest = max(np.prod(shape) for shape in shapes if 1000 in shape)
    assert 8 * 4 * 1000 <= largest < 8 * 48 * 1000


ALIGNMENT = dataclasses.replace(
    jax.tree.map(jnp.zeros_like, jax.eval_shape(make_token_alignment(MODEL, POST, POST), PARAMS, ROLLOUTS)),
    mask=jnp.array([[1, 1, 1, 1, 1, 0], [1, 1, 0, 0, 0, 0]], bool),
    logprobs_post=jnp.log(jnp.array([[0.05, 0.5, 0.5, 0.95, 1.0, 0.5], [0.95, 0.25, 1.0, 1.0, 1.0, 1.0]])),
    logprobs_pre=jnp.log(jnp.array([[0.05, 0.05, 0.5, 0.5, 0.95, 0.5], [0.3, 0.25, 1.0, 1.0, 1.0, 1.0]])),
    cosine=jnp.array([[1.0, 2, 3, 4, 5, 0], [10, 20, 0, 0, 0, 0]]),
    inner=jnp.array([[2.0, 0, 0, 0, 0, 0], [0, 120, 0, 0, 0, 0]]),
    norm_pre=jnp.array([[1.0, 0, 0, 0, 0, 0], [0, 2, 0, 0, 0, 0]]),
    norm_post=jnp.array([[2.0, 0, 0, 0, 0, 0], [0, 3, 0, 0, 0, 0]]),
    marginal_gap=jnp.array([[1.0, 1, 1, 1, -1, 0], [2, 2, 0, 0, 0, 0]]),
)
BUCKETS = Buckets(probability=(0.25, 0.5, 0.9), position=(1, 2, 4, 8))


def test_bucketed_by_hand():
    values = ALIGNMENT.cosine.at[0, 5].set(99.0)  # outside the mask
    found = jax.jit(lambda v, a: bucketed(v, a, BUCKETS))(values, ALIGNMENT)
    assert found.count("post").tolist() == [1, 1, 2, 3]
    np.testing.assert_allclose(found.mean("post"), [1, 20, 2.5, 19 / 3])
    assert found.count("pre").tolist() == [2, 2, 2, 1]
    np.testing.assert_allclose(found.mean("pre"), [1.5, 15, 3.5, 5])
    assert found.count("position").tolist() == [2, 2, 2, 1]  # 0, 1, 2-3, 4-5: 8 is beyond the responses
    np.testing.assert_allclose(found.mean("position"), [5.5, 11, 3.5, 5])
    assert found.count("post", "position").tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [1, 0, 1, 1]]
    np.testing.assert_allclose(found.mean("post", "position")[3], [10, np.nan, 4, 5])
    np.testing.assert_allclose(found.mean("post", "pre")[2], [2, np.nan, 3, np.nan])
    with pytest.raises(ValueError, match=r"the axes of buckets are .* got \('length',\)"):
        found.mean("length")


def test_metrics_by_hand():
    found = {
        name: float(value)
        for name, value in jax.jit(functools.partial(token_alignment_metrics, buckets=BUCKETS))(ALIGNMENT).items()
    }
    assert found.pop("alignment/token") == pytest.approx(45 / 7)
    assert found.pop("alignment/token_weighted") == pytest.approx((2 * 1 + 6 * 20) / (2 + 6))
    assert found.pop("alignment/marginal_gap") == pytest.approx(1)
    assert found.pop("alignment/marginal_gap_per_response") == pytest.approx(3.5)
    named = {"post_0-0.25": 1, "post_0.25-0.5": 20, "post_0.5-0.9": 2.5, "post_0.9-1": 19 / 3}
    named |= {"pre_0-0.25": 1.5, "pre_0.25-0.5": 15, "pre_0.5-0.9": 3.5, "pre_0.9-1": 5}
    named |= {"position_0": 5.5, "position_1": 11, "position_2-3": 3.5, "position_4-5": 5}
    assert found == pytest.approx({f"alignment/token/{name}": value for name, value in named.items()})


def test_nothing_sampled_is_nan_not_an_error():
    nothing = jax.tree.map(jnp.zeros_like, ALIGNMENT)
    found = jax.jit(functools.partial(token_alignment_metrics, buckets=BUCKETS))(nothing)
    assert np.isnan(list(found.values())).all()


@pytest.mark.parametrize(
    "edges", [{"probability": (0.5, 0.5)}, {"probability": (0.0, 0.5)}, {"probability": (1.0,)}, {"position": (4, 2)}]
)
def test_edges_must_increase_within_their_range(edges):
    with pytest.raises(ValueError, match="must increase between"):
        Buckets(**edges)
