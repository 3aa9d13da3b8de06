"""Packing: what shares a row, what is left out, and that losses and gradients do not notice."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import prerl_jax as pj
from prerl_jax.core.packing import first_fit
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.layers import DecoderConfig

MODEL = toy.Toy()
CLIPPED = pj.ClippedPG()


def prepared(phase, rollouts, group_size=4):
    """The phase's batch on the host."""
    return toy.to_numpy(pj.make_prepare(phase, group_size)(rollouts))


def packed(batch, objective=CLIPPED, capacity=None, multiple=1):
    bins = pj.plan_bins(batch, objective, capacity)
    return pj.pack(batch, bins, pj.bucket(len(bins), multiple), capacity)


@pytest.mark.parametrize(
    ("lengths", "capacity", "rows"),
    [
        ([4, 8, 1, 4, 2, 1], 10, [[1, 4], [0, 3, 2, 5]]),  # longest first, ties in order
        ([5, 5, 5], 10, [[0, 1], [2]]),
        ([3, 7, 6, 4], 10, [[1, 0], [2, 3]]),
        ([6, 5, 3, 2, 2], 9, [[0, 2], [1, 3, 4]]),
        ([9], 9, [[0]]),
        ([], 9, []),
    ],
)
def test_first_fit(lengths, capacity, rows):
    assert first_fit(np.asarray(lengths, int), capacity) == rows


def test_a_sequence_longer_than_the_rows_is_refused():
    with pytest.raises(ValueError, match="A sequence of 11 tokens does not fit in rows of 10"):
        first_fit(np.asarray([3, 11]), 10)
    with pytest.raises(ValueError, match="does not fit in rows of 3"):
        pj.plan_bins(prepared(pj.grpo(steps=1)[0], toy.rollouts()), CLIPPED, 3)


@pytest.mark.parametrize(
    ("multiple", "expected"),
    [
        (1, [1, 1, 2, 3, 4, 6, 6, 8, 8, 12, 12, 12, 12, 16, 16, 16, 16, 24]),
        (8, [8, 8, 8, 8, 8, 8, 8, 8, 8, 16, 16, 16, 16, 16, 16, 16, 16, 24]),
        (3, [3, 3, 3, 3, 6, 6, 6, 9, 9, 9, 12, 12, 12, 18, 18, 18, 18, 18]),
    ],
)
def test_bucket(multiple, expected):
    assert [pj.bucket(rows, multiple) for rows in range(18)] == expected


T, F = True, False
HAND = pj.Batch(  # the second row has no weight, the third no advantage, the last no token
    sequences=pj.Sequences(
        tokens=np.asarray([[0, 7, 1, 2], [6, 5, 1, 0], [0, 4, 3, 2], [9, 8, 0, 0], [0, 0, 0, 0]]),
        positions=np.asarray([[0, 0, 1, 2], [0, 1, 2, 0], [0, 0, 1, 2], [0, 1, 0, 0], [0, 0, 0, 0]]),
        segments=np.asarray([[0, 1, 1, 1], [1, 1, 1, 0], [0, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]]),
        mask=np.asarray([[F, F, T, T], [F, T, T, F], [F, F, T, T], [F, T, F, F], [F, F, F, F]]),
    ),
    weights=np.asarray([[0, 0, 0.2, 0.2], [0] * 4, [0, 0, 0.2, 0.2], [0, 0.2, 0, 0], [0] * 4], np.float32),
    advantages=np.asarray([[0, 0, 1, 1], [0, 2, 2, 0], [0, 0, 0, 0], [0, -1, 0, 0], [0] * 4], np.float32),
    old_logprobs=np.asarray([[0, 0, -1, -2], [0] * 4, [0] * 4, [0, -3, 0, 0], [0] * 4], np.float32),
)


