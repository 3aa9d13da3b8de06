"""Prepared batches: their advantages, weights and gradients, and the errors of what is missing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import prerl_jax as pj


@dataclasses.dataclass(frozen=True)
class KnownAlone:
    """The reward, of responses whose verdict is known."""

    traits = pj.AdvantageTraits(reads_known=True)

    def __call__(self, rollouts, group_size, values=None):
        return jnp.where(rollouts.known, rollouts.rewards, 0.0), rollouts.known


def test_estimators_see_which_verdicts_are_known():
    known = jnp.arange(8) % 3 > 0
    rollouts = dataclasses.replace(toy.rollouts(), known=known)
    prepare = jax.jit(pj.make_prepare(pj.Phase("p", 1, advantage=KnownAlone()), 4))
    batch = prepare(rollouts)
    np.testing.assert_array_equal(batch.weights.any(axis=1), known)
    part = prepare(rollouts, rows=jnp.arange(4))
    np.testing.assert_array_equal(part.weights.any(axis=1), known[:4])


@pytest.mark.parametrize(
    ("name", "value"),
    [("loss_mask", jnp.ones((8, 4), bool)), ("known", jnp.ones((8, 5), bool)), ("rewards", jnp.ones((8, 5)))],
)
def test_arrays_of_rollouts_that_do_not_match_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"Rollouts of 8 responses of 5 tokens have {name} of shape"):
        pj.make_prepare(pj.Phase("p", 1), 4)(dataclasses.replace(toy.rollouts(), **{name: value}))


@pytest.mark.parametrize("space", [pj.PostTrainSpace(), pj.PreTrainSpace(0)])
def test_token_means_are_over_the_loss_mask(space):
    rollouts = toy.rollouts()
    loss_mask = jnp.arange(5) % 2 == jnp.arange(8)[:, None] % 2
    masked = dataclasses.replace(rollouts, loss_mask=loss_mask)
    phase = pj.Phase("p", 1, space, pj.ConstantBaseline(-1.0))
    batch, whole = (jax.jit(pj.make_prepare(phase, 4))(r) for r in (masked, rollouts))
    trained = np.asarray(rollouts.response_mask & loss_mask)
    np.testing.assert_allclose(batch.weights[:, -5:], trained / trained.sum(), rtol=1e-6)
    np.testing.assert_array_equal(batch.advantages[:, -5:] != 0, trained)
    np.testing.assert_array_equal(batch.sequences.tokens, whole.sequences.tokens)
    np.testing.assert_array_equal(batch.sequences.segments, whole.sequences.segments)


def gradient_of(phase, rollouts, model=toy.Toy(), **given):  # noqa: B008
    batch = pj.make_prepare(phase, 4)(rollouts, **given)
    loss = pj.make_loss(model, phase.objective)
    (value, sums), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(model.init(), batch)
    return value, gradient, sums["tokens"]


def test_the_gradient_of_a_mixed_phase_is_the_sum_of_its_terms():
    rollouts = toy.rollouts()
    terms = (
        pj.Term(pj.PreTrainSpace(prefix=0), pj.GroupRelative(False, "negative"), pj.TokenMean(0.3)),
        pj.Term(pj.PostTrainSpace(), pj.GroupRelative(True), pj.SequenceMeanTokenSum(2.0)),
    )
    alone = [gradient_of(pj.Phase("p", 1, t.space, t.advantage, aggregation=t.aggregation), rollouts) for t in terms]
    mixed = gradient_of(pj.Phase("p", 1, terms=terms), rollouts)
    toy.assert_close(mixed, jax.tree.map(jnp.add, *alone))


def test_a_coefficient_on_a_schedule_of_the_phases_steps():
    rollouts, fades = toy.rollouts(), pj.Linear(0.4, 0.0, 4)
    (phase,) = pj.mixed(steps=9, pretrain=fades, posttrain=2.0, prefix=0)
    prepare = pj.make_prepare(phase, 4)
    with pytest.raises(ValueError, match=r"Linear.* is a schedule: pass prepare\(..., phase_step=n\)"):
        prepare(rollouts)
    whole = pj.make_prepare(pj.mixed(steps=9, pretrain=1.0, prefix=0)[0], 4)(rollouts).weights
    for step, factor in ((0, 0.4), (1, 0.3), (4, 0.0), (8, 0.0)):
        found = jax.jit(prepare)(rollouts, phase_step=jnp.asarray(step)).weights
        np.testing.assert_allclose(found[:8], factor * whole[:8], rtol=1e-6)  # the negatives in P(y)
        np.testing.assert_allclose(found[8:], 2 * whole[8:], rtol=1e-6)  # all, in P(y|x)


def test_advantages_are_computed_from_the_shaped_reward():
    rollouts = toy.rollouts()
    shape = pj.OverlongPenalty(3)
    batch = pj.make_prepare(pj.Phase("p", 1, reward_shaping=shape, advantage=pj.LeaveOneOut()), 4)(rollouts)
    expected, _ = pj.LeaveOneOut()(toy.rewarded(shape(rollouts, 5)), 4)
    assert (expected != pj.LeaveOneOut()(rollouts, 4)[0]).any()
    np.testing.assert_allclose(batch.advantages, np.where(batch.sequences.mask, expected[:, None], 0))


@pytest.mark.parametrize("prefix", [0, None])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_prompt_dropout_lies_between_the_spaces(share, prefix):
    rollouts, key = toy.rollouts(), jax.random.key(0)
    end = pj.PreTrainSpace(prefix) if share else pj.PostTrainSpace()
    ours = gradient_of(pj.Phase("p", 1, pj.PromptDropout(share, prefix)), rollouts, key=key)
    toy.assert_close(ours, gradient_of(pj.Phase("p", 1, end), rollouts))


def test_prompt_dropout_without_the_steps_key_is_refused():
    with pytest.raises(ValueError, match=r"PromptDropout\(share=0.5.* draws at random: pass prepare\(..., key=k\)"):
        pj.make_prepare(pj.Phase("p", 1, pj.PromptDropout(0.5, 0)), 4)(toy.rollouts())


def test_a_phase_with_gae_takes_the_critics_values():
    rollouts, phase = toy.rollouts(), pj.Phase("p", 1, advantage=pj.GAE(lam=1.0, normalize=False))
    values = jnp.full(rollouts.response.shape, 0.5)
    prepare = pj.make_prepare(phase, 4)
    batch = prepare(rollouts, values=values)
    expected = np.where(batch.sequences.mask, rollouts.rewards[:, None] - 0.5, 0)
    np.testing.assert_allclose(batch.advantages, expected)
    with pytest.raises(ValueError, match="needs a critic's values"):
        prepare(rollouts)
