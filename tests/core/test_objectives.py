"""Per-token losses and where their gradient flows, against tables worked out by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import prerl_jax as pj
from prerl_jax.core.objectives import segment_mean

OBJECTIVE = pj.ClippedPG(clip_low=0.2, clip_high=0.3, dual_clip=3.0)
TABLE = [
    # advantage, ratio, loss, its derivative by log pi, clipped
    (+1, 0.5, -0.5, -0.5, 0),  # below the range and wanted: pushed up
    (+1, 0.9, -0.9, -0.9, 0),
    (+1, 1.0, -1.0, -1.0, 0),
    (+1, 1.25, -1.25, -1.25, 0),  # above 1 + low, below 1 + high
    (+1, 1.5, -1.3, 0.0, 1),  # risen enough: no gradient
    (-1, 0.5, 0.8, 0.0, 1),  # fallen enough: no gradient
    (-1, 0.75, 0.8, 0.0, 1),  # below 1 - low, above 1 - high
    (-1, 0.9, 0.9, 0.9, 0),
    (-1, 1.0, 1.0, 1.0, 0),
    (-1, 1.5, 1.5, 1.5, 0),  # above the range and unwanted: pushed down
    (-1, 2.9, 2.9, 2.9, 0),
    (-1, 5.0, 3.0, 0.0, 0),  # the dual clip
    (+1, 5.0, -1.3, 0.0, 1),  # is for negative advantages alone
    (+2, 0.5, -1.0, -1.0, 0),
    (-2, 5.0, 6.0, 0.0, 0),
    (0, 1.5, 0.0, 0.0, 0),
    (0, 0.5, 0.0, 0.0, 0),
]


def batch_of(advantages, old_logprobs=None):
    """A batch of one row of which an objective reads no more than this."""
    advantages = jnp.atleast_2d(jnp.asarray(advantages, jnp.float32))
    old = None if old_logprobs is None else jnp.broadcast_to(jnp.asarray(old_logprobs, jnp.float32), advantages.shape)
    return pj.Batch(sequences=None, weights=jnp.ones_like(advantages), advantages=advantages, old_logprobs=old)


def loss_and_gradient(objective, logprobs, batch):
    """(per-token loss, its derivative by each token's log-probability, metrics), one row each."""
    logprobs = jnp.atleast_2d(jnp.asarray(logprobs, jnp.float32))
    entropy = jnp.zeros_like(logprobs)
    loss, metrics = objective(logprobs, batch, entropy)
    gradient = jax.grad(lambda x: objective(x, batch, entropy)[0].sum())(logprobs)
    return loss[0], gradient[0], {name: value[0] for name, value in metrics.items()}


def test_clipped_loss_and_gradient():
    advantages, ratio, expected, derivative, clipped = np.asarray(TABLE, np.float32).T
    loss, gradient, metrics = loss_and_gradient(OBJECTIVE, -1 + np.log(ratio), batch_of(advantages, -1.0))
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, derivative, rtol=1e-6)
    np.testing.assert_allclose(metrics["ratio"], ratio, rtol=1e-6)
    np.testing.assert_array_equal(metrics["clip_fraction"], clipped)
    np.testing.assert_allclose(metrics["kl_old"], -np.log(ratio), atol=1e-6)


def test_without_a_dual_clip_the_loss_of_a_negative_advantage_has_no_bound():
    loss, gradient, _ = loss_and_gradient(pj.ClippedPG(dual_clip=None), jnp.log(50.0), batch_of(-1.0, 0.0))
    np.testing.assert_allclose([loss[0], gradient[0]], [50, 50], rtol=1e-6)


@pytest.mark.parametrize(("gap", "clamped"), [(25.0, 20.0), (-25.0, -20.0), (1e6, 20.0), (19.0, 19.0)])
def test_the_log_ratio_is_clamped(gap, clamped):
    objective = pj.ClippedPG(dual_clip=None)
    loss, gradient, metrics = loss_and_gradient(objective, gap - 30, batch_of(-1.0, -30.0))
    np.testing.assert_allclose(metrics["kl_old"], [-clamped], rtol=1e-6)
    np.testing.assert_allclose(loss, [max(np.exp(clamped), 0.8)], rtol=1e-5)
    np.testing.assert_allclose(gradient, [np.exp(19.0) if gap == 19 else 0], rtol=1e-5)


CISPO_TABLE = [
    # advantage, ratio, the weight of its log-probability: never 0, and on the same side for either sign
    (+1, 0.25, 0.5),
    (+1, 0.75, 0.75),
    (+1, 1.5, 1.5),
    (+1, 4.0, 3.0),
    (-1, 0.25, 0.5),
    (-1, 0.75, 0.75),
    (-1, 1.5, 1.5),
    (-1, 4.0, 3.0),
    (-2, 0.25, 0.5),
]