def test_pack_by_hand():
    bins = pj.plan_bins(HAND, CLIPPED, 5)
    assert bins == [[0, 3]]
    found = pj.pack(HAND, bins, 2, 5)
    expected = pj.Batch(
        sequences=pj.Sequences(
            tokens=np.asarray([[7, 1, 2, 9, 8], [0] * 5]),
            positions=np.asarray([[0, 1, 2, 0, 1], [0] * 5]),
            segments=np.asarray([[1, 1, 1, 2, 2], [0] * 5], np.int32),
            mask=np.asarray([[F, T, T, F, T], [F] * 5]),
        ),
        weights=np.asarray([[0, 0.2, 0.2, 0, 0.2], [0] * 5], np.float32),
        advantages=np.asarray([[0, 1, 1, 0, -1], [0] * 5], np.float32),
        old_logprobs=np.asarray([[0, -1, -2, 0, -3], [0] * 5], np.float32),
    )
    toy.assert_same_bits(found, expected)


def test_rows_fill_one_microbatch_after_the_other():
    """Part i of the step is every 3rd row from i on: two rows of it are filled before those of the next."""
    batch = toy.to_numpy(pj.make_prepare(pj.grpo(steps=1)[0], 4)(toy.rollouts()))
    bins = [[0], [1], [2]]
    plain, laid = pj.pack(batch, bins, 6), pj.pack(batch, bins, 6, microbatches=3)
    np.testing.assert_array_equal(laid.weights[[0, 3, 1]], plain.weights[:3])
    assert not laid.weights[[4, 2, 5]].any()
    with pytest.raises(ValueError, match="6 rows do not divide into 4 microbatches"):
        pj.pack(batch, bins, 6, microbatches=4)


@dataclasses.dataclass(frozen=True)
class WithoutAdvantage(pj.ClippedPG):
    """An objective that still has a loss at advantage 0."""

    traits = pj.ObjectiveTraits(elementwise=True)


def test_rows_of_advantage_0_are_left_out_only_where_the_objective_allows_it():
    assert pj.plan_bins(HAND, CLIPPED) == [[0], [3]]
    assert pj.plan_bins(HAND, WithoutAdvantage()) == [[0], [2], [3]]
    assert pj.plan_bins(HAND, None) == [[0], [2], [3]]  # a critic's batch


def test_what_cannot_be_packed_is_refused():
    batch = pj.pack(HAND, [[0, 3]], 2, 5)
    with pytest.raises(ValueError, match="Only unpacked rows"):
        pj.plan_bins(batch, CLIPPED)
    with pytest.raises(ValueError, match="2 packed rows do not fit in 1"):
        pj.pack(HAND, [[0], [3]], 1)


def test_a_batch_without_a_trained_token_packs_into_empty_rows():
    nothing = dataclasses.replace(HAND, weights=np.zeros_like(HAND.weights))
    assert pj.plan_bins(nothing, CLIPPED) == []
    found = packed(nothing, multiple=2)
    assert found.weights.shape == (2, 4)
    assert not any(leaf.any() for leaf in jax.tree.leaves(found))


def with_optional_fields(batch):
    """Every optional field of the batch, with numbers under the mask and NaN elsewhere."""
    rng, mask = np.random.default_rng(1), batch.sequences.mask
    fields = ("old_logprobs", "ref_logprobs", "sampler_logprobs")
    values = {name: np.where(mask, -2 + rng.normal(size=mask.shape), np.nan).astype(np.float32) for name in fields}
    return dataclasses.replace(batch, **values)


PHASES = {
    "NSR in P(y)": pj.nsr_prerl(steps=1, prefix=0)[0],
    "GRPO": pj.grpo(steps=1)[0],
    "mixed": pj.Phase("mixed", 1, terms=(pj.Term(pj.PreTrainSpace(0)), pj.Term(pj.PostTrainSpace()))),
}
DECODER = Decoder(DecoderConfig("qwen3", 13, 16, 32, 2, 4, 2, 8, qk_norm=True, qkv_bias=True))


def solved_and_unsolved():
    """Rollouts of four prompts, one all right and one all wrong."""
    r = toy.rollouts(prompts=4)
    return dataclasses.replace(r, rewards=r.rewards.at[:4].set(1.0).at[8:12].set(0.0))


def toy_params():
    return MODEL.init()


def decoder_params():
    return toy.random_params(DECODER)


