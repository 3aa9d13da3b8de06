"""PyTorch's log-probabilities, losses, gradient norms and cosines of a tiny Qwen3, for every space, selection and mean.

tests/data/dual_space_a holds the checkpoint, the rollouts and the expected numbers. PRERL_JAX_GOLDEN may name a folder
of further ones (other seeds, untied embeddings) in the same format.
"""

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import prerl_jax as pj
from prerl_jax.core.dual import cosine
from prerl_jax.models.hf import load_model

HERE = Path(__file__).parent.parent / "data" / "dual_space_a"
FOLDERS = [HERE, *sorted(p.parent for p in Path(os.environ.get("PRERL_JAX_GOLDEN", HERE)).glob("*/vectors.npz"))]
WEIGHS = {
    "token-mean": pj.TokenMean(),
    "seq-mean-token-mean": pj.SequenceMeanTokenMean(),
    "seq-mean-token-sum": pj.SequenceMeanTokenSum(),
    "seq-mean-token-sum-norm": pj.SequenceSumNorm(),
}
SAMPLES = ("all", "negative", "positive")
SPACES = ("pre", "post")


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda p: p.name)
def golden(request):
    model, params = load_model(request.param)
    vectors = dict(np.load(request.param / "vectors.npz"))
    return model, params, vectors, json.loads((request.param / "vectors.json").read_text())


def rollouts_of(v):
    length = v["prompt"].shape[1]
    return pj.Rollouts(
        prompt=jnp.asarray(v["prompt"], jnp.int32),
        prompt_mask=jnp.arange(length) >= length - jnp.asarray(v["prompt_len"])[:, None],
        response=jnp.asarray(v["response"], jnp.int32),
        response_mask=jnp.asarray(v["response_mask"], bool),
        rewards=jnp.asarray(v["reward"], jnp.float32),
        logprobs=jnp.zeros(v["response"].shape, jnp.float32),
    )


def phase(space, samples, settings, weigh=pj.TokenMean()):  # noqa: B008
    where = pj.PreTrainSpace(settings["prefix_token_id"]) if space == "pre" else pj.PostTrainSpace()
    objective = pj.ClippedPG(settings["clip_low"], settings["clip_high"], settings["dual_clip"])
    return pj.Phase(space, 1, where, pj.GroupRelative(space == "post", samples), objective, weigh)


def gradient_of(golden, space, samples, weigh, old):
    """(loss, gradient) of one objective, with the given old log-probabilities [B, R] or on-policy."""
    model, params, v, settings = golden
    p = phase(space, samples, settings, weigh)
    batch = pj.make_prepare(model, p, 4)(params, rollouts_of(v))
    if old is not None:
        laid = jnp.pad(jnp.asarray(old), [(0, 0), (batch.weights.shape[1] - old.shape[1], 0)])
        batch = pj.Batch(batch.sequences, batch.weights, batch.advantages, old_logprobs=laid)
    loss = pj.make_loss(model, p.objective)
    return jax.jit(jax.value_and_grad(lambda q: loss(q, batch)[0]))(params)


def test_advantages(golden):
    v = golden[2]
    rewards = jnp.asarray(v["reward"], jnp.float32)
    np.testing.assert_allclose(pj.GroupRelative(False)(rewards, 4)[0], v["advantage_mean"], atol=1e-6)
    np.testing.assert_allclose(pj.GroupRelative(True)(rewards, 4)[0], v["advantage_std"], atol=1e-5)


@pytest.mark.parametrize("space", SPACES)
def test_logprobs(golden, space):
    model, params, v, settings = golden
    sequences = phase(space, "all", settings).space(rollouts_of(v))
    found = jax.jit(pj.make_score(model))(params, sequences)[:, -v["response"].shape[1] :]
    np.testing.assert_allclose(found, v[f"logp_{space}"], atol=2e-5)


@pytest.mark.parametrize("aggregation", WEIGHS)
@pytest.mark.parametrize("samples", SAMPLES)
@pytest.mark.parametrize("space", SPACES)
def test_clipped_loss_and_its_gradient(golden, space, samples, aggregation):
    v = golden[2]
    loss, gradient = gradient_of(golden, space, samples, WEIGHS[aggregation], v[f"old_logp_{space}"])
    name = f"{space}_{samples}_{aggregation}"
    np.testing.assert_allclose(loss, v[f"loss_{name}"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(optax.tree.norm(gradient), v[f"grad_norm_{name}"], rtol=1e-4)


@pytest.mark.parametrize("samples", SAMPLES)
def test_cosine_of_the_clipped_losses(golden, samples):
    v = golden[2]
    pre, post = (gradient_of(golden, s, samples, pj.TokenMean(), v[f"old_logp_{s}"])[1] for s in SPACES)
    np.testing.assert_allclose(cosine(pre, post), v[f"cosine_{samples}"], atol=1e-4)


@pytest.mark.parametrize("post_samples", SAMPLES)
@pytest.mark.parametrize("pre_samples", SAMPLES)
def test_dual_gradients_on_policy(golden, pre_samples, post_samples):
    model, params, v, settings = golden
    dual = pj.make_dual_gradients(
        model, phase("pre", pre_samples, settings), phase("post", post_samples, settings), 4, logprob_alignment=True
    )
    grad_pre, grad_post, found = jax.jit(dual)(params, rollouts_of(v))
    key = f"onpolicy_cosine_pre_{pre_samples}_post_{post_samples}"
    assert key in v
    np.testing.assert_allclose(found["alignment/objective"], v[key], atol=1e-4)
    np.testing.assert_allclose(found["alignment/norm_pre"], v[f"onpolicy_grad_norm_pre_{pre_samples}"], rtol=1e-4)
    np.testing.assert_allclose(found["alignment/norm_post"], v[f"onpolicy_grad_norm_post_{post_samples}"], rtol=1e-4)
    np.testing.assert_allclose(optax.tree.norm(grad_pre), found["alignment/norm_pre"], rtol=1e-6)
    np.testing.assert_allclose(optax.tree.norm(grad_post), found["alignment/norm_post"], rtol=1e-6)
    np.testing.assert_allclose(found["alignment/logprob"], v["cosine_meanlogp"], atol=1e-4)
    np.testing.assert_allclose(found["alignment/logprob_norm_pre"], v["grad_norm_meanlogp_pre"], rtol=1e-4)
    np.testing.assert_allclose(found["alignment/logprob_norm_post"], v["grad_norm_meanlogp_post"], rtol=1e-4)