@pytest.mark.parametrize("low", [0.5, None])
def test_cispo_clips_the_weight_and_leaves_every_token_its_gradient(low):
    advantages, ratio, weight = np.asarray(CISPO_TABLE, np.float32).T
    weight = ratio.clip(0 if low is None else 0.5, 3)
    logprobs = -1 + np.log(ratio)
    loss, gradient, metrics = loss_and_gradient(pj.CISPO(low, 2.0), logprobs, batch_of(advantages, -1.0))
    np.testing.assert_allclose(loss, -advantages * weight * logprobs, rtol=1e-5)
    np.testing.assert_allclose(gradient, -advantages * weight, rtol=1e-6)
    np.testing.assert_array_equal(metrics["clip_fraction"], weight != ratio)
    np.testing.assert_allclose(metrics["ratio"], ratio, rtol=1e-6)


# One packed row: a segment of three tokens after one of prompt, one of two, one of one, padding. Mean log-ratios are
# log 1.5, -log 2 and 0; a token of the prompt and one that is not scored stand in between, whose ratios do not count.
SEGMENTS = [1, 1, 1, 1, 2, 2, 2, 3, 0]
MASK = [0, 1, 1, 1, 1, 1, 0, 1, 0]
LOG_RATIOS = np.log([9, 1.5**2, 1.5, 1, 0.25, 1, 100, 1, 7]).astype(np.float32)
TRAINED = np.asarray(MASK, bool)
MEANS = np.asarray([1.5, 1.5, 1.5, 1.5, 0.5, 0.5, 0.5, 1, 1])
GSPO_TABLE = [
    # advantages of the three segments; loss and derivative of their tokens at low 0.2, high 0.3
    ((+1, +1, +1), (-1.3, -0.5, -1), (0, -0.5, -1)),
    ((-1, -1, -1), (1.5, 0.8, 1), (1.5, 0, 1)),
    ((0, -2, 0), (0, 1.6, 0), (0, 0, 0)),
]


def packed_batch(advantages):
    rows = [jnp.asarray([x]) for x in (SEGMENTS, np.asarray(MASK, bool), TRAINED.astype(np.float32))]
    sequences = pj.Sequences(tokens=rows[0], positions=rows[0], segments=rows[0], mask=rows[1])
    by_token = jnp.asarray([[0, *advantages]], jnp.float32)[:, np.asarray(SEGMENTS)]
    return pj.Batch(sequences, rows[2], by_token, old_logprobs=jnp.full((1, 9), -1.0))


@pytest.mark.parametrize(("advantages", "losses", "slopes"), GSPO_TABLE)
def test_gspo_has_one_ratio_a_segment(advantages, losses, slopes):
    batch = packed_batch(advantages)
    loss, gradient, metrics = loss_and_gradient(pj.GSPO(0.2, 0.3), -1 + LOG_RATIOS, batch)
    np.testing.assert_allclose(metrics["ratio"][TRAINED], MEANS[TRAINED], rtol=1e-6)
    for found, expected in ((loss, losses), (gradient, slopes)):
        np.testing.assert_allclose(found[TRAINED], np.asarray([0, *expected])[SEGMENTS][TRAINED], rtol=1e-6, atol=1e-6)
    clipped = [bool(a) and m != 1 and (a > 0) == (m > 1) for a, m in zip(advantages, (1.5, 0.5, 1), strict=True)]
    np.testing.assert_array_equal(metrics["clip_fraction"][TRAINED], np.asarray([0, *clipped])[SEGMENTS][TRAINED])


def test_gspos_ratio_is_over_tokens_without_an_advantage_or_a_weight_too():
    """The last token of three alone has a weight, and one of two an advantage: each ratio is still the sequence's."""
    batch = packed_batch((1.0, 1.0, 1.0))
    one_each = np.isin(np.arange(9), (3, 5, 7))
    weights, advantages = batch.weights * one_each, batch.advantages.at[0, 4].set(0.0)
    sparse = dataclasses.replace(batch, weights=weights, advantages=advantages)
    _, _, metrics = loss_and_gradient(pj.GSPO(0.9, 0.9), -1 + LOG_RATIOS, sparse)
    np.testing.assert_allclose(metrics["ratio"][TRAINED], MEANS[TRAINED], rtol=1e-6)


def test_gspo_with_one_advantage_a_sequence_is_the_gradient_of_its_sequence_ratio():
    batch = packed_batch((1.0, -2.0, 0.5))
    chosen = jnp.asarray(TRAINED)
    segments = jnp.asarray(SEGMENTS)
    weights = jnp.where(chosen, 1 / jnp.asarray([1, 3, 2, 1])[segments], 0.0)

    def by_token(logprobs):
        return (weights * pj.GSPO(0.9, 0.9)(logprobs[None], batch, None)[0][0]).sum()

    def by_sequence(logprobs):
        total = 0.0
        for segment, advantage in ((1, 1.0), (2, -2.0), (3, 0.5)):
            own = chosen & (segments == segment)
            ratio = jnp.exp(jnp.where(own, logprobs + 1, 0).sum() / own.sum())
            total -= advantage * jnp.clip(ratio, 0.1, 1.9)
        return total

    logprobs = jnp.asarray(-1 + LOG_RATIOS)
    toy.assert_close(*(jax.value_and_grad(f)(logprobs) for f in (by_token, by_sequence)))


