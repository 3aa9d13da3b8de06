"""Both spaces' gradients from one program, against each of them alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

import prerl_jax as pj
from prerl_jax.alignment.gradients import cosine
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.layers import DecoderConfig

MODEL = toy.Toy()
PARAMS, ROLLOUTS = MODEL.init(), toy.rollouts(seed=3)
PRE, POST = pj.nsr_prerl(steps=1, prefix=0)[0], pj.grpo(steps=1)[0]


@pytest.fixture(scope="module")
def dual():
    return jax.jit(pj.make_dual_gradients(MODEL, PRE, POST, 4, logprob_alignment=True))


@jax.jit
def alone():
    """Gradients of PRE's and POST's losses, and of the mean log-probabilities in their spaces."""

    def loss(params, phase):
        batch = pj.make_prepare(phase, 4)(ROLLOUTS)
        return pj.make_loss(MODEL, phase.objective)(params, batch)[0]

    def mean_logprob(params, phase):
        sequences = phase.space(ROLLOUTS)
        return pj.make_score(MODEL)(params, sequences).sum() / sequences.mask.sum()

    return [[jax.grad(f)(PARAMS, phase) for phase in (PRE, POST)] for f in (loss, mean_logprob)]


def flat(tree):
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])


def cosine_of(a, b):
    return flat(a) @ flat(b) / (np.linalg.norm(flat(a)) * np.linalg.norm(flat(b)))


def test_equals_the_separate_gradients(dual):
    *gradients, found = dual(PARAMS, ROLLOUTS)
    wanted, means = alone()
    for gradient, expected in zip(gradients, wanted, strict=True):
        toy.assert_close(gradient, expected, atol=1e-7)
    for name, prefix, (a, b) in (("objective", "", wanted), ("logprob", "logprob_", means)):
        np.testing.assert_allclose(found[f"alignment/{name}"], cosine_of(a, b), rtol=1e-4)
        np.testing.assert_allclose(found[f"alignment/{prefix}norm_pre"], np.linalg.norm(flat(a)), rtol=1e-5)
        np.testing.assert_allclose(found[f"alignment/{prefix}norm_post"], np.linalg.norm(flat(b)), rtol=1e-5)
        by_layer = found[f"alignment/{name}_by_layer"]
        assert by_layer.shape == (MODEL.layers,)
        for layer, value in enumerate(by_layer):
            parts = (jax.tree.map(lambda g, k=layer: g[k], x["layers"]) for x in (a, b))
            np.testing.assert_allclose(value, cosine_of(*parts), rtol=1e-4)
        for group, leaf in (("embedding", "embed"), ("unembedding", "unembed"), ("other", "layers")):
            parts = (x[leaf] for x in (a, b))
            np.testing.assert_allclose(found[f"alignment/{name}_by_group/{group}"], cosine_of(*parts), rtol=1e-4)
    assert len(found) == 15  # these, and the gap below


@dataclasses.dataclass(frozen=True)
class General:
    """An objective that does not say that its loss is token by token."""

    inner: pj.ClippedPG = POST.objective
    traits = pj.ObjectiveTraits()

    def __call__(self, logprobs, batch, entropy):
        return self.inner(logprobs, batch, entropy)


@pytest.mark.parametrize(
    ("objective", "microbatches"), [(POST.objective, 2), (POST.objective, 4), (General(), 1), (General(), 2)]
)
def test_microbatches_and_general_objectives_agree(dual, objective, microbatches):
    pre, post = (dataclasses.replace(phase, objective=objective) for phase in (PRE, POST))
    settings = {"logprob_alignment": True, "microbatches": microbatches}
    found = jax.jit(pj.make_dual_gradients(MODEL, pre, post, 4, **settings))(PARAMS, ROLLOUTS)
    toy.assert_close(found, dual(PARAMS, ROLLOUTS), rtol=1e-4)


def test_rows_that_do_not_divide_into_microbatches_are_refused():
    with pytest.raises(ValueError, match="8 rows do not divide into 3 microbatches"):
        pj.make_dual_gradients(MODEL, PRE, POST, 4, microbatches=3)(PARAMS, ROLLOUTS)


def test_the_two_measures_differ(dual):
    found = dual(PARAMS, ROLLOUTS)[2]
    assert abs(found["alignment/objective"] - found["alignment/logprob"]) > 0.05


def test_the_logprobs_of_the_sampler_are_measured_and_never_used(dual):
    assert np.isnan(ROLLOUTS.logprobs).all()
    there = dataclasses.replace(ROLLOUTS, logprobs=jnp.full_like(ROLLOUTS.logprobs, -7.0))
    *ours, found = dual(PARAMS, ROLLOUTS)
    *theirs, measured = dual(PARAMS, there)
    assert np.isnan(found.pop("alignment/sampler_logprob_diff"))
    gap = measured.pop("alignment/sampler_logprob_diff")
    toy.assert_same_bits((ours, found), (theirs, measured))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((ours, found)))
    batch = pj.make_prepare(POST, 4)(there)
    logprobs = jax.jit(pj.make_score(MODEL))(PARAMS, batch.sequences)
    trained = (batch.weights != 0) & (batch.advantages != 0)
    np.testing.assert_allclose(gap, jnp.abs(logprobs + 7)[trained].mean(), rtol=1e-5)


def test_an_empty_selection_has_no_cosine(dual):
    constant = dataclasses.replace(ROLLOUTS, rewards=jnp.full_like(ROLLOUTS.rewards, 0.1))
    *gradients, found = dual(PARAMS, constant)
    assert not any(flat(g).any() for g in gradients)
    assert found["alignment/norm_pre"] == found["alignment/norm_post"] == 0
    assert np.isnan(found["alignment/objective"])
    assert np.isnan(found["alignment/objective_by_layer"]).all()
    assert np.isnan(found["alignment/objective_by_group/embedding"])
    assert np.isfinite(found["alignment/logprob"])


def test_the_mean_logprobs_are_left_out_unless_asked_for():
    shapes = jax.eval_shape(pj.make_dual_gradients(MODEL, PRE, POST, 4), PARAMS, ROLLOUTS)
    assert jax.tree.structure(shapes[0]) == jax.tree.structure(shapes[1]) == jax.tree.structure(PARAMS)
    names = {"objective", "objective_by_layer", "norm_pre", "norm_post", "sampler_logprob_diff"}
    names |= {f"objective_by_group/{group}" for group in ("embedding", "unembedding", "other")}
    assert set(shapes[2]) == {f"alignment/{name}" for name in names}


def test_parameters_without_stacked_layers_have_no_cosine_by_layer():
    @dataclasses.dataclass(frozen=True)
    class Bigram:
        def hidden(self, params, tokens, positions, segments):
            return params["table"][tokens]

        def head(self, params):
            return pj.Head(jnp.eye(13))

    params = {"table": jax.random.normal(jax.random.key(0), (13, 13))}
    found = jax.eval_shape(pj.make_dual_gradients(Bigram(), PRE, POST, 4), params, ROLLOUTS)[2]
    assert {"alignment/objective", "alignment/norm_pre", "alignment/norm_post"} <= set(found)
    assert not any("by_layer" in name for name in found)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([3.0, 4.0], [3.0, 4.0], 1),
        ([3.0, 4.0], [-6.0, -8.0], -1),
        ([1.0, 0.0], [0.0, 2.0], 0),
        ([1.0, 0], [1, 1], 0.5**0.5),
    ],
)
def test_cosine(a, b, expected):
    """Over the whole tree, not the mean over its leaves."""
    trees = ({"x": jnp.asarray(v[:1], jnp.float32), "y": {"z": jnp.asarray(v[1:], jnp.float32)}} for v in (a, b))
    np.testing.assert_allclose(cosine(*trees), expected, atol=1e-6)


def test_norms_are_optax_norms(dual):
    pre, post, found = dual(PARAMS, ROLLOUTS)
    np.testing.assert_allclose(found["alignment/norm_pre"], optax.tree.norm(pre), rtol=1e-6)
    np.testing.assert_allclose(found["alignment/norm_post"], optax.tree.norm(post), rtol=1e-6)


@pytest.mark.slow
def test_the_second_gradient_takes_the_memory_of_the_first():
    """With layers in a loop, whose buffers XLA:CPU otherwise fills with zeros before the first gradient begins."""
    config = DecoderConfig("qwen3", 32, 32, 64, 12, 4, 2, 8, qk_norm=True)
    model, rollouts = Decoder(config, unroll=False), toy.rollouts(prompts=4, response=64)
    params = model.abstract_params()

    def alone(phase):
        def gradient(params, rollouts):
            batch = pj.make_prepare(phase, 4)(rollouts)
            return jax.grad(pj.make_loss(model, phase.objective), has_aux=True)(params, batch)

        return gradient

    def temporaries(function):
        return jax.jit(function).lower(params, rollouts).compile().memory_analysis().temp_size_in_bytes

    larger = max(temporaries(alone(phase)) for phase in (PRE, POST))
    assert temporaries(pj.make_dual_gradients(model, PRE, POST, 4)) < 1.1 * larger
