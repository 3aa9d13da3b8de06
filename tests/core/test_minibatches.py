"""Several updates of one rollout: advantages over the whole batch, weights over a minibatch, old log-probabilities."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import prerl_jax as pj
from prerl_jax.core.microbatches import accumulate

MODEL, GROUP = toy.Toy(), 4
OLD, FAR, NOW = MODEL.init(), MODEL.init(1), jax.tree.map(lambda x: 0.9 * x, MODEL.init())
TERMS = (pj.Term(pj.PreTrainSpace(0), coefficient=0.5), pj.Term(pj.PostTrainSpace(), pj.GroupRelative(False)))
PLAIN = {"objective": pj.WithKL(pj.ClippedPG(), 0.1), "reference": pj.InitialModel(), "epochs": 2, "minibatches": 2}
PHASES = {
    "token mean": pj.Phase("p", 1, **PLAIN),
    "sequence mean": pj.Phase("p", 1, aggregation=pj.SequenceMeanTokenMean(), **PLAIN),
    "over the batch": pj.Phase("p", 1, pj.PreTrainSpace(0), pj.BatchNormalized(), **PLAIN),
    "two spaces": pj.Phase("p", 1, terms=TERMS, **PLAIN),
    "kl in the reward": pj.Phase("p", 1, terms=TERMS, reward_shaping=pj.KLPenalty(0.3), **PLAIN),
}
ROLLOUTS = dataclasses.replace(toy.rollouts(prompts=4), logprobs=jnp.zeros((16, 5)))


def scored(phase, rollouts=ROLLOUTS):
    """The whole batch, scored on packed rows in three parts and laid back."""
    layout = pj.make_layout(phase)(rollouts)
    local, valid = toy.to_numpy(layout), np.asarray(layout.sequences.segments) > 0
    groups = pj.plan_bins(local, pj.Reinforce(), 16)
    rows = 3 * -(-len(groups) // 3) + 3  # an empty part among them
    packed = pj.pack(local, groups, rows, 16, microbatches=3)
    found = jax.jit(pj.make_score_old_and_reference(MODEL, microbatches=3))(packed, old=OLD, reference=FAR)
    names = ("old_logprobs", "ref_logprobs")
    return {n: pj.unpack(np.asarray(getattr(found, n)), groups, valid, microbatches=3) for n in names}


def prepare(phase, **more):
    return pj.make_prepare(phase, GROUP)(ROLLOUTS, **scored(phase), **more)


@pytest.mark.parametrize("name", PHASES)
def test_what_is_scored_packed_is_the_score_of_each_row(name):
    batch = prepare(PHASES[name])
    for field, params in (("old_logprobs", OLD), ("ref_logprobs", FAR)):
        expected = pj.make_score(MODEL)(params, batch.sequences)
        np.testing.assert_allclose(getattr(batch, field), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", PHASES)
def test_a_minibatch_has_the_advantages_of_the_whole_batch_and_its_own_weights(name):
    phase, rows = PHASES[name], np.r_[8:12, 0:4]
    whole, part = toy.to_numpy(prepare(phase)), toy.to_numpy(prepare(phase, rows=rows))
    taken = np.concatenate([number * 16 + rows for number in range(len(phase.all_terms))])
    fields = ("sequences", "advantages", "old_logprobs", "ref_logprobs", "sampler_logprobs")
    for field in fields:
        toy.assert_same_bits(getattr(part, field), jax.tree.map(lambda x: x[taken], getattr(whole, field)))
    for number, term in enumerate(phase.all_terms):
        own = slice(number * 8, number * 8 + 8)
        mask = part.sequences.mask[own]
        expected = term.coefficient * term.aggregation(jnp.asarray(mask), jnp.ones(8, bool), 5)
        np.testing.assert_allclose(part.weights[own], expected, rtol=1e-6)


@pytest.mark.parametrize("name", PHASES)
def test_the_gradient_depends_neither_on_packing_nor_on_microbatches(name):
    phase = PHASES[name]
    batch = prepare(phase, rows=np.r_[8:12, 0:4])
    loss = jax.value_and_grad(pj.make_loss(MODEL, phase.objective), has_aux=True)
    plain = jax.jit(loss)(NOW, batch)
    local = toy.to_numpy(batch)
    groups = pj.plan_bins(local, phase.objective, 24)
    rows = 2 * len(groups)
    packed = pj.pack(local, groups, rows, 24, microbatches=rows)
    assert len(groups) < len(local.weights)
    trained = packed.weights.any(axis=1)
    toy.assert_close(jax.jit(lambda b, t: accumulate(loss, rows, NOW, b, t))(packed, trained), plain, rtol=1e-4)
    assert plain[0][1]["clip_fraction"] > 0
    assert plain[0][1]["reference_kl"] > 0


def test_old_log_probabilities_are_the_batchs_only_where_there_are_several_updates():
    phase = dataclasses.replace(PHASES["kl in the reward"], epochs=1, minibatches=1)
    assert phase.logprobs_needed_before_update == ("old_logprobs", "ref_logprobs")
    batch = prepare(phase)
    assert batch.old_logprobs is None
    assert batch.ref_logprobs is not None
    assert dataclasses.replace(phase, reward_shaping=None).logprobs_needed_before_update == ()


@pytest.mark.parametrize("name", ["two spaces", "kl in the reward"])
def test_missing_log_probabilities_are_named(name):
    with pytest.raises(ValueError, match=r"4 updates a step .*old_logprobs=x, ref_logprobs=x"):
        pj.make_prepare(PHASES[name], GROUP)(ROLLOUTS)


@pytest.mark.parametrize("counts", [{"epochs": 0}, {"minibatches": 0}])
def test_no_update_is_refused(counts):
    with pytest.raises(ValueError, match=f"{next(iter(counts))}=0.*both must be 1 or more"):
        pj.Phase("p", 1, **counts)


SIGNS = [
    # advantage, ratio, whether the token has a gradient
    (+1.0, 0.5, True),
    (+1.0, 1.1, True),
    (+1.0, 1.5, False),
    (-1.0, 0.5, False),
    (-1.0, 0.9, True),
    (-1.0, 1.5, True),
]


def test_the_sign_table_of_ppo_holds_for_the_gradient_of_the_parameters():
    """Of a token alone, through scoring, packing and the fused loss: -A rho grad log pi, or exactly nothing."""
    phase = pj.Phase("p", 1, pj.PreTrainSpace(0), objective=pj.ClippedPG(0.2, 0.3), epochs=2)
    layout = toy.to_numpy(pj.make_layout(phase)(ROLLOUTS))
    score = jax.jit(pj.make_score(MODEL))(NOW, layout.sequences)
    place = tuple(np.argwhere(layout.sequences.mask)[3])
    one = np.zeros(layout.weights.shape, np.float32)
    one[place] = 1.0
    loss = jax.jit(jax.grad(lambda params, batch: pj.make_loss(MODEL, phase.objective)(params, batch)[0]))
    plain = jax.jit(jax.grad(lambda params: pj.make_score(MODEL)(params, layout.sequences)[place]))(NOW)
    for advantage, ratio, wanted in SIGNS:
        old = np.asarray(score) - np.log(ratio) * one
        batch = dataclasses.replace(layout, weights=one, advantages=advantage * one, old_logprobs=old)
        packed = pj.pack(batch, pj.plan_bins(batch, phase.objective, 16), 2, 16)
        found = loss(NOW, packed)
        expected = jax.tree.map(lambda x, a=advantage, r=ratio, w=wanted: -a * r * x * w, plain)
        toy.assert_close(found, expected, rtol=1e-4, atol=1e-6)
        assert wanted == any(np.abs(x).max() > 0 for x in jax.tree.leaves(found)), (advantage, ratio)
