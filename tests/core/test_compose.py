"""Objectives that wrap objectives: what they add, what they declare, and what they do to a train step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from test_objectives import batch_of, loss_and_gradient

import prerl_jax as pj
from prerl_jax.core.kl import ESTIMATORS, divergence

LOGPROBS, ADVANTAGES = [-0.1, -3.0, -2.0, -1e-3], [1.5, -0.7, 0.0, 0.0]
SAMPLER, REFERENCE = [-0.1, -4.0, -1.0, -1e-3], [-0.3, -2.0, -2.0, -1.0]


def batch(**fields):
    fields = {name: jnp.asarray([value]) for name, value in fields.items()}
    return dataclasses.replace(batch_of(ADVANTAGES, [-0.2, -2.5, -2.0, -0.1]), **fields)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_divergence_is_added_without_an_advantage_too(estimator):
    made = batch(ref_logprobs=REFERENCE)
    plain, slope, _ = loss_and_gradient(pj.ClippedPG(), LOGPROBS, made)
    loss, gradient, metrics = loss_and_gradient(pj.WithKL(pj.ClippedPG(), 0.1, estimator), LOGPROBS, made)
    log_rho = jnp.asarray(LOGPROBS) - made.old_logprobs[0]

    def penalty(x):
        return divergence(estimator, x, jnp.asarray(REFERENCE), log_rho)

    np.testing.assert_allclose(loss - plain, 0.1 * penalty(jnp.asarray(LOGPROBS)), atol=1e-6)
    expected = jax.grad(lambda x: 0.1 * penalty(x).sum())(jnp.asarray(LOGPROBS))
    np.testing.assert_allclose(gradient - slope, expected, atol=1e-6)
    assert gradient[3] != 0
    np.testing.assert_allclose(metrics["kl_ref"], penalty(jnp.asarray(LOGPROBS)), atol=1e-6)


@pytest.mark.parametrize("coefficient", [0.1, -0.2])
def test_entropy_is_raised_without_an_advantage_too(coefficient):
    made, entropy = batch(), jnp.asarray([[0.5, 1.0, 2.0, 3.0]])
    plain, slope, _ = loss_and_gradient(pj.ClippedPG(), LOGPROBS, made)
    objective = pj.WithEntropy(pj.ClippedPG(), coefficient)
    logprobs = jnp.asarray([LOGPROBS])
    loss, _ = objective(logprobs, made, entropy)
    np.testing.assert_allclose(loss[0] - plain, -coefficient * entropy[0], atol=1e-6)
    by_both = jax.grad(lambda x, h: objective(x, made, h)[0].sum(), (0, 1))(logprobs, entropy)
    np.testing.assert_allclose(by_both[0][0], slope, atol=1e-6)
    np.testing.assert_allclose(by_both[1], jnp.full((1, 4), -coefficient))


@pytest.mark.parametrize(("old", "weights"), [(None, [1, 2.0, np.exp(-1), 1]), (-2.5, None)])
def test_the_samplers_ratio_is_capped_and_constant(old, weights):
    made = dataclasses.replace(batch(sampler_logprobs=SAMPLER), old_logprobs=None)
    if old is not None:
        made = dataclasses.replace(made, old_logprobs=jnp.full((1, 4), old))
        weights = np.minimum(np.exp(old - np.asarray(SAMPLER)), 2)
    plain, slope, _ = loss_and_gradient(pj.Reinforce(), LOGPROBS, made)
    loss, gradient, metrics = loss_and_gradient(pj.TruncatedIS(pj.Reinforce()), LOGPROBS, made)
    np.testing.assert_allclose(metrics["sampler_weight"], weights, rtol=1e-5)
    np.testing.assert_allclose(loss, plain * np.asarray(weights), rtol=1e-5)
    np.testing.assert_allclose(gradient, slope * np.asarray(weights), rtol=1e-5)
    assert metrics["sampler_capped"].tolist() == [0, 1, 0, 0]


def test_missing_logprobs_are_named():
    with pytest.raises(ValueError, match=r"batch.ref_logprobs is None.*leave WithKL out"):
        pj.WithKL(pj.Reinforce(), 0.1)(jnp.zeros((1, 4)), batch(), jnp.zeros((1, 4)))
    with pytest.raises(ValueError, match=r"batch.sampler_logprobs is None.*PostTrainSpace\(\)"):
        pj.TruncatedIS(pj.Reinforce())(jnp.zeros((1, 4)), batch(), jnp.zeros((1, 4)))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: pj.WithKL(pj.Reinforce(), 0.1, "k4"), "got 'k4' and 0.1"),
        (lambda: pj.WithKL(pj.Reinforce(), -0.1), "and -0.1"),
        (lambda: pj.TruncatedIS(pj.Reinforce(), 0.0), "above 0, got 0.0"),
        (lambda: pj.WithEntropy(max, 0.1), "traits is None, and must be of the class ObjectiveTraits"),
        (lambda: pj.LogprobFloor(pj.Reinforce(), 0.0), "below 0: 0.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


TRAITS = [
    # elementwise, skips_zero_advantage, needs_entropy, needs_reference, needs_sampler_logprobs, uses_ratio, on_policy
    (pj.ClippedPG(), "1100010"),
    (pj.Reinforce(), "1100001"),
    (pj.CISPO(), "1100010"),
    (pj.GSPO(), "0100010"),
    (pj.WithKL(pj.ClippedPG(), 0.1), "1001010"),
    (pj.WithKL(pj.GSPO(), 0.1), "0001010"),
    (pj.WithEntropy(pj.Reinforce(), 0.1), "1010001"),
    (pj.TruncatedIS(pj.ClippedPG()), "1100110"),
    (pj.LogprobFloor(pj.ClippedPG(), -5.0), "1100010"),
    (pj.LogprobFloor(pj.WithEntropy(pj.GSPO(), 0.1), -5.0), "0010010"),
    (pj.WithKL(pj.TruncatedIS(pj.WithEntropy(pj.Reinforce(), 0.1)), 0.1), "1011101"),
]


@pytest.mark.parametrize(("objective", "expected"), TRAITS)
def test_traits(objective, expected):
    assert "".join(str(int(value)) for value in dataclasses.astuple(objective.traits)) == expected


PHASES = {
    "pre": pj.Phase("pre", 1, pj.PreTrainSpace(prefix=0), pj.GroupRelative(False)),
    "post": pj.Phase("post", 1),
}
OBJECTIVES = {
    "gspo": pj.GSPO(0.05, 0.05),
    "all": pj.WithKL(pj.WithEntropy(pj.LogprobFloor(pj.CISPO(), -2.0), 0.1), 0.1, "k3"),
}


def off_policy(phase):
    """Rollouts and their batch under policies before and beside the model's."""
    model = toy.Toy()
    found = pj.make_prepare(phase, 4)(toy.rollouts())
    score = jax.jit(pj.make_score(model))
    near = jax.tree.map(lambda x: 0.98 * x, model.init())
    old, reference = score(near, found.sequences), score(model.init(1), found.sequences)
    return dataclasses.replace(found, old_logprobs=old, ref_logprobs=reference, sampler_logprobs=None)


