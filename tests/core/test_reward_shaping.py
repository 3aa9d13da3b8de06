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
    (pj.OverlongPenalty(4), [0, 0, 0, 0.125, 0.25, 0.375, 0.5]),
    (pj.OverlongPenalty(4, penalty=1.0), [0, 0, 0, 0.25, 0.5, 0.75, 1]),
    (pj.OverlongPenalty(1), [0, 0, 0, 0, 0, 0, 0.5]),
    (pj.OverlongPenalty(2, limit=8, penalty=1.0), [0, 0, 0, 0.5, 1, 1, 1]),
    (pj.OverlongPenalty(10, penalty=1.0), [0, 0.1, 0.6, 0.7, 0.8, 0.9, 1]),
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
    assert estimator.traits == pj.GAE().traits
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
        (pj.KLPenalty(0.1, reward_shaping=pj.OverlongPenalty(2)), [[-0.05, 0.75, 0], [0.8, 0, 0]]),
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


def group(rewards, lengths):
    """One group with these rewards and lengths, of responses of at most 7 tokens."""
    rollouts = toy.rollouts(prompts=1, group_size=4, response=7)
    mask = jnp.arange(7) < jnp.asarray(lengths)[:, None]
    return dataclasses.replace(rollouts, response_mask=mask, rewards=jnp.asarray(rewards, jnp.float32))


def advantages_of(phase, rollouts, **given):
    """[4, 7], of the response tokens."""
    return pj.make_prepare(phase, 4)(rollouts, **given).advantages[:, 3:]


def test_the_advantages_of_dapo_are_the_papers():
    """Rewards of 1 and 0 have half the penalty of 1 and -1, and so the same advantages: none of a right one is below 0.

    Shaped rewards are 1, 0.5, 0, 0: their mean is 0.375, their deviation (0.6875 / 3) ** 0.5 = 0.4787.
    """
    (dapo,) = pj.dapo(steps=1, overlong_buffer=3)
    rollouts = group([1, 1, 0, 0], [4, 7, 3, 3])
    found = advantages_of(dapo, rollouts)[:, 0]
    np.testing.assert_allclose(found, np.asarray([0.625, 0.125, -0.375, -0.375]) / (0.6875 / 3) ** 0.5, rtol=1e-5)
    np.testing.assert_allclose(found, [1.31, 0.26, -0.78, -0.78], atol=0.005)
    signs = dataclasses.replace(dapo, reward_shaping=pj.OverlongPenalty(3, penalty=1.0))
    np.testing.assert_allclose(advantages_of(signs, group([1, 1, -1, -1], [4, 7, 3, 3]))[:, 0], found, rtol=1e-5)


LEFT_OVER = [
    # rewards, lengths, known; groups of equal rewards after the last resampling draw
    ([0, 0, 0, 0], [7, 7, 6, 3], [1, 1, 1, 1]),
    ([1, 1, 1, 1], [7, 5, 6, 3], [1, 1, 1, 1]),
    ([0, 1, 0, 0], [7, 7, 6, 3], [1, 0, 1, 1]),  # by the known rewards
]


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize(("rewards", "lengths", "known"), LEFT_OVER)
def test_a_group_of_equal_rewards_that_found_no_replacement_has_no_advantage(rewards, lengths, known, filtered):
    (dapo,) = pj.dapo(steps=1, overlong_buffer=3, filter_truncated=filtered)
    rollouts = group(rewards, lengths)
    rollouts = dataclasses.replace(rollouts, known=jnp.asarray(known, bool), truncated=rollouts.response_mask[:, 6])
    np.testing.assert_array_equal(advantages_of(dapo, rollouts), np.zeros((4, 7)))
    once = dataclasses.replace(dapo, max_resamples=0)
    assert (advantages_of(once, rollouts) != 0).any(), "without resampling, length is a lesson of its own"


def test_in_such_a_group_a_divergence_counts_and_the_penalty_within_it_does_not():
    rollouts, mixed = group([0, 0, 0, 0], [7, 7, 6, 3]), group([1, 0, 0, 0], [7, 7, 6, 3])
    far = jnp.zeros((4, 10)).at[0, 3].set(-0.4)
    given = {"old_logprobs": jnp.zeros((4, 10)), "ref_logprobs": far}
    both = pj.KLPenalty(0.5, reward_shaping=pj.OverlongPenalty(3))
    phase = pj.Phase("p", 1, advantage=pj.GroupRelative(False), reward_shaping=both, max_resamples=1)
    found = advantages_of(phase, rollouts, **given)
    np.testing.assert_allclose(found[:, 0], [-0.15, 0.05, 0.05, 0.05], rtol=1e-5)  # -0.2, 0, 0, 0
    shaped = np.asarray([1 - 0.5 - 0.2, -0.5, -1 / 3, 0])
    np.testing.assert_allclose(advantages_of(phase, mixed, **given)[:, 0], shaped - shaped.mean(), rtol=1e-5)


@dataclasses.dataclass(frozen=True)
class ByToken:
    """A penalty of one's own on every token of a response."""

    traits = pj.RewardShapingTraits()

    def __call__(self, rollouts, response_length):
        return jnp.where(rollouts.response_mask, rollouts.rewards[:, None] - 0.1, 0.0)


def test_nor_does_a_penalty_by_token():
    phase = pj.Phase("p", 1, reward_shaping=ByToken(), max_resamples=1)
    rollouts = group([0, 0, 0, 0], [7, 7, 6, 3])
    np.testing.assert_array_equal(advantages_of(phase, rollouts), np.zeros((4, 7)))
    assert (advantages_of(dataclasses.replace(phase, max_resamples=0), rollouts) != 0).any()
