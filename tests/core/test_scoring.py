"""Old and reference log-probabilities of a batch, packed and in either space."""

import dataclasses

import jax
import numpy as np
import pytest
import toy

import prerl_jax as pj

MODEL = toy.Toy()
NEAR, FAR = jax.tree.map(lambda x: 0.9 * x, MODEL.init()), MODEL.init(1)


@pytest.mark.parametrize("space", [pj.PreTrainSpace(prefix=0), pj.PostTrainSpace()])
def test_both_are_of_the_batchs_own_rows(space):
    whole = pj.make_prepare(pj.Phase("p", 1, space), 4)(toy.rollouts())
    local = toy.to_numpy(whole)
    capacity = 2 * whole.weights.shape[1]
    objective = pj.WithKL(pj.ClippedPG(), 0.1)
    packed = pj.pack(local, pj.plan_bins(local, objective, capacity), 4, capacity)
    anchor = jax.jit(pj.make_score_old_and_reference(MODEL, 0.7))
    found = [anchor(batch, old=NEAR, reference=FAR) for batch in (whole, packed)]
    score = pj.make_score(MODEL, 0.7)
    np.testing.assert_allclose(found[0].old_logprobs, score(NEAR, whole.sequences), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[0].ref_logprobs, score(FAR, whole.sequences), rtol=1e-5, atol=1e-6)
    loss = jax.jit(jax.value_and_grad(pj.make_loss(MODEL, objective, temperature=0.7), has_aux=True))
    ours, theirs = (loss(MODEL.init(), dataclasses.replace(b, sampler_logprobs=None)) for b in found)
    toy.assert_close(ours, theirs, rtol=1e-4)
    assert ours[0][1]["kl_ref"] > 0


def test_what_is_not_given_stays_as_it_is():
    batch = pj.make_prepare(pj.Phase("p", 1), 4)(toy.rollouts())
    found = pj.make_score_old_and_reference(MODEL)(batch, reference=FAR)
    assert found.old_logprobs is None
    toy.assert_same_bits(dataclasses.replace(found, ref_logprobs=None), batch)
