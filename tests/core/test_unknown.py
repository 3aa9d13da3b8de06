"""Responses with an unknown verdict: left out of every mean, of the selection, of the weights and of the critic."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import prerl_jax as pj
from prerl_jax.core.gae import whiten
from prerl_jax.core.grouping import equal_groups, response_rewards

# Three groups of four: one of 1, 0, 0; one of a single known response; one of equal rewards. "?" is unknown.
KNOWN = np.asarray([1, 0, 1, 1, 0, 1, 0, 0, 0, 1, 1, 1], bool)
REWARDS = np.asarray([1, 9, 0, 0, 9, 1, 9, 9, 9, 0.1, 0.1, 0.1], np.float32)
NOTHING = [0] * 8
STD = (1 / 3) ** 0.5  # of 1, 0, 0
BATCH_MEAN, BATCH_STD = 2.3 / 7, (2.03 - 2.3**2 / 7) ** 0.5 / 6**0.5  # of 1, 0, 0, 1, 0.1, 0.1, 0.1
TABLE = [
    (pj.GroupRelative(False), [2 / 3, 0, -1 / 3, -1 / 3, *NOTHING]),
    (pj.GroupRelative(), np.asarray([2 / 3, 0, -1 / 3, -1 / 3, *NOTHING]) / (STD + 1e-6)),
    (pj.LeaveOneOut(), [1, 0, -0.5, -0.5, *NOTHING]),
    (pj.BatchNormalized(), np.where(KNOWN, (REWARDS - BATCH_MEAN) / BATCH_STD, 0)),
    (pj.BatchNormalized(True), [2, 0, -1, -1, *NOTHING]),  # 2/3, -1/3, -1/3 and four times 0: their deviation is 1/3
    (pj.ConstantBaseline(0.5), np.where(KNOWN, REWARDS - 0.5, 0)),
    (pj.BinaryAdvantage(), [1, 0, -1, -1, 0, 1, 0, 0, 0, -1, -1, -1]),
]


def unknown(rewards=REWARDS, known=KNOWN):
    return dataclasses.replace(toy.rewarded(rewards), known=jnp.asarray(known))


@pytest.mark.parametrize(("advantage", "expected"), TABLE)
def test_advantages_are_those_of_the_known_responses(advantage, expected):
    found, kept = advantage(unknown(), 4)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert ((found == 0) == (np.asarray(expected) == 0)).all(), "a zero is exactly 0"
    np.testing.assert_array_equal(kept, KNOWN)
    for reward in (np.nan, 1e9, -np.inf):
        toy.assert_same_bits(advantage(unknown(np.where(KNOWN, REWARDS, reward)), 4), (found, kept))
    for keep, selected in (("negative", found < 0), ("positive", found > 0)):
        toy.assert_same_bits(dataclasses.replace(advantage, keep=keep)(unknown(), 4), (found, selected))


@pytest.mark.parametrize("advantage", [advantage for advantage, _ in TABLE])
def test_where_all_are_known_nothing_changes(advantage):
    plain = toy.rewarded(REWARDS)
    given = dataclasses.replace(plain, known=jnp.ones(12, bool), right=plain.rewards >= 1)
    toy.assert_same_bits(advantage(given, 4), advantage(plain, 4))


def test_fewer_than_two_known_responses_teach_nothing():
    none, one_a_group, one = np.zeros(12, bool), np.arange(12) % 4 == 2, np.arange(12) == 5
    for known, advantages in (
        (none, [advantage for advantage, _ in TABLE]),
        (one_a_group, [pj.GroupRelative(), pj.GroupRelative(False), pj.LeaveOneOut(), pj.BatchNormalized(True)]),
        (one, [pj.BatchNormalized()]),
    ):
        for advantage in advantages:
            found, kept = advantage(unknown(REWARDS, known), 4)
            np.testing.assert_array_equal(found, np.zeros(12))
            np.testing.assert_array_equal(kept, known)


def test_equal_known_rewards_have_no_advantage_whatever_the_rounding():
    """Also in a long group whose first response is unknown, with a reward that is far from the others."""
    for constant in (0.1, 1 / 3, 123456.789):
        known = np.arange(4099) % 5 != 0
        for reward in (-7.0, np.nan):
            rollouts = unknown(np.where(known, constant, reward), known)
            for advantage in (pj.GroupRelative(), pj.LeaveOneOut(), pj.BatchNormalized(), pj.BatchNormalized(True)):
                np.testing.assert_array_equal(advantage(rollouts, 4099)[0], np.zeros(4099))


def test_binary_advantages_are_those_of_the_verdict_whatever_the_reward_is():
    rollouts = dataclasses.replace(
        unknown([0.2, 5.0, -1.0, np.nan], [True, True, True, False]), right=jnp.asarray([True, False, True, True])
    )
    for keep, kept in (("all", [1, 1, 1, 0]), ("negative", [0, 1, 0, 0]), ("positive", [1, 0, 1, 0])):
        found, keeps = pj.BinaryAdvantage(0.1, 2.0, keep)(rollouts, 4)
        np.testing.assert_allclose(found, [0.1, -2.0, 0.1, 0])
        np.testing.assert_array_equal(keeps, np.asarray(kept, bool))
    np.testing.assert_array_equal(rollouts.right_mask, [True, False, True, False])


def test_groups_are_equal_by_their_known_rewards():
    np.testing.assert_array_equal(equal_groups(unknown(), 4), [False] * 4 + [True] * 8)
    np.testing.assert_array_equal(equal_groups(toy.rewarded(REWARDS), 4), [False] * 12)


VALUES = jnp.asarray(np.random.default_rng(3).normal(size=(8, 5)), jnp.float32)
SOME = np.asarray([1, 1, 0, 1, 0, 1, 1, 1], bool)


def sampled(reward=np.nan, known=SOME, **fields):
    """Two groups of four. The responses with an unknown verdict, one in each group, have this reward."""
    rollouts = toy.rollouts()
    rewards = jnp.where(known, rollouts.rewards, reward)
    return dataclasses.replace(rollouts, rewards=rewards, known=jnp.asarray(known), **fields)


def test_gae_whitens_over_the_tokens_of_known_responses():
    rollouts, known = sampled(), SOME[:, None]
    estimator = pj.GAE(0.9, 0.8)
    found, keep = estimator(rollouts, 4, VALUES)
    plain, _ = pj.GAE(0.9, 0.8, normalize=False)(toy.rollouts(), 4, VALUES)
    np.testing.assert_allclose(found, whiten(plain, rollouts.response_mask & known), rtol=1e-6)
    np.testing.assert_array_equal(keep, SOME)
    np.testing.assert_allclose(
        estimator.targets(rollouts, VALUES), np.where(known, estimator.targets(toy.rollouts(), VALUES), 0), rtol=1e-6
    )


@dataclasses.dataclass(frozen=True)
class OwnMean:
    """An estimator of a user's that knows nothing of verdicts."""

    traits = pj.AdvantageTraits(compares_group=True)

    def __call__(self, rollouts, group_size, values=None):
        grouped = rollouts.rewards.reshape(-1, group_size)
        return (grouped - grouped.mean(axis=1, keepdims=True)).reshape(-1), jnp.ones(len(rollouts.rewards), bool)


