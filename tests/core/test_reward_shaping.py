"""Penalties of length and of divergence, and the filter of truncated responses, against tables worked out by hand."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import toy

import prerl_jax as pj

LENGTHS = [0, 1, 6, 7, 8, 9, 10]
RIGHT = dataclasses.replace(
    toy.rollouts(prompts=1, group_size=7, response=10),
    response_mask=jnp.arange(10) < jnp.asarray(LENGTHS)[:, None],
    rewards=jnp.ones(7),
)
PENALTIES = [
    (pj.OverlongPenalty(4), [0, 0, 0, 0.25, 0.5, 0.75, 1]),
    (pj.OverlongPenalty(4, penalty=0.5), [0, 0, 0, 0.125, 0.25, 0.375, 0.5]),
    (pj.OverlongPenalty(1), [0, 0, 0, 0, 0, 0, 1]),
    (pj.OverlongPenalty(2, limit=8), [0, 0, 0, 0.5, 1, 1, 1]),
    (pj.OverlongPenalty(10), [0, 0.1, 0.6, 0.7, 0.8, 0.9, 1]),
]


@pytest.mark.parametrize(("shaping", "taken"), PENALTIES)
def test_overlong_penalty(shaping, taken):
    np.testing.assert_allclose(shaping(RIGHT, 10), 1 - np.asarray(taken), rtol=1e-6)


@pytest.mark.parametrize("settings", [{"buffer": 0}, {"buffer": 4, "limit": 3}, {"buffer": 4, "penalty": 0.0}])
def test_penalties_that_make_no_sense_are_refused(settings):
    with pytest.raises(ValueError, match="buffer >= 1, penalty > 0 and limit >= buffer, got buffer="):
        pj.OverlongPenalty(**settings)


@pytest.mark.parametrize("shaping", [pj.OverlongPenalty(11), pj.OverlongPenalty(2, limit=11)])
def test_a_penalty_beyond_the_responses_is_refused(shaping):
    with pytest.raises(ValueError, match="does not fit responses of at most 10 tokens"):
        shaping(RIGHT, 10)


def test_truncated_responses_are_not_kept_but_are_compared_with():
    rollouts = dataclasses.replace(toy.rollouts(prompts=1), truncated=jnp.asarray([False, True, False, False]))
    for advantage in (pj.GroupRelative(), pj.GroupRelative(keep="negative"), pj.BinaryAdvantage()):
        advantages, keep = advantage(rollouts, 4)
        wrapped = pj.DropTruncated(advantage)
        toy.assert_same_bits(wrapped(rollouts, 4), (advantages, keep & ~rollouts.truncated))
        assert wrapped.traits == advantage.traits
    with pytest.raises(ValueError, match=r"reads Rollouts.truncated, bool\[B\], and it is None"):
        pj.DropTruncated(pj.BinaryAdvantage())(toy.rollouts(), 4)


def test_the_filter_works_on_advantages_by_token():
    rollouts = dataclasses.replace(toy.rollouts(prompts=1), truncated=jnp.asarray([False, True, False, False]))
    values, estimator = jnp.ones(rollouts.response.shape), pj.DropTruncated(pj.GAE())
    advantages, keep = estimator(rollouts, 4, values)
    np.testing.assert_array_equal(advantages, pj.GAE()(rollouts, 4, values)[0])
    np.testing.assert_array_equal(keep, ~rollouts.truncated)
    np.testing.assert_array_equal(estimator.targets(rollouts, values), pj.GAE().targets(rollouts, values))
    assert estimator.traits == pj.AdvantageTraits(needs_values=True)
    with pytest.raises(ValueError, match="needs a critic's values"):
        estimator(rollouts, 4)


OLD = jnp.asarray([[-1.0, -2.0, 9.0], [-1.0, 9.0, 9.0]])  # 9: outside of the responses
FAR = jnp.asarray([[-1.5, -2.0, 0.0], [-3.0, 0.0, 0.0]])
TWO = dataclasses.replace(
    toy.rollouts(prompts=1, group_size=2, response=3),
    response_mask=jnp.asarray([[True, True, False], [True, False, False]]),
    rewards=jnp.ones(2),
)


@pytest.mark.parametrize(
    ("shaping", "expected"),
    [
        (pj.KLPenalty(0.1), [[-0.05, 1, 0], [0.8, 0, 0]]),
        (pj.KLPenalty(0.1, "k2"), [[-0.0125, 1, 0], [0.8, 0, 0]]),
        (pj.KLPenalty(0.0), [[0, 1, 0], [1, 0, 0]]),
        (pj.KLPenalty(0.1, reward_shaping=pj.OverlongPenalty(2)), [[-0.05, 0.5, 0], [0.8, 0, 0]]),
    ],
)
def test_kl_penalty(shaping, expected):
    np.testing.assert_allclose(shaping(TWO, 3, logprobs=OLD, reference=FAR), expected, atol=1e-6)


def test_an_estimator_by_response_sees_the_sum_of_the_penalties_and_one_by_token_each_of_them():
    """In P(y) as in P(y|x): the response is the end of the row."""
    for space in (pj.PostTrainSpace(), pj.PreTrainSpace(0), pj.PreTrainSpace(None)):
        before = space(TWO).tokens.shape[1] - 3
        given = {n: jnp.pad(x, [(0, 0), (before, 0)]) for n, x in (("old_logprobs", OLD), ("ref_logprobs", FAR))}
        for advantage, expected in (
            (pj.ConstantBaseline(), [[0.95, 0.95], [0.8]]),
            (pj.GAE(1.0, 1.0, normalize=False), [[0.95, 1.0], [0.8]]),
        ):
            phase = pj.Phase("p", 1, space, advantage, reward_shaping=pj.KLPenalty(0.1))
            more = {"values": jnp.zeros((2, 3))} if phase.value_advantage else {}
            batch = pj.make_prepare(phase, 2)(TWO, **given, **more)
            found = batch.advantages[:, before:]
            for row, values in enumerate(expected):
                skipped = before == 0  # without a prefix the first token is not scored
                np.testing.assert_allclose(found[row, skipped : len(values)], values[skipped:], atol=1e-6)
            if phase.value_advantage:
                np.testing.assert_allclose(batch.critic.targets[:, -3:], [[0.95, 1, 0], [0.8, 0, 0]], atol=1e-6)


def test_a_penalty_counts_on_trained_tokens_alone():
    masked = dataclasses.replace(TWO, loss_mask=jnp.asarray([[True, False, True], [True, True, True]]))
    found = pj.KLPenalty(0.1)(masked, 3, logprobs=OLD, reference=FAR)
    np.testing.assert_allclose(found, [[0.95, 0, 0], [0.8, 0, 0]], atol=1e-6)
    with pytest.raises(ValueError, match="needs logprobs and reference"):
        pj.KLPenalty(0.1)(masked, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": -0.1}, "beta >= 0, got 'k1' and -0.1"),
        ({"beta": 0.1, "estimator": "unbiased"}, "got 'unbiased'"),
        ({"beta": 0.1, "reward_shaping": pj.KLPenalty(0.1)}, "wraps a reward shaping that needs no reference"),
        ({"beta": 0.1, "reward_shaping": len}, "traits is None, and must be of the class RewardShapingTraits"),
    ],
)
def test_kl_penalties_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        pj.KLPenalty(**settings)