LOGPROBS, ADVANTAGES = [-0.1, -3.0, -20.0, -1e-3], [1.5, -0.7, -1.0, 0.0]


@pytest.mark.parametrize(
    "objective", [OBJECTIVE, pj.ClippedPG(clip_low=0, clip_high=0), pj.ClippedPG(dual_clip=None), pj.CISPO(0, 0)]
)
def test_on_policy_the_clipped_gradient_is_reinforces(objective):
    """Also at the very edge of the range, where low or high is 0."""
    loss, gradient, metrics = loss_and_gradient(objective, LOGPROBS, batch_of(ADVANTAGES))
    _, expected, _ = loss_and_gradient(pj.Reinforce(), LOGPROBS, batch_of(ADVANTAGES))
    np.testing.assert_array_equal(gradient, expected)
    if not isinstance(objective, pj.CISPO):
        np.testing.assert_array_equal(loss, -jnp.asarray(ADVANTAGES))
    np.testing.assert_array_equal(metrics["ratio"], np.ones(4))


@pytest.mark.parametrize("objective", [OBJECTIVE, pj.Reinforce(), pj.CISPO()])
def test_no_old_logprobs_are_the_current_ones_without_gradient(objective):
    ours = loss_and_gradient(objective, LOGPROBS, batch_of(ADVANTAGES))
    theirs = loss_and_gradient(objective, LOGPROBS, batch_of(ADVANTAGES, LOGPROBS))
    toy.assert_same_bits(ours, theirs)


def test_reinforce():
    loss, gradient, metrics = loss_and_gradient(pj.Reinforce(), [-2.0, -3.0, -4.0], batch_of([1.5, -0.5, 0], -2.0))
    np.testing.assert_allclose(loss, [3.0, -1.5, 0])
    np.testing.assert_allclose(gradient, [-1.5, 0.5, 0])
    np.testing.assert_allclose(metrics["ratio"], np.exp([0.0, -1.0, -2.0]), rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clip_low": -0.1}, "got clip_low=-0.1"),
        ({"clip_low": 1.0}, "got clip_low=1.0"),
        ({"clip_high": -0.1}, "clip_high=-0.1"),
    ],
)
@pytest.mark.parametrize("objective", [pj.ClippedPG, pj.GSPO, pj.CISPO])
def test_settings_that_make_no_sense_are_refused(objective, settings, message):
    with pytest.raises(ValueError, match=f"{objective.__name__} needs .*{message}"):
        objective(**settings)


def test_a_dual_clip_that_would_cut_the_ratio_1_is_refused():
    with pytest.raises(ValueError, match=r"must exceed 1, got 1.0"):
        pj.ClippedPG(dual_clip=1.0)


@pytest.mark.parametrize("objective", [pj.ClippedPG(), pj.Reinforce(), pj.CISPO(), pj.TruncatedIS(pj.CISPO())])
def test_objectives_that_are_zero_without_an_advantage_say_so(objective):
    assert objective.traits.skips_zero_advantage
    batch = dataclasses.replace(batch_of([0.0] * 4, -1.0), sampler_logprobs=jnp.full((1, 4), -1.0))
    loss, gradient, _ = loss_and_gradient(objective, LOGPROBS, batch)
    np.testing.assert_array_equal(loss, np.zeros(4))
    np.testing.assert_array_equal(gradient, np.zeros(4))


ROWS = jnp.asarray([[0, 1, 1, 2, 2, 2], [1, 1, 2, 3, 4, 0]])
CHOSEN = jnp.asarray([[1, 1, 1, 0, 1, 1], [0, 1, 0, 1, 1, 1]], bool)
VALUES = jnp.asarray([[9, 1, 2, jnp.nan, 5, 7], [jnp.inf, 4, 5, 6, 7, 8.0]])


def test_the_mean_of_a_segment_at_each_of_its_tokens():
    found = jax.jit(segment_mean)(VALUES, ROWS, CHOSEN)
    np.testing.assert_allclose(found, [[0, 1.5, 1.5, 6, 6, 6], [4, 4, 0, 6, 7, 0]])
    one_each = jnp.arange(1, 7) * jnp.ones((2, 1), int)
    np.testing.assert_allclose(segment_mean(VALUES, one_each, CHOSEN), jnp.where(CHOSEN, VALUES, 0))


def test_gradients_of_segment_means_flow_to_the_chosen_tokens_alone():
    gradient = jax.grad(lambda x: (segment_mean(x, ROWS, CHOSEN) ** 2).sum())(VALUES)
    # the sum over a segment of n tokens, c of them chosen, of m^2: 2 n m / c for a chosen one
    np.testing.assert_allclose(gradient, [[0, 3, 3, 0, 18, 18], [0, 16, 0, 12, 14, 0]])