PPO = {"advantage": pj.GAE(lam=0.9), "reward_shaping": pj.KLPenalty(0.1), "reference": pj.InitialModel()}
PHASES = {
    "grpo": {},
    "negatives of two spaces": {"terms": pj.mixed(steps=1, prefix=0)[0].terms},
    "nsr": {"advantage": pj.BinaryAdvantage(keep="negative")},
    "truncated": {"advantage": pj.DropTruncated(pj.LeaveOneOut()), "aggregation": pj.SequenceMeanTokenSumNorm()},
    "overlong": {"reward_shaping": pj.OverlongPenalty(3), "max_resamples": 2},
    "ppo": PPO,
    "kl by response": {"reward_shaping": pj.KLPenalty(0.1, reward_shaping=pj.OverlongPenalty(3)), "max_resamples": 2},
    "own": {"advantage": OwnMean()},
}


@pytest.mark.parametrize("name", PHASES)
def test_a_batch_does_not_depend_on_the_reward_of_an_unknown_response(name):
    """Its rows have no advantage and no weight, the critic's neither, in a minibatch as in the whole batch."""
    phase = pj.Phase("p", 1, **PHASES[name])
    terms = len(phase.all_terms)
    prepare = jax.jit(pj.make_prepare(phase, 4))
    given = {}
    if phase.logprobs_needed_before_update:
        given = {"old_logprobs": -jnp.ones((8, 8)), "ref_logprobs": -2 * jnp.ones((8, 8))}
    if phase.value_advantage is not None:
        given["values"] = VALUES
    truncated = {"truncated": jnp.arange(8) % 4 == 0, "logprobs": jnp.zeros((8, 5))}
    for rows in (None, jnp.arange(4, 8)):
        batch = prepare(sampled(**truncated), **given, rows=rows)
        toy.assert_same_bits(prepare(sampled(1e9, **truncated), **given, rows=rows), batch)
        known = SOME if rows is None else SOME[4:]
        trained = np.asarray((batch.weights != 0).any(axis=1)).reshape(terms, -1)
        advantages = np.asarray((batch.advantages != 0).any(axis=1)).reshape(terms, -1)
        if name == "own":
            assert not trained.any()
        else:
            assert trained.any()
        assert not (trained & ~known).any()
        assert not (advantages & ~known).any()
        assert np.isfinite(np.asarray(batch.advantages)).all()
        if phase.value_advantage is not None:
            np.testing.assert_array_equal((batch.critic.weights != 0).any(axis=1), known)
            np.testing.assert_allclose(batch.critic.weights.sum(), 1, rtol=1e-6)
            assert np.isfinite(np.asarray(batch.critic.targets)).all()


