"""Statistics of the rollouts of a step."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import toy

import prerl_jax as pj
from prerl_jax.trainer.batching import rollout_statistics, zero_advantage_groups

GROUPS = {
    # rewards, verdicts (right, wrong, unknown) of four groups of three
    "solved": ([1, 2, 9], "rr?"),
    "unsolved": ([0, -1, 9], "ww?"),
    "neither": ([0.5, 1.5, 0], "rwr"),
    "unknown": ([9, 9, 9], "???"),
}


def statistics(rewards, verdicts=None):
    rollouts = dataclasses.replace(toy.rewarded(rewards), truncated=jnp.zeros(len(rewards), bool))
    if verdicts is not None:
        known, right = (jnp.asarray([v in kinds for v in verdicts]) for kinds in ("rw", "r"))
        rollouts = dataclasses.replace(rollouts, known=known, right=right)
    return {name.removeprefix("train/"): float(x) for name, x in rollout_statistics(rollouts, 3).items()}


def test_means_are_over_the_known_and_accuracy_reads_the_verdict():
    rewards = np.concatenate([rewards for rewards, _ in GROUPS.values()])
    verdicts = "".join(verdicts for _, verdicts in GROUPS.values())
    for unread in (9, np.nan, 1e9):
        found = statistics([unread if r == 9 else r for r in rewards], verdicts)
        assert found["reward"] == pytest.approx((1 + 2 + 0 - 1 + 0.5 + 1.5 + 0) / 7)
        assert found["accuracy"] == pytest.approx(4 / 7)
        assert found["unknown"] == pytest.approx(5 / 12)
        assert (found["solved_groups"], found["unsolved_groups"]) == (0.25, 0.25)


def test_without_verdicts_a_reward_of_one_is_right_and_all_are_known():
    found = statistics([1, 1, 2, 0.5, 0, 0, 0, 1, 0])
    assert found["reward"] == pytest.approx(5.5 / 9)
    assert found["accuracy"] == pytest.approx(4 / 9)
    assert found["solved_groups"] == found["unsolved_groups"] == pytest.approx(1 / 3)
    assert found["unknown"] == 0


def test_of_no_known_response_there_is_no_mean():
    found = statistics([1, 0, 1], "???")
    assert np.isnan([found["reward"], found["accuracy"]]).all()
    assert (found["unknown"], found["solved_groups"], found["unsolved_groups"]) == (1, 0, 0)


def test_the_share_of_groups_without_an_advantage():
    """Two terms, three groups of two: one learns in the second term alone, one has an advantage that is not finite."""
    advantages = np.zeros((2, 3, 2, 4), np.float32)
    assert zero_advantage_groups(advantages.reshape(12, 4), 2, 2) == 1
    advantages[1, 0, 1, 3], advantages[0, 2, 0, 0] = -0.1, np.nan
    assert zero_advantage_groups(advantages.reshape(12, 4), 2, 2) == pytest.approx(1 / 3)


ON_EQUAL_GROUPS = [(pj.GroupRelative(), 1), (pj.BatchNormalized(), 0), (pj.BinaryAdvantage(), 0)]


@pytest.mark.parametrize(("advantage", "share"), ON_EQUAL_GROUPS)
def test_a_group_all_right_and_one_all_wrong(advantage, share):
    """Estimators that compare groups find no advantage there, and the divergence trains on all the same."""
    with_kl = {"objective": pj.WithKL(pj.ClippedPG(), 0.001), "reference": pj.InitialModel()}
    rollouts = dataclasses.replace(toy.rollouts(), rewards=jnp.asarray([1.0] * 4 + [0.0] * 4))
    batch = pj.make_prepare(pj.Phase("p", 1, advantage=advantage, **with_kl), 4)(rollouts)
    assert zero_advantage_groups(batch.advantages, 1, 4) == share
    assert (batch.weights != 0).any()
