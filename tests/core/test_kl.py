"""Divergences by token: their expectations, and those of their gradients, by enumeration of a vocabulary of three."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prerl_jax.core.kl import ESTIMATORS, divergence
from prerl_jax.core.reward_shaping import reward_with_kl

LOGITS, REFERENCE = jnp.asarray([0.3, -1.2, 0.8]), jnp.asarray([1.0, 0.1, -0.7])
REF = jax.nn.log_softmax(REFERENCE)


def forward_kl(logits):
    """KL(pi || ref)."""
    logprobs = jax.nn.log_softmax(logits)
    return jnp.sum(jnp.exp(logprobs) * (logprobs - REF))


def backward_kl(logits):
    """KL(ref || pi)."""
    return jnp.sum(jnp.exp(REF) * (REF - jax.nn.log_softmax(logits)))


def expected(estimator, logits, old):
    """The mean of an estimator over tokens drawn from the policy of logits `old`."""
    logprobs, drawn_from = jax.nn.log_softmax(logits), jax.nn.log_softmax(old)
    return jnp.sum(jnp.exp(drawn_from) * divergence(estimator, logprobs, REF, logprobs - drawn_from))


def second_moment(logits):
    logprobs = jax.nn.log_softmax(logits)
    return jnp.sum(jnp.exp(logprobs) * (logprobs - REF) ** 2) / 2


VALUES = {"k1": forward_kl, "k2": second_moment, "k3": forward_kl, "unbiased": forward_kl}
GRADIENTS = {"k1": lambda x: 0.0 * x.sum(), "k2": forward_kl, "k3": backward_kl, "unbiased": forward_kl}


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_on_policy(estimator):
    value, gradient = jax.value_and_grad(expected, argnums=1)(estimator, LOGITS, LOGITS)
    np.testing.assert_allclose(value, VALUES[estimator](LOGITS), rtol=1e-5)
    np.testing.assert_allclose(gradient, jax.grad(GRADIENTS[estimator])(LOGITS), atol=1e-6)


def test_off_policy_the_unbiased_form_alone_is_unbiased():
    old = jnp.asarray([-0.4, 0.9, 0.2])
    truth = jax.value_and_grad(forward_kl)(LOGITS)
    for estimator in ESTIMATORS:
        found = jax.value_and_grad(expected, argnums=1)(estimator, LOGITS, old)
        close = [np.allclose(ours, theirs, atol=1e-6) for ours, theirs in zip(found, truth, strict=True)]
        assert close == [estimator == "unbiased"] * 2, estimator


TABLE = [
    # log pi - log ref, k1, k2, k3, their derivatives by log pi
    (0.0, (0, 0, 0, 0), (1, 0, 0, 0)),
    (np.log(2), (np.log(2), np.log(2) ** 2 / 2, np.log(2) - 0.5, np.log(2) - 0.5), (1, np.log(2), 0.5, np.log(2))),
    (-np.log(2), (-np.log(2), np.log(2) ** 2 / 2, 1 - np.log(2), 1 - np.log(2)), (1, -np.log(2), -1, -np.log(2))),
]


@pytest.mark.parametrize(("difference", "values", "slopes"), TABLE)
def test_by_token(difference, values, slopes):
    for estimator, value, slope in zip(ESTIMATORS, values, slopes, strict=True):
        found = jax.value_and_grad(divergence, argnums=1)(estimator, difference - 2.0, -2.0)
        np.testing.assert_allclose(found, (value, slope), atol=1e-6)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_token_of_almost_no_probability_stays_finite_and_is_never_pushed_further_down(estimator):
    value, slope = jax.value_and_grad(divergence, argnums=1)(estimator, -1000.0, -1.0)
    assert np.isfinite(value)
    assert np.isfinite(slope)
    assert slope <= 0 or estimator == "k1"  # descent raises log pi
    assert divergence(estimator, -1.0, -1000.0) >= 0


def test_small_differences_are_not_lost_to_rounding():
    np.testing.assert_allclose(divergence("k3", 1e-3 - 1.0, -1.0), 5e-7, rtol=1e-3)


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match=r"one of .*'unbiased'.* got 'kl'"):
        divergence("kl", 0.0, 0.0)


def test_in_the_reward():
    mask = jnp.asarray([[1, 1, 1], [1, 0, 0]], bool)
    logprobs = jnp.asarray([[-1.0, -2.0, -3.0], [-1.0, jnp.nan, jnp.inf]])
    reference = jnp.asarray([[-1.5, -2.0, -1.0], [-2.0, 0, 0]])
    found = reward_with_kl(jnp.asarray([1.0, 0.0]), mask, logprobs, reference, 0.1)
    np.testing.assert_allclose(found, [[-0.05, 0, 1.2], [-0.1, 0, 0]], atol=1e-6)
    with pytest.raises(ValueError, match=r"in the reward has an estimator of \('k1', 'k2', 'k3'\), got 'unbiased'"):
        reward_with_kl(jnp.zeros(2), mask, logprobs, reference, 0.1, "unbiased")
