"""GAE, whitening and the critic's loss against tables worked out by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import prerl_jax as pj
from prerl_jax.core.critic import clipped_value_loss
from prerl_jax.core.gae import gae, whiten
from prerl_jax.core.reward_shaping import reward_on_last_token

MASK = jnp.asarray([[1, 1, 1], [1, 1, 0], [0, 0, 0]], bool)
REWARDS = jnp.asarray([[0, 0, 1], [0, -1, 9], [9, 9, 9]], jnp.float32)
VALUES = jnp.asarray([[0.5, 0.25, 0.75], [0.5, 0.5, 9], [9, 9, 9]], jnp.float32)
# delta at gamma 1: row 0: 0 + .25 - .5, 0 + .75 - .25, 1 + 0 - .75;  row 1: 0 + .5 - .5, -1 + 0 - .5
TABLE = [
    (1.0, 1.0, [[0.5, 0.75, 0.25], [-1.5, -1.5, 0], [0, 0, 0]]),  # the return minus the value
    (1.0, 0.0, [[-0.25, 0.5, 0.25], [0, -1.5, 0], [0, 0, 0]]),  # delta
    (1.0, 0.5, [[-0.25 + 0.5 * 0.625, 0.5 + 0.125, 0.25], [-0.75, -1.5, 0], [0, 0, 0]]),
    # at gamma 1/2 delta is  0 + .125 - .5, 0 + .375 - .25, .25  and  0 + .25 - .5, -1.5; gamma lambda is 1/4
    (0.5, 0.5, [[-0.375 + 0.1875 / 4, 0.125 + 0.25 / 4, 0.25], [-0.25 - 1.5 / 4, -1.5, 0], [0, 0, 0]]),
    (0.0, 1.0, [[-0.5, -0.25, 0.25], [-0.5, -1.5, 0], [0, 0, 0]]),
]


@pytest.mark.parametrize(("gamma", "lam", "expected"), TABLE)
def test_gae(gamma, lam, expected):
    advantages, targets = gae(REWARDS, VALUES, MASK, gamma, lam)
    np.testing.assert_allclose(advantages, expected, atol=1e-6)
    np.testing.assert_allclose(targets, np.where(MASK, expected + np.asarray(VALUES), 0), atol=1e-6)


def test_gae_of_a_long_response_is_the_recursion():
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(2, 2, 300)).astype(np.float32)
    mask = np.arange(300) < np.asarray([[300], [177]])
    expected, following, value = np.zeros((2, 300)), np.zeros(2), np.zeros(2)
    for t in reversed(range(300)):
        delta = rewards[:, t] + 0.99 * value - values[:, t]
        following = np.where(mask[:, t], delta + 0.99 * 0.95 * following, 0)
        value = np.where(mask[:, t], values[:, t], 0)
        expected[:, t] = following
    found, _ = jax.jit(gae, static_argnums=(3, 4))(rewards, values, mask, 0.99, 0.95)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_reward_stands_on_the_last_token():
    found = reward_on_last_token(jnp.asarray([2.0, 3.0, 4.0]), MASK)
    np.testing.assert_array_equal(found, [[0, 0, 2], [0, 3, 0], [0, 0, 0]])


def test_whitened_values():
    values = jnp.asarray([[1, 2, 3], [6, 8, jnp.nan], [jnp.inf, 5, 5]])
    found = whiten(values, MASK)  # 1, 2, 3, 6, 8: mean 4, variance 34 / 4
    expected = np.asarray([[-3, -2, -1], [2, 4, 0], [0, 0, 0]]) / (8.5**0.5 + 1e-6)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    for constant in (0.1, 1 / 3, 123456.789):
        np.testing.assert_array_equal(whiten(jnp.full((3, 3), constant), MASK), np.zeros((3, 3)))
    np.testing.assert_array_equal(whiten(values, MASK & False), np.zeros((3, 3)))


VALUE_LOSSES = [
    # value, old, target, loss at clip 0.2, its derivative by the value
    (1.0, 1.0, 2.0, 0.5, -1.0),
    (1.1, 1.0, 2.0, 0.405, -0.9),
    (1.5, 1.0, 2.0, 0.32, 0.0),  # moved enough, in the right direction: the loss is that of 1.2
    (0.5, 1.0, 2.0, 1.125, -1.5),  # moved away: the loss is its own
    (2.5, 1.0, 2.0, 0.32, 0.0),  # 1.2 is further off than 2.5
    (4.0, 1.0, 2.0, 2.0, 2.0),  # 4 is further off than 1.2
]


@pytest.mark.parametrize(("value", "old", "target", "loss", "slope"), VALUE_LOSSES)
def test_clipped_value_loss(value, old, target, loss, slope):
    found = jax.value_and_grad(clipped_value_loss)(value, old, target, 0.2)
    np.testing.assert_allclose(found, (loss, slope), atol=1e-6)
    found = jax.value_and_grad(clipped_value_loss)(value, old, target, None)
    np.testing.assert_allclose(found, ((value - target) ** 2 / 2, value - target), atol=1e-6)


def test_a_value_that_has_not_moved_has_its_whole_gradient_at_any_clip():
    assert jax.grad(clipped_value_loss)(1.0, 1.0, 2.0, 0.0) == -1


def test_the_estimator():
    rollouts = toy.rollouts()
    mask = rollouts.response_mask
    values = jnp.where(mask, 0.25, jnp.nan)
    advantages, keep = pj.GAE(lam=1.0, normalize=False)(rollouts, 4, values)
    np.testing.assert_allclose(advantages, np.where(mask, rollouts.rewards[:, None] - 0.25, 0))
    assert keep.all()
    normal, _ = pj.GAE(lam=1.0)(rollouts, 4, values)
    np.testing.assert_allclose(normal, whiten(advantages, mask))
    with pytest.raises(ValueError, match=r"needs a critic's values .* GroupRelative\(\)"):
        pj.GAE()(rollouts, 4)


def test_tokens_outside_the_loss_mask_are_skipped():
    """The reward counts at the last trained token, and the next value is that of the next trained token."""
    rollouts = dataclasses.replace(
        toy.rollouts(prompts=1, group_size=2, response=4),
        response_mask=jnp.asarray([[1, 1, 1, 1], [1, 1, 1, 0]], bool),
        loss_mask=jnp.asarray([[1, 0, 0, 1], [1, 1, 0, 1]], bool),
        rewards=jnp.ones(2),
    )
    values = jnp.asarray([[0.5, 9, 9, 0.25], [0.5, 0.5, 9, 9]])
    # gamma = lambda = 1/2. Row 0: delta is 0.125 - 0.5 and 1 - 0.25; row 1: 0.25 - 0.5 and 1 - 0.5.
    expected = np.asarray([[-0.375 + 0.75 / 4, 0, 0, 0.75], [-0.25 + 0.5 / 4, 0.5, 0, 0]])
    estimator = pj.GAE(0.5, 0.5, normalize=False)
    np.testing.assert_allclose(jax.jit(estimator, static_argnums=1)(rollouts, 2, values)[0], expected, atol=1e-6)
    targets = [[0.3125, 0, 0, 1], [0.375, 1, 0, 0]]
    np.testing.assert_allclose(estimator.targets(rollouts, values), targets, atol=1e-6)
    trained = expected[expected != 0]
    whitened = np.where(expected, (expected - trained.mean()) / (trained.std(ddof=1) + 1e-6), 0)
    np.testing.assert_allclose(pj.GAE(0.5, 0.5)(rollouts, 2, values)[0], whitened, rtol=1e-5)
    whole = dataclasses.replace(rollouts, loss_mask=rollouts.response_mask)
    unmasked = dataclasses.replace(rollouts, loss_mask=None)
    toy.assert_close(*(estimator.estimate(r, values) for r in (whole, unmasked)), rtol=1e-6)


@pytest.mark.parametrize("settings", [{"gamma": 1.1}, {"lam": -0.1}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ValueError, match=r"gamma and lam in \[0, 1\], got gamma="):
        pj.GAE(**settings)