@pytest.mark.parametrize(
    ("model", "init", "name"),
    [(MODEL, toy_params, "NSR in P(y)"), (MODEL, toy_params, "mixed"), (DECODER, decoder_params, "GRPO")],
    ids=["NSR in P(y)", "mixed", "GRPO of a real decoder"],
)
def test_packed_and_unpacked_rows_have_one_loss_and_one_gradient(model, init, name):
    params, run = init(), jax.jit(jax.value_and_grad(pj.make_loss(model, CLIPPED), has_aux=True))
    batch = with_optional_fields(prepared(PHASES[name], solved_and_unsolved()))
    dense = packed(batch, capacity=16)
    assert dense.sequences.segments.max() >= 2
    assert dense.weights.shape[0] < batch.weights.shape[0] / 2
    assert np.isfinite(dense.old_logprobs[dense.sequences.mask]).all()
    (loss, sums), gradient = run(params, batch)
    (dense_loss, dense_sums), dense_gradient = run(params, dense)
    assert abs(float(loss)) > 1e-4
    toy.assert_close(dense_loss, loss)
    toy.assert_close(dense_gradient, gradient, rtol=1e-4, atol=1e-6)
    toy.assert_close(dense_sums, sums, rtol=1e-4)
    assert {"sampler_logprob_diff", "ratio", "clip_fraction", "logprob", "entropy", "tokens"} <= set(sums)


def test_rows_left_out_still_count_in_the_denominator():
    rollouts = solved_and_unsolved()
    tokens = rollouts.response_mask.sum()
    batch = prepared(pj.grpo(steps=1)[0], rollouts)
    np.testing.assert_allclose(batch.weights.sum(), 1, rtol=1e-6)
    dense = packed(batch)
    trained = rollouts.response_mask[4:8].sum() + rollouts.response_mask[12:].sum()
    np.testing.assert_allclose(dense.weights[dense.sequences.mask], np.full(trained, 1 / tokens), rtol=1e-6)


def test_dropped_samples_leave_numerator_and_denominator():
    rollouts = toy.rollouts()
    negatives = np.asarray(rollouts.rewards) == 0  # every group has some of both
    tokens = np.asarray(rollouts.response_mask)[negatives].sum()
    dense = packed(prepared(pj.nsr_prerl(steps=1, prefix=0)[0], rollouts))
    assert dense.sequences.mask.sum() == tokens
    np.testing.assert_allclose(dense.weights[dense.sequences.mask], np.full(tokens, 0.01 / tokens), rtol=1e-6)


@pytest.mark.parametrize("phase", [pj.nsr_prerl(steps=1, prefix=0)[0], pj.nsr_rl(steps=1)[0]], ids=lambda p: p.name)
def test_an_nsr_update_does_not_change_when_positive_samples_are_rewritten(phase):
    here = toy.rollouts()
    positive = here.rewards[:, None] > 0
    other = toy.rollouts(seed=5)
    there = dataclasses.replace(
        here,
        response=jnp.where(positive, other.response, here.response),
        response_mask=jnp.where(positive, other.response_mask, here.response_mask),
    )
    assert (here.response != there.response).any()
    tx = pj.adamw(0.1)
    step = jax.jit(pj.make_train_step(MODEL, tx, phase.objective))
    state = pj.init_state(MODEL.init(), tx, jax.random.key(0))
    packs = [dataclasses.replace(packed(prepared(phase, r)), sampler_logprobs=None) for r in (here, there)]
    toy.assert_same_bits(*packs)
    (ours, metrics), (theirs, _) = (step(state, batch) for batch in packs)
    toy.assert_same_bits(ours.params, theirs.params)
    assert metrics["train/update_norm"] > 0


def test_a_run_compiles_a_handful_of_programs():
    """200 batches of 64 sequences whose lengths and number of trained rows vary as they do in a run."""
    rng, shapes = np.random.default_rng(0), set()
    for step in range(200):
        kept = int(64 * rng.uniform(0.1, 0.9 if step < 20 else 0.7))
        lengths = np.clip(rng.lognormal(4.5 + step / 200, 0.7, kept), 8, 512).astype(int)
        shapes.add(pj.bucket(len(first_fit(lengths, 512)), 8))
    assert shapes <= {8, 16, 24, 32, 48, 64}
    assert len(shapes) <= 5