@pytest.mark.parametrize(("name", "space"), [("gspo", "pre"), ("gspo", "post"), ("all", "pre")])
def test_the_gradient_does_not_depend_on_packing_or_microbatches(name, space):
    objective, model = OBJECTIVES[name], toy.Toy()
    whole = off_policy(PHASES[space])
    capacity = 2 * whole.weights.shape[1]
    local = toy.to_numpy(whole)
    groups = pj.plan_bins(local, objective, capacity)
    assert max(map(len, groups)) > 2
    packed = pj.pack(local, groups, 4, capacity)
    tx = pj.adamw(1.0)

    def run(batch, microbatches=1):
        step = jax.jit(pj.make_train_step(model, tx, objective, microbatches=microbatches))
        state, metrics = step(pj.init_state(model.init(), tx, jax.random.key(0)), batch)
        return state.opt_state, metrics

    expected = run(whole)
    assert expected[1]["train/grad_norm"] > 0
    assert name == "all" or 0 < expected[1]["train/clip_fraction"] < 1
    for found in (run(packed, 2), run(whole, 4)):
        toy.assert_close(found, expected, rtol=1e-4)


def test_gspos_ratio_is_over_the_whole_response_where_few_of_its_tokens_have_an_advantage():
    """In the loss of packed rows as of whole ones; a response that is not trained on may hold anything."""
    objective, model = pj.GSPO(0.9, 0.9), toy.Toy()
    whole = toy.to_numpy(off_policy(PHASES["post"]))
    mask = whole.sequences.mask
    last = mask & (np.cumsum(mask, axis=1) == mask.sum(axis=1, keepdims=True)) & (np.arange(8) > 0)[:, None]
    old = np.where((np.arange(8) > 0)[:, None], whole.old_logprobs, np.nan)
    sparse = dataclasses.replace(whole, weights=last / 7, advantages=np.where(last, 2.0, 0.0), old_logprobs=old)
    log_rho = np.where(mask, pj.make_score(model)(model.init(), whole.sequences) - whole.old_logprobs, 0)
    ratios = np.exp(log_rho.sum(axis=1) / mask.sum(axis=1))[1:]
    assert (np.abs(log_rho.sum(axis=1) - log_rho.sum(axis=1, where=last))[1:] > 1e-3).any()
    packed = pj.pack(sparse, pj.plan_bins(sparse, objective, 24), 4, 24)
    loss = jax.jit(jax.value_and_grad(pj.make_loss(model, objective), has_aux=True))
    for batch in (sparse, packed):
        (value, sums), gradient = loss(model.init(), batch)
        np.testing.assert_allclose(value, -2 * ratios.mean(), rtol=1e-5)
        np.testing.assert_allclose(sums["ratio"], ratios.sum(), rtol=1e-5)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))


