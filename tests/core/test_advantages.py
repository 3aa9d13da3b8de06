"""Advantages, selection and the weights of tokens against tables worked out by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import prerl_jax as pj

NONE = [False] * 4
ADVANTAGES = [
    # rewards of one group, minus their mean, their sample standard deviation (ddof=1)
    ([1, 0, 0, 0], [0.75, -0.25, -0.25, -0.25], 0.5),
    ([1, 1, 0, 0], [0.5, 0.5, -0.5, -0.5], 0.5773503),
    ([0, 0, 0, 0], [0, 0, 0, 0], 0.0),
    ([1, 1, 1, 1], [0, 0, 0, 0], 0.0),
    ([0.5, 1, 0, 0.5], [0, 0.5, -0.5, 0], 0.4082483),
    ([-1, 3, 1, 1], [-2, 2, 0, 0], 1.6329932),
]


@pytest.mark.parametrize(("rewards", "centred", "std"), ADVANTAGES)
def test_advantages(rewards, centred, std):
    centred = np.asarray(centred)
    found, keep = pj.GroupRelative(normalize_std=False)(toy.rewarded(rewards), 4)
    np.testing.assert_array_equal(found, centred)
    np.testing.assert_array_equal(keep, [True] * 4)
    found, keep = pj.GroupRelative(normalize_std=True)(toy.rewarded(rewards), 4)
    np.testing.assert_allclose(found, centred / (std + 1e-6), rtol=1e-6)
    np.testing.assert_array_equal(keep, [True] * 4)


def test_the_epsilon_is_added_to_the_standard_deviation():
    # std is 1e-6 / sqrt(2) here, so that epsilon more than halves the advantage
    found, _ = pj.GroupRelative()(toy.rewarded([1e-6, 0.0]), 2)
    np.testing.assert_allclose(found, [0.5 / (2**-0.5 + 1), -0.5 / (2**-0.5 + 1)], rtol=1e-5)


@pytest.mark.parametrize("normalize_std", [False, True])
@pytest.mark.parametrize("keep", ["all", "negative", "positive"])
def test_selection_goes_by_sign_and_alters_no_advantage(keep, normalize_std):
    groups = np.concatenate([rewards for rewards, *_ in ADVANTAGES]).astype(np.float32)
    centred = np.concatenate([c for _, c, _ in ADVANTAGES])
    advantages, kept = pj.GroupRelative(normalize_std, keep)(toy.rewarded(groups), 4)
    expected = {"all": np.ones(len(groups), bool), "negative": centred < 0, "positive": centred > 0}[keep]
    np.testing.assert_array_equal(kept, expected)
    np.testing.assert_array_equal(advantages, pj.GroupRelative(normalize_std)(toy.rewarded(groups), 4)[0])


def test_a_sample_is_compared_with_its_own_group():
    found, _ = pj.GroupRelative(False)(toy.rewarded([1.0, 0.0, 5.0, 4.0, 8.0, 8.0]), 2)
    np.testing.assert_array_equal(found, [0.5, -0.5, 0.5, -0.5, 0, 0])


CONSTANTS = np.asarray([0.1, 0.1 + 0.2, 1 / 3, 2 / 3, 0.7, -0.9, 1e-7, 123456.789, 3e30], np.float32)


@pytest.mark.parametrize("size", [2, 3, 7, 24, 100])
@pytest.mark.parametrize("normalize_std", [False, True])
def test_a_constant_group_has_no_advantage_at_all(size, normalize_std):
    rewards = jnp.repeat(jnp.asarray(CONSTANTS), size)
    for keep, expected in (("all", True), ("negative", False), ("positive", False)):
        advantage = pj.GroupRelative(normalize_std, keep)
        for run in (advantage, jax.jit(advantage, static_argnums=1)) if keep == "all" else (advantage,):
            advantages, kept = run(toy.rewarded(rewards), size)
            np.testing.assert_array_equal(advantages, np.zeros(len(rewards)))
            np.testing.assert_array_equal(kept, np.full(len(rewards), expected))


@pytest.mark.parametrize(
    "rewards", [(0.1, 0.2, 0.3), (0.7, 0.8, 0.9), (1e5 + 1, 1e5 + 2, 1e5 + 3), (-0.3, 0, 0.3), (0.1, 1 / 3, 17 / 30)]
)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
def test_a_sample_at_the_mean_up_to_rounding_is_neither_negative_nor_positive(rewards, order):
    rollouts = toy.rewarded([rewards[i] for i in order])
    middle = order.index(1)
    for keep in ("negative", "positive"):
        advantages, kept = pj.GroupRelative(False, keep)(rollouts, 3)
        assert advantages[middle] == 0
        assert not kept[middle]
        assert kept.sum() == 1


@pytest.mark.parametrize(
    ("rewards", "group_size", "message"),
    [(4, 1, "group_size >= 2"), (4, 0, "group_size >= 2"), (6, 4, "6 rewards do not divide into groups of 4")],
)
def test_groups_that_cannot_be_compared_are_refused(rewards, group_size, message):
    with pytest.raises(ValueError, match=message):
        pj.GroupRelative()(toy.rewarded([0] * rewards), group_size)


@pytest.mark.parametrize(
    "advantage", [pj.GroupRelative, pj.LeaveOneOut, pj.BatchNormalized, pj.ConstantBaseline, pj.BinaryAdvantage]
)
def test_an_unknown_selection_is_refused(advantage):
    with pytest.raises(ValueError, match=rf"{advantage.__name__}.keep must be one of .*'negative'.* got 'bad'"):
        advantage(keep="bad")


# Two groups of four: the first mixed, the second all wrong. Batch: mean 0.125, squares of differences sum to 0.875.
REWARDS = [1, 0, 0, 0, 0, 0, 0, 0]
STD, GROUPED_STD = (0.875 / 7) ** 0.5, (0.75 / 7) ** 0.5
ESTIMATORS = [
    (pj.GroupRelative(False), [0.75, -0.25, -0.25, -0.25, 0, 0, 0, 0], [1] * 8),
    (pj.LeaveOneOut(), [1, -1 / 3, -1 / 3, -1 / 3, 0, 0, 0, 0], [1] * 8),
    (pj.LeaveOneOut("negative"), [1, -1 / 3, -1 / 3, -1 / 3, 0, 0, 0, 0], [0, 1, 1, 1, 0, 0, 0, 0]),
    (pj.LeaveOneOut("positive"), [1, -1 / 3, -1 / 3, -1 / 3, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]),
    (pj.BatchNormalized(), np.array([0.875] + [-0.125] * 7) / STD, [1] * 8),
    (pj.BatchNormalized(keep="negative"), np.array([0.875] + [-0.125] * 7) / STD, [0] + [1] * 7),
    (pj.BatchNormalized(True), np.array([0.75] + [-0.25] * 3 + [0] * 4) / GROUPED_STD, [1] * 8),
    (
        pj.BatchNormalized(True, "negative"),
        np.array([0.75] + [-0.25] * 3 + [0] * 4) / GROUPED_STD,
        [0, 1, 1, 1] + [0] * 4,
    ),
    (pj.ConstantBaseline(), REWARDS, [1] * 8),
    (pj.ConstantBaseline(0.5), [0.5] + [-0.5] * 7, [1] * 8),
    (pj.ConstantBaseline(0.5, "positive"), [0.5] + [-0.5] * 7, [1] + [0] * 7),
    (pj.BinaryAdvantage(), [1] + [-1] * 7, [1] * 8),
    (pj.BinaryAdvantage(keep="negative"), [1] + [-1] * 7, [0] + [1] * 7),  # the group that is all wrong counts
    (pj.BinaryAdvantage(keep="positive"), [1] + [-1] * 7, [1] + [0] * 7),
    (pj.BinaryAdvantage(positive=0.1), [0.1] + [-1] * 7, [1] * 8),
    (pj.BinaryAdvantage(negative=2.0), [1] + [-2] * 7, [1] * 8),
]


@pytest.mark.parametrize(("advantage", "expected", "kept"), ESTIMATORS)
def test_every_estimator(advantage, expected, kept):
    advantages, keep = advantage(toy.rewarded(REWARDS), 4)
    assert advantages.dtype == jnp.float32
    assert keep.dtype == bool
    np.testing.assert_allclose(advantages, expected, rtol=1e-5)
    assert ((advantages == 0) == (np.asarray(expected) == 0)).all()  # a zero is exactly 0
    np.testing.assert_array_equal(keep, np.asarray(kept, bool))


@pytest.mark.parametrize("size", [3, 4099])
@pytest.mark.parametrize("advantage", [pj.LeaveOneOut("negative"), pj.BatchNormalized(), pj.BatchNormalized(True)])
def test_equal_rewards_have_no_advantage_at_all(advantage, size):
    for constant in CONSTANTS[[1, 2, 5]]:
        advantages, keep = advantage(toy.rewarded([constant] * size), size)
        np.testing.assert_array_equal(advantages, np.zeros(size))
        assert keep.all() == (advantage.keep == "all")


def test_a_constant_group_beside_others_has_no_advantage_at_all():
    """Not even where the whole batch is normalised, whatever its own mean and rounding."""
    for constant in CONSTANTS[[1, 2, 5]]:
        rollouts = toy.rewarded([constant] * 3 + [0.1, 0.2, 0.7])
        for advantage in (pj.LeaveOneOut(), pj.BatchNormalized(True)):
            advantages = np.asarray(advantage(rollouts, 3)[0])
            np.testing.assert_array_equal(advantages[:3], np.zeros(3))
            assert (advantages[3:] != 0).all()


@pytest.mark.parametrize("advantage", [advantage for advantage, *_ in ESTIMATORS])
def test_a_reward_that_is_nan_makes_its_advantage_nan(advantage):
    advantages, _ = advantage(toy.rewarded([1, jnp.nan, 0, 0]), 4)
    assert np.isnan(advantages[1])


def test_estimators_that_compare_a_group_declare_it():
    four = toy.rewarded([0] * 4)
    for advantage in (pj.GroupRelative(), pj.LeaveOneOut(), pj.BatchNormalized(True)):
        assert advantage.traits.compares_group
        with pytest.raises(ValueError, match="group_size >= 2"):
            advantage(four, 1)
    for advantage in (pj.BatchNormalized(), pj.ConstantBaseline(), pj.BinaryAdvantage()):
        assert not advantage.traits.compares_group
        assert advantage(four, 1)[1].all()


@pytest.mark.parametrize("advantage", [advantage for advantage, *_ in ESTIMATORS])
def test_rewards_by_token_are_summed(advantage):
    rollouts = toy.rollouts()
    by_token = dataclasses.replace(rollouts, rewards=rollouts.rewards[:, None] * jnp.asarray([0.5, 0.25, 0.25, 0, 0]))
    toy.assert_same_bits(*(advantage(r, 4) for r in (by_token, rollouts)))


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match=r'got 0.0 and 1.0.*keep="negative"'):
        pj.BinaryAdvantage(positive=0.0)
    with pytest.raises(ValueError, match="this batch has only one"):
        pj.BatchNormalized()(toy.rewarded([0]), 1)
    with pytest.raises(ValueError, match="write keep='negative'"):
        pj.GroupRelative("negative")


@pytest.mark.parametrize("scale", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize(
    "aggregation",
    [
        pj.TokenMean,
        pj.SequenceMeanTokenMean,
        pj.SequenceMeanTokenSum,
        pj.SequenceSumTokenSumNorm,
        pj.SequenceMeanTokenSumNorm,
    ],
)
def test_a_scale_that_makes_no_sense_is_refused(aggregation, scale):
    with pytest.raises(
        ValueError, match=rf"{aggregation.__name__}\.scale is {scale}; it must be 0 or more, and finite"
    ):
        aggregation(scale)


# Four rows of 3, 1, 0 and 2 tokens
MASK = jnp.asarray([[0, 1, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0]], bool)
ALL = [True] * 4
SOME = [True, False, True, True]  # rows of 3, 0 and 2 tokens
WEIGHTS = [
    # aggregation, kept rows, weight of each row's tokens; R = 10
    (pj.TokenMean(), ALL, [1 / 6, 1 / 6, 0, 1 / 6]),
    (pj.TokenMean(), SOME, [1 / 5, 0, 0, 1 / 5]),
    (pj.SequenceMeanTokenMean(), ALL, [1 / 9, 1 / 3, 0, 1 / 6]),  # the row without a token does not count
    (pj.SequenceMeanTokenMean(), SOME, [1 / 6, 0, 0, 1 / 4]),
    (pj.SequenceMeanTokenSum(), ALL, [1 / 3, 1 / 3, 0, 1 / 3]),
    (pj.SequenceMeanTokenSum(), SOME, [1 / 2, 0, 0, 1 / 2]),
    (pj.SequenceSumTokenSumNorm(), ALL, [1 / 10, 1 / 10, 0, 1 / 10]),
    (pj.SequenceSumTokenSumNorm(), SOME, [1 / 10, 0, 0, 1 / 10]),
    (pj.SequenceMeanTokenSumNorm(), ALL, [1 / 30, 1 / 30, 0, 1 / 30]),
    (pj.SequenceMeanTokenSumNorm(), SOME, [1 / 20, 0, 0, 1 / 20]),
]


@pytest.mark.parametrize("scale", [1.0, 0.01])
@pytest.mark.parametrize(("aggregation", "keep", "rows"), WEIGHTS)
def test_weights(aggregation, keep, rows, scale):
    aggregation = dataclasses.replace(aggregation, scale=scale)
    expected = scale * np.asarray(MASK) * np.asarray(rows)[:, None]
    found = aggregation(MASK, jnp.asarray(keep), 10)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("aggregation", {type(aggregation): aggregation for aggregation, *_ in WEIGHTS}.values())
@pytest.mark.parametrize(("mask", "keep"), [(MASK, NONE), (MASK, [False, False, True, False]), (MASK & False, ALL)])
def test_weights_of_an_empty_selection_are_zero(aggregation, mask, keep):
    np.testing.assert_array_equal(aggregation(mask, jnp.asarray(keep), 10), np.zeros(mask.shape))
