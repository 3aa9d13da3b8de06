"""The critic: its rows, its loss and gradient by hand, and updates that leave the policy, or itself, bit for bit."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

import prerl_jax as pj
from prerl_jax.core.critic import clipped_value_loss, make_critic_step, rollout_values, value_statistics
from prerl_jax.core.microbatches import Replicas
from prerl_jax.core.types import CriticState, ValueBatch

MODEL, TX = toy.Toy(), optax.sgd(1.0)
PPO = pj.Phase("ppo", 1, advantage=pj.GAE(gamma=1.0, lam=1.0), objective=pj.ClippedPG(dual_clip=None))


@dataclasses.dataclass(frozen=True)
class ToyCritic:
    """A head on a toy trunk; the value of token t is read before it."""

    def values(self, params, sequences):
        hidden = MODEL.hidden(params, sequences.tokens, sequences.positions, sequences.segments)
        return jnp.where(sequences.mask, jnp.pad((hidden @ params["head"])[:, :-1], [(0, 0), (1, 0)]), 0.0)


def params(seed=3, scale=0.3):
    head = jnp.asarray(np.random.default_rng(seed).normal(size=MODEL.width), jnp.float32)
    return MODEL.init(seed) | {"head": scale * head}


def prepared(phase=PPO, values=None, rollouts=None):
    rollouts = rollouts or toy.rollouts()
    rollouts = dataclasses.replace(rollouts, logprobs=jnp.where(rollouts.response_mask, -2.0, jnp.nan))
    values = values_of(params(), rollouts, 1) if values is None else values
    prepare = pj.make_prepare(phase, 4)
    return jax.jit(lambda rollouts, values: prepare(rollouts, values=values))(rollouts, values)


@functools.partial(jax.jit, static_argnums=2)
def values_of(params, rollouts, parts):
    return rollout_values(ToyCritic(), params, rollouts, parts)


def state(critic_params=None, tx=TX):
    critic_params = params() if critic_params is None else critic_params
    begun = pj.init_state(MODEL.init(), pj.adamw(1e-2), jax.random.key(0))
    return dataclasses.replace(begun, critic=CriticState(critic_params, tx.init(critic_params)))


def step_of(phase=PPO, clip=0.2, microbatches=1, tx=TX, replicas=None):
    critic = make_critic_step(ToyCritic(), tx, clip=clip, microbatches=microbatches, replicas=replicas)
    how = {"microbatches": microbatches, "critic": critic}
    return jax.jit(pj.make_train_step(MODEL, pj.adamw(1e-2), phase.objective, **how))


def test_values_do_not_depend_on_the_parts_or_on_later_tokens():
    rollouts = toy.rollouts()
    found = values_of(params(), rollouts, 1)
    assert found.shape == rollouts.response.shape
    assert (found != 0).sum() == rollouts.response_mask.sum()
    for parts in (2, 4):
        toy.assert_close(values_of(params(), rollouts, parts), found)
    with pytest.raises(ValueError, match="8 rows do not divide into 3 microbatches"):
        values_of(params(), rollouts, 3)
    later = dataclasses.replace(rollouts, response=rollouts.response.at[:, 2:].add(1) % MODEL.vocab)
    toy.assert_close(values_of(params(), later, 1)[:, :3], found[:, :3])


def test_the_critics_rows_are_given_the_prompt_in_either_space():
    rollouts = toy.rollouts()
    values = jnp.where(rollouts.response_mask, 0.25, jnp.nan)
    plain = prepared(values=values).critic
    marginal = prepared(dataclasses.replace(PPO, space=pj.PreTrainSpace(1)), values).critic
    toy.assert_same_bits(plain, marginal)
    mask = plain.sequences.mask
    toy.assert_same_bits(plain.sequences, pj.PostTrainSpace()(rollouts))
    np.testing.assert_allclose(plain.weights, mask / mask.sum(), rtol=1e-6)
    returns = np.where(mask, rollouts.rewards[:, None], 0)  # at gamma = lambda = 1, whatever the values
    np.testing.assert_allclose(plain.targets, returns, atol=1e-6)
    np.testing.assert_allclose(plain.old_values, np.where(mask, 0.25, 0))
    assert prepared(pj.grpo(steps=1)[0]).critic is None


def test_the_critic_does_not_learn_from_responses_that_are_left_out():
    rollouts = dataclasses.replace(toy.rollouts(), truncated=jnp.arange(8) % 2 == 0)
    batch = prepared(dataclasses.replace(PPO, advantage=pj.DropTruncated(PPO.advantage)), rollouts=rollouts).critic
    np.testing.assert_array_equal((batch.weights != 0).any(axis=1), ~rollouts.truncated)
    np.testing.assert_allclose(batch.weights.sum(), 1, rtol=1e-6)


def test_two_targets_are_refused():
    terms = [pj.Term(pj.PostTrainSpace(), pj.GAE(lam=lam)) for lam in (0.9, 1.0)]
    with pytest.raises(
        ValueError, match=r"'two' has two advantage estimators that read a critic's values, .* two targets"
    ):
        pj.Phase("two", 1, terms=tuple(terms))
    both = pj.Phase(
        "one", 1, terms=(pj.Term(pj.PreTrainSpace(1), PPO.advantage), pj.Term(pj.PostTrainSpace(), PPO.advantage))
    )
    assert prepared(both).critic.weights.shape == (8, 8)


def test_the_gradient_of_the_head_by_hand():
    """d loss / d head = sum_t w_t (V_t - target_t) h_{t-1} where the clip does not bind, plain SGD takes all of it."""
    batch, before = prepared(), params()
    after, metrics = step_of(clip=None)(state(), batch)
    b = batch.critic
    s = b.sequences
    hidden = np.asarray(jax.jit(MODEL.hidden)(before, s.tokens, s.positions, s.segments))
    error = np.asarray(b.old_values - b.targets)
    slope = sum(
        float(b.weights[i, t]) * error[i, t] * hidden[i, t - 1] for i, t in zip(*np.nonzero(s.mask), strict=True)
    )
    np.testing.assert_allclose(after.critic.params["head"], before["head"] - slope, rtol=1e-4, atol=1e-6)
    mask = np.asarray(s.mask)
    np.testing.assert_allclose(metrics["train/value_loss"], 0.5 * np.mean(error[mask] ** 2), rtol=1e-5)
    assert metrics["train/value_clip_fraction"] == 0
    assert metrics["train/critic_skipped"] == 0


def test_gradients_of_replicas_are_added_up():
    """Four rows each, in two parts of two rows; the sum is that of all eight rows. A part of one row has no halves."""
    batch, replicas = prepared(), Replicas("data", 2)
    one, metrics = step_of()(state(), batch)
    two, same = step_of(microbatches=2, replicas=replicas)(state(), batch)
    toy.assert_close((two.critic.params, same), (one.critic.params, metrics), rtol=1e-4, atol=1e-6)
    critic = make_critic_step(ToyCritic(), TX, clip=0.2, microbatches=8, replicas=replicas)
    with pytest.raises(ValueError, match="the 1 rows of a microbatch do not divide over 2 replicas"):
        critic(state().critic, batch.critic, 0)


def test_the_clip_of_the_values():
    """Old values that are 1 above the present ones, targets above both: the loss is that of the clipped value."""
    batch = prepared()
    b = batch.critic
    moved = dataclasses.replace(b, old_values=b.old_values - 1.0, targets=b.old_values + 0.5)
    after, metrics = step_of()(state(), dataclasses.replace(batch, critic=moved))
    expected = clipped_value_loss(0.0, -1.0, 0.5, 0.2)
    np.testing.assert_allclose(metrics["train/value_loss"], expected, rtol=1e-5)
    assert metrics["train/value_clip_fraction"] == 1
    toy.assert_close(after.critic.params, params(), rtol=0, atol=0)


def test_a_head_of_zeros_says_zero():
    rollouts = toy.rollouts()
    zero = values_of(params(scale=0.0), rollouts, 1)
    np.testing.assert_array_equal(zero, np.zeros(rollouts.response.shape))
    said = value_statistics(prepared(values=zero).critic)
    tokens = rollouts.response_mask.sum(axis=1)
    np.testing.assert_allclose(said["train/return_mean"], (rollouts.rewards * tokens).sum() / tokens.sum(), rtol=1e-5)
    assert said["train/value_mean"] == said["train/explained_variance"] == 0


def test_explained_variance_by_hand():
    """Targets 0, 0, 4, 4 and values 1, 1, 3, 3: variance 4, of which 1 is left. Rows without a weight do not count."""
    row = {
        "weights": [[0.25] * 4, [0.0] * 4],
        "targets": [[0, 0, 4, 4], [9, 9, 9, 9]],
        "old_values": [[1, 1, 3, 3]] * 2,
    }
    arrays = {name: jnp.asarray(value, jnp.float32) for name, value in row.items()}
    said = value_statistics(ValueBatch(None, **arrays))
    assert {n.removeprefix("train/"): float(v) for n, v in said.items()} == {
        "value_mean": 2,
        "return_mean": 2,
        "explained_variance": 0.75,
    }


def test_microbatches_agree():
    whole, parts = (step_of(microbatches=n)(state(), prepared()) for n in (1, 4))
    toy.assert_close((parts[0].critic, parts[1]), (whole[0].critic, whole[1]))


def test_packed_rows_agree():
    batch = toy.to_numpy(prepared())
    groups = pj.plan_bins(batch.critic, None, 16)
    assert len(groups) < 8
    packed = pj.pack(batch.critic, groups, len(groups), 16)
    plain, dense = (step_of()(state(), dataclasses.replace(batch, critic=c)) for c in (batch.critic, packed))
    toy.assert_close((dense[0].critic, dense[1]), (plain[0].critic, plain[1]))


def test_a_warm_up_leaves_the_policy_bit_for_bit():
    """A weighing of scale 0 gives the policy no token: its moments do not move it either. The critic learns."""
    phase = dataclasses.replace(PPO, aggregation=pj.TokenMean(scale=0.0))
    before = state()
    noise = jax.tree.map(lambda x: jnp.ones_like(x) * 0.01 if x.dtype == jnp.float32 else x + 3, before.opt_state)
    before = dataclasses.replace(before, opt_state=noise)
    batch = prepared(phase)
    after, metrics = step_of(phase)(before, batch)
    toy.assert_same_bits((after.params, after.opt_state), (before.params, before.opt_state))
    assert [metrics[f"train/{n}"] for n in ("tokens", "skipped", "critic_skipped")] == [0, 1, 0]
    assert metrics["train/critic_update_norm"] > 0
    assert not pj.plan_bins(toy.to_numpy(batch), phase.objective), "no row of the policy is computed"


def test_each_is_skipped_by_itself():
    batch = prepared()
    row, column = np.argwhere(np.asarray(batch.sequences.mask))[0]
    bad = dataclasses.replace(batch.critic, targets=batch.critic.targets.at[row, column].set(jnp.nan))
    step, before = step_of(), state()
    after, metrics = step(before, dataclasses.replace(batch, critic=bad))
    toy.assert_same_bits(after.critic, before.critic)
    assert (metrics["train/skipped"], metrics["train/critic_skipped"]) == (0, 1)
    assert metrics["train/update_norm"] > 0
    broken = dataclasses.replace(batch, advantages=batch.advantages.at[row, column].set(jnp.nan))
    after, metrics = step(before, broken)
    toy.assert_same_bits((after.params, after.opt_state), (before.params, before.opt_state))
    assert (metrics["train/skipped"], metrics["train/critic_skipped"]) == (1, 0)


def test_what_stands_outside_the_mask_is_harmless():
    batch = prepared()
    mask = batch.critic.sequences.mask
    dirty = {n: jnp.where(mask, getattr(batch.critic, n), jnp.nan) for n in ("targets", "old_values", "weights")}
    ours, expected = (
        step_of()(state(), dataclasses.replace(batch, critic=c))
        for c in (dataclasses.replace(batch.critic, **dirty), batch.critic)
    )
    toy.assert_same_bits((ours[0].critic, ours[1]), (expected[0].critic, expected[1]))


def test_a_step_without_a_critic_compiles_to_what_it_was():
    """A batch without rows for the critic: the same program, with a critic that is handed through."""
    phase = pj.grpo(steps=1)[0]
    batch = prepared(phase)
    plain = pj.make_train_step(MODEL, pj.adamw(1e-2), phase.objective)
    critic = make_critic_step(ToyCritic(), TX, clip=0.2)
    with_one = pj.make_train_step(MODEL, pj.adamw(1e-2), phase.objective, critic=critic)
    bare = dataclasses.replace(state(), critic=None)
    texts = [jax.jit(step).lower(bare, batch).as_text() for step in (plain, with_one)]
    assert texts[0] == texts[1]
    after, metrics = jax.jit(with_one)(state(), batch)
    toy.assert_same_bits(after.critic, state().critic)
    assert not [name for name in metrics if "critic" in name or "value" in name]