def test_the_weights_are_normalised_over_the_known_responses():
    batch = pj.make_prepare(pj.Phase("p", 1), 4)(sampled())
    tokens = np.asarray(toy.rollouts().response_mask) & SOME[:, None]
    np.testing.assert_allclose(batch.weights[:, 3:], tokens / tokens.sum(), rtol=1e-6)
    # the known rewards are 1, 0, 1 and 0, 0, 1
    expected = np.asarray([1 / 3, -2 / 3, 0, 1 / 3, 0, -1 / 3, -1 / 3, 2 / 3]) / ((1 / 3) ** 0.5 + 1e-6)
    np.testing.assert_allclose(batch.advantages[:, 3:], expected[:, None] * tokens, rtol=1e-5)


@dataclasses.dataclass(frozen=True)
class OwnKnownMean(OwnMean):
    """The same, with the mean of the known responses; it selects the others as well."""

    traits = pj.AdvantageTraits(compares_group=True, reads_known=True)

    def __call__(self, rollouts, group_size, values=None):
        known = rollouts.known_mask.reshape(-1, group_size)
        grouped = rollouts.rewards.reshape(-1, group_size)
        mean = grouped.mean(axis=1, keepdims=True, where=known)
        return (grouped - mean).reshape(-1), jnp.ones(len(rollouts.rewards), bool)


@dataclasses.dataclass(frozen=True)
class OwnBatchMean(OwnMean):
    """The same with the mean of the whole batch: an unknown response has the mean reward of the known ones there."""

    def __call__(self, rollouts, group_size, values=None):
        return rollouts.rewards - rollouts.rewards.mean(), jnp.ones(len(rollouts.rewards), bool)


def test_an_estimator_of_ones_own_trains_on_no_unknown_response():
    """Its means would count it, so the whole group is left out, unless it says that it reads what is known."""
    known, others = np.asarray([1, 1, 0, 1, 1, 1, 1, 1], bool), np.arange(8) >= 4
    for advantage, trained in ((OwnMean(), others), (OwnBatchMean(), others), (OwnKnownMean(), known)):
        batch = pj.make_prepare(pj.Phase("p", 1, advantage=advantage), 4)(sampled(known=known))
        np.testing.assert_array_equal((batch.weights != 0).any(axis=1), trained)
        np.testing.assert_array_equal((batch.advantages != 0).any(axis=1), trained)
        assert np.isfinite(np.asarray(batch.advantages)).all()
    np.testing.assert_allclose(batch.advantages[0, 3], 1 / 3, rtol=1e-6)


@pytest.mark.parametrize(
    ("known_rewards", "expected"), [([1] * 7, [0] * 4), ([1, 1, 1, 1, 0, 0, 0], [3 / 7, *[-4 / 7] * 3])]
)
@pytest.mark.parametrize("shaping", [None, pj.KLPenalty(0.0)])
def test_the_mean_over_a_batch_is_that_of_the_known_responses(known_rewards, expected, shaping):
    """Of an estimator of one's own that does not read what is known, with rewards by response and by token."""

    @dataclasses.dataclass(frozen=True)
    class OfSums(OwnBatchMean):
        traits = pj.AdvantageTraits()

        def __call__(self, rollouts, group_size, values=None):
            return super().__call__(dataclasses.replace(rollouts, rewards=response_rewards(rollouts)), group_size)

    given = {} if shaping is None else {"reference": pj.InitialModel(), "reward_shaping": shaping}
    phase = pj.Phase("p", 1, advantage=OfSums(), **given)
    scored = {} if shaping is None else {"old_logprobs": -jnp.ones((8, 8)), "ref_logprobs": -jnp.ones((8, 8))}
    rewards = jnp.asarray([known_rewards[0], known_rewards[1], np.nan, *known_rewards[2:]], jnp.float32)
    known = jnp.asarray([1, 1, 0, 1, 1, 1, 1, 1], bool)
    batch = pj.make_prepare(phase, 4)(dataclasses.replace(toy.rollouts(), rewards=rewards, known=known), **scored)
    found = np.asarray(batch.advantages).sum(axis=1) / np.maximum((np.asarray(batch.advantages) != 0).sum(axis=1), 1)
    np.testing.assert_array_equal(found[:4], 0)
    np.testing.assert_allclose(found[4:], expected, atol=1e-6)