@pytest.mark.parametrize("name", ["gspo", "all"])
def test_an_empty_selection_changes_nothing(name):
    model, tx = toy.Toy(), pj.adamw(1.0)
    made = off_policy(PHASES["pre"])
    made = dataclasses.replace(made, weights=jnp.zeros_like(made.weights))
    state = pj.init_state(model.init(), tx, jax.random.key(0))
    after, metrics = jax.jit(pj.make_train_step(model, tx, OBJECTIVES[name]))(state, made)
    toy.assert_same_bits((after.params, after.opt_state), (state.params, state.opt_state))
    assert metrics["train/skipped"] == 1


FLOORED = [
    # advantage, log pi, whether it has no gradient for the floor at -2
    (-1.0, -1.9, 0),
    (-1.0, -2.0, 0),
    (-1.0, -2.1, 1),
    (-1.0, -9.0, 1),
    (+1.0, -9.0, 0),  # pushed up
    (0.0, -9.0, 0),
]


ONE_SEGMENT = pj.Sequences(*jnp.ones((3, 1, len(FLOORED)), jnp.int32), jnp.ones((1, len(FLOORED)), bool))


@pytest.mark.parametrize("inside", [pj.ClippedPG(), pj.Reinforce(), pj.GSPO()])
def test_improbable_tokens_get_no_further_gradient_downwards(inside):
    advantages, logprobs, floored = np.asarray(FLOORED, np.float32).T
    made = dataclasses.replace(batch_of(advantages), sequences=ONE_SEGMENT)
    plain, slope, _ = loss_and_gradient(inside, logprobs, made)
    loss, gradient, metrics = loss_and_gradient(pj.LogprobFloor(inside, -2.0), logprobs, made)
    np.testing.assert_array_equal(metrics["floored"], floored)
    np.testing.assert_array_equal(loss, plain)
    np.testing.assert_array_equal(gradient, np.where(floored, 0, slope))
    assert slope[3] != 0


def test_a_divergence_around_the_floor_holds_below_it():
    made = dataclasses.replace(batch_of([-1.0, -1.0]), ref_logprobs=jnp.asarray([[-1.0, -1.0]]))
    objective = pj.WithKL(pj.LogprobFloor(pj.Reinforce(), -2.0), 0.5, "k2")
    _, gradient, _ = loss_and_gradient(objective, [-1.5, -3.0], made)
    np.testing.assert_allclose(gradient, [1.0 + 0.5 * -0.5, 0.5 * -2.0])
