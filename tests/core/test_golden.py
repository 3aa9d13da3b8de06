"""PyTorch's log-probabilities, losses, gradient norms and cosines of a tiny Qwen3, for every space, selection and mean.

tests/data/dual_space_a holds the checkpoint, the rollouts and the expected numbers. PRERL_JAX_GOLDEN may name one
further such folder, or a folder of them (other seeds, untied embeddings).

Samples and means only change a batch's arrays, so three programs a checkpoint are compiled: the loss and its gradient
in either space, and the dual gradients, whose selection is traced through a credit of the test's own.
"""

import dataclasses
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import prerl_jax as pj
from prerl_jax.alignment.gradients import cosine
from prerl_jax.core.spaces import response_part
from prerl_jax.models.hf import load_model

HERE = Path(__file__).parent.parent / "data" / "dual_space_a"
WEIGHS = {
    "token-mean": pj.TokenMean(),
    "seq-mean-token-mean": pj.SequenceMeanTokenMean(),
    "seq-mean-token-sum": pj.SequenceMeanTokenSum(),
    "seq-mean-token-sum-norm": pj.SequenceSumTokenSumNorm(),
}
SAMPLES = ("all", "negative", "positive")
SPACES = ("pre", "post")


def folders() -> list[Path]:
    named = os.environ.get("PRERL_JAX_GOLDEN")
    if named is None:
        return [HERE]
    further = sorted(p.parent for pattern in ("vectors.npz", "*/vectors.npz") for p in Path(named).glob(pattern))
    if not further:
        raise ValueError(f"PRERL_JAX_GOLDEN={named} has no vectors.npz, nor has a folder in it.")
    return [HERE, *further]


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The estimator of `estimators` with the number `index`, an i32[] that may be traced."""

    estimators: tuple
    index: jax.Array
    traits = pj.AdvantageTraits(compares_group=True)

    def __call__(self, rollouts, group_size, values=None):
        advantages, keep = zip(*(estimator(rollouts, group_size) for estimator in self.estimators), strict=True)
        return jnp.stack(advantages)[self.index], jnp.stack(keep)[self.index]


class Golden:
    """A checkpoint, its vectors, and the programs that every test of it shares."""

    def __init__(self, folder: Path):
        self.model, self.params = load_model(folder)
        self.settings = json.loads((folder / "vectors.json").read_text())
        v = self.vectors = dict(np.load(folder / "vectors.npz"))
        self.group_size = int((v["group"] == v["group"][0]).sum())
        length = v["prompt"].shape[1]
        self.rollouts = pj.Rollouts(
            prompt=jnp.asarray(v["prompt"], jnp.int32),
            prompt_mask=jnp.arange(length) >= length - jnp.asarray(v["prompt_len"])[:, None],
            response=jnp.asarray(v["response"], jnp.int32),
            response_mask=jnp.asarray(v["response_mask"], bool),
            rewards=jnp.asarray(v["reward"], jnp.float32),
            logprobs=jnp.full(v["response"].shape, jnp.nan),  # nothing below may depend on the sampler's
        )
        loss = pj.make_loss(self.model, self.phase("post").objective)
        self.loss_and_gradient = jax.jit(jax.value_and_grad(lambda params, batch: loss(params, batch)[0]))
        self.dual = jax.jit(self._dual)

    def phase(self, space, samples="all", aggregation=pj.TokenMean(), advantage=None):  # noqa: B008
        s = self.settings
        where = pj.PreTrainSpace(s["prefix_token_id"]) if space == "pre" else pj.PostTrainSpace()
        advantage = advantage or pj.GroupRelative(normalize_std=space == "post", keep=samples)
        return pj.Phase(
            space, 1, where, advantage, pj.ClippedPG(s["clip_low"], s["clip_high"], s["dual_clip"]), aggregation
        )

    def clipped(self, space, samples, aggregation):
        """(loss, gradient) against the old log-probabilities of the vectors."""
        prepare = pj.make_prepare(self.phase(space, samples, WEIGHS[aggregation]), self.group_size)
        batch = prepare(self.rollouts)
        old = response_part(batch.sequences, self.rollouts, jnp.asarray(self.vectors[f"old_logp_{space}"]))
        batch = dataclasses.replace(batch, old_logprobs=old, sampler_logprobs=None)
        return self.loss_and_gradient(self.params, batch)

    def _dual(self, params, rollouts, pre, post):
        def phase(space, index):
            estimators = tuple(pj.GroupRelative(space == "post", keep) for keep in SAMPLES)
            return self.phase(space, advantage=Chosen(estimators, index))

        phases = phase("pre", pre), phase("post", post)
        return pj.make_dual_gradients(self.model, *phases, self.group_size, logprob_alignment=True)(params, rollouts)


@pytest.fixture(scope="module", params=folders(), ids=lambda p: p.name)
def golden(request):
    return Golden(request.param)


def test_every_key_is_checked_below(golden):
    rollouts = {"prompt", "prompt_len", "response", "response_len", "response_mask", "reward", "group"}
    keys = rollouts | {"advantage_mean", "advantage_std", "cosine_meanlogp"} | {f"cosine_{s}" for s in SAMPLES}
    for space in SPACES:
        keys |= {f"logp_{space}", f"old_logp_{space}", f"grad_norm_meanlogp_{space}"}
        keys |= {f"onpolicy_grad_norm_{space}_{s}" for s in SAMPLES}
        keys |= {f"{of}_{space}_{s}_{a}" for of in ("loss", "grad_norm") for s in SAMPLES for a in WEIGHS}
    keys |= {f"onpolicy_cosine_pre_{a}_post_{b}" for a in SAMPLES for b in SAMPLES}
    assert set(golden.vectors) == keys


def test_rollouts(golden):
    v, r = golden.vectors, golden.rollouts
    np.testing.assert_array_equal(r.response_mask.sum(axis=1), v["response_len"])
    np.testing.assert_array_equal(v["group"], np.arange(len(v["group"])) // golden.group_size)


@pytest.mark.parametrize(("key", "normalize_std", "atol"), [("mean", False, 1e-6), ("std", True, 1e-5)])
def test_advantages(golden, key, normalize_std, atol):
    found, _ = pj.GroupRelative(normalize_std)(golden.rollouts, golden.group_size)
    np.testing.assert_allclose(found, golden.vectors[f"advantage_{key}"], atol=atol)


@pytest.mark.parametrize("space", SPACES)
def test_logprobs(golden, space):
    sequences = golden.phase(space).space(golden.rollouts)
    found = jax.jit(pj.make_score(golden.model))(golden.params, sequences)
    np.testing.assert_allclose(
        found[:, -golden.rollouts.response.shape[1] :], golden.vectors[f"logp_{space}"], atol=2e-5
    )


@pytest.mark.parametrize("aggregation", WEIGHS)
@pytest.mark.parametrize("samples", SAMPLES)
@pytest.mark.parametrize("space", SPACES)
def test_clipped_loss_and_its_gradient(golden, space, samples, aggregation):
    loss, gradient = golden.clipped(space, samples, aggregation)
    name = f"{space}_{samples}_{aggregation}"
    np.testing.assert_allclose(loss, golden.vectors[f"loss_{name}"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(optax.tree.norm(gradient), golden.vectors[f"grad_norm_{name}"], rtol=1e-4)


@pytest.mark.parametrize("samples", SAMPLES)
def test_cosine_of_the_clipped_losses(golden, samples):
    pre, post = (golden.clipped(space, samples, "token-mean")[1] for space in SPACES)
    np.testing.assert_allclose(cosine(pre, post), golden.vectors[f"cosine_{samples}"], atol=1e-4)


@pytest.mark.parametrize("post", SAMPLES)
@pytest.mark.parametrize("pre", SAMPLES)
def test_dual_gradients_on_policy(golden, pre, post):
    v = golden.vectors
    selections = jnp.asarray(SAMPLES.index(pre)), jnp.asarray(SAMPLES.index(post))
    grad_pre, grad_post, found = golden.dual(golden.params, golden.rollouts, *selections)
    np.testing.assert_allclose(found["alignment/objective"], v[f"onpolicy_cosine_pre_{pre}_post_{post}"], atol=1e-4)
    np.testing.assert_allclose(found["alignment/norm_pre"], v[f"onpolicy_grad_norm_pre_{pre}"], rtol=1e-4)
    np.testing.assert_allclose(found["alignment/norm_post"], v[f"onpolicy_grad_norm_post_{post}"], rtol=1e-4)
    np.testing.assert_allclose(optax.tree.norm(grad_pre), found["alignment/norm_pre"], rtol=1e-6)
    np.testing.assert_allclose(optax.tree.norm(grad_post), found["alignment/norm_post"], rtol=1e-6)
    np.testing.assert_allclose(found["alignment/logprob"], v["cosine_meanlogp"], atol=1e-4)
    np.testing.assert_allclose(found["alignment/logprob_norm_pre"], v["grad_norm_meanlogp_pre"], rtol=1e-4)
    np.testing.assert_allclose(found["alignment/logprob_norm_post"], v["grad_norm_meanlogp_post"], rtol=1e-4)
