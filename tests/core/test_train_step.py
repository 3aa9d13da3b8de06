"""The train step: sums that do not depend on how they are split, and steps that are skipped bit for bit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

import prerl_jax as pj
from prerl_jax.core.microbatches import Replicas, accumulate
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.layers import DecoderConfig
from prerl_jax.models.partitioning import splits_only_rows, within
from prerl_jax.runtime.mesh import MeshSpec, global_rows, make_mesh
from prerl_jax.runtime.state import create_state

MODEL, PHASE = toy.Toy(), pj.grpo(steps=1)[0]
TX = pj.adamw(optax.linear_schedule(0.1, 0.0, 10))


def batch_of(phase=PHASE, rollouts=None, model=MODEL):
    rollouts = rollouts or toy.rollouts()
    rollouts = dataclasses.replace(rollouts, logprobs=jnp.where(rollouts.response_mask, -2.0, jnp.nan))
    return pj.make_prepare(phase, 4)(rollouts)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rewards": jnp.zeros((8, 1))}, r"8 responses of 5 tokens have rewards of shape \(8, 1\);"),
        ({"rewards": jnp.zeros(12)}, r"rewards of shape \(12,\)"),
        ({"response_mask": jnp.ones((8, 4), bool)}, r"response_mask of shape \(8, 4\)"),
        ({"prompt": jnp.ones((4, 3), jnp.int32)}, r"prompt of shape \(4, 3\)"),
        ({"truncated": jnp.ones((8, 1), bool)}, r"truncated of shape \(8, 1\)"),
        ({"response": jnp.ones(8, jnp.int32)}, r"response of shape \(8,\)"),
    ],
)
def test_rollouts_whose_arrays_do_not_match_are_refused(change, says):
    """In P(y) nobody looks at the prompts, and rewards [B, 1] would have advantage 0, each in a group of its own."""
    rollouts = dataclasses.replace(toy.rollouts(), **change)
    with pytest.raises(ValueError, match=says):
        pj.make_prepare(pj.nsr_prerl(steps=1, prefix=1)[0], 4)(rollouts)


def test_rollouts_without_a_row_are_refused():
    with pytest.raises(ValueError, match=r"0 responses of 5 tokens have no row"):
        pj.make_prepare(PHASE, 4)(jax.tree.map(lambda x: x[:0], toy.rollouts()))


def fresh(phase_step=0):
    """A state with moments, some steps into a run."""
    state = pj.init_state(MODEL.init(), TX, jax.random.key(0))
    noise = jax.tree.map(lambda p: jnp.ones_like(p) * 0.01 if p.dtype == jnp.float32 else p + 3, state.opt_state)
    counters = {"step": jnp.asarray(40), "phase": jnp.asarray(1), "phase_step": jnp.asarray(phase_step)}
    return dataclasses.replace(state, opt_state=noise, **counters)


def arrays(result):
    """What a step changes."""
    state, metrics = result
    return state.step, state.params, state.opt_state, metrics


@pytest.fixture(scope="module")
def step():
    return jax.jit(pj.make_train_step(MODEL, TX, PHASE.objective))


def test_a_step(step):
    """The loss is the weighted sum, the update the optimizer's, the metrics means over trained tokens."""
    state, batch = fresh(), batch_of()
    after, metrics = step(state, batch)
    loss_and_gradient = jax.value_and_grad(pj.make_loss(MODEL, PHASE.objective), has_aux=True)
    (loss, sums), gradient = jax.jit(loss_and_gradient)(state.params, batch)
    updates, opt_state = TX.update(gradient, state.opt_state, state.params, phase_step=state.phase_step)
    toy.assert_close(after.params, optax.apply_updates(state.params, updates))
    toy.assert_close(after.opt_state, opt_state)
    assert [int(x) for x in (after.step, after.phase, after.phase_step)] == [41, 1, 1]
    assert (jax.random.key_data(after.rng) == jax.random.key_data(state.rng)).all()
    trained = (batch.weights != 0) & (batch.advantages != 0)
    logprobs = jax.jit(pj.make_score(MODEL))(state.params, batch.sequences)
    expected = {
        "train/loss": loss,
        "train/grad_norm": optax.tree.norm(gradient),
        "train/update_norm": optax.tree.norm(updates),
        "train/tokens": trained.sum(),
        "train/skipped": 0,
        "train/ratio": 1,
        "train/clip_fraction": 0,
        "train/kl_old": 0,
        "train/logprob": logprobs[trained].mean(),
        "train/sampler_logprob_diff": jnp.abs(logprobs - -2)[trained].mean(),
        "train/entropy": sums["entropy"] / sums["tokens"],
    }
    assert set(metrics) == set(expected)
    for name, value in metrics.items():
        assert value.shape == ()
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
    assert 0 < metrics["train/entropy"] < np.log(MODEL.vocab)


@pytest.mark.parametrize("microbatches", [2, 4, 8])
def test_microbatches_agree(step, microbatches):
    ours = jax.jit(pj.make_train_step(MODEL, TX, PHASE.objective, microbatches=microbatches))(fresh(), batch_of())
    toy.assert_close(arrays(ours), arrays(step(fresh(), batch_of())))


def test_microbatches_without_a_trained_token_are_not_computed():
    """One program for batches of any number of rows: a part of empty rows leaves what it would break untouched."""
    batch = toy.to_numpy(batch_of())
    bins = pj.plan_bins(batch, PHASE.objective)
    wide, narrow = (pj.pack(batch, bins, n * len(bins), microbatches=n) for n in (3, 1))
    ours = jax.jit(pj.make_train_step(MODEL, TX, PHASE.objective, microbatches=3))
    toy.assert_close(
        arrays(ours(fresh(), wide)), arrays(jax.jit(pj.make_train_step(MODEL, TX, PHASE.objective))(fresh(), narrow))
    )
    empty = wide.weights.reshape(-1, 3, wide.weights.shape[1]).any(axis=(0, 2))
    np.testing.assert_array_equal(empty, [True, False, False])

    def counted(params, part):
        jax.debug.callback(lambda: calls.append(1))
        return part.sum()

    calls = []
    found = jax.jit(lambda x, needed: accumulate(counted, 3, None, x, needed))(wide.weights, wide.weights.any(axis=1))
    jax.block_until_ready(found)
    jax.effects_barrier()
    np.testing.assert_allclose(found, wide.weights.sum(), rtol=1e-5)
    assert len(calls) == 1


def test_rows_that_do_not_divide_into_microbatches_are_refused():
    with pytest.raises(ValueError, match="8 rows do not divide into 3 microbatches"):
        pj.make_train_step(MODEL, TX, PHASE.objective, microbatches=3)(fresh(), batch_of())


@dataclasses.dataclass(frozen=True)
class Broken:
    """An objective with a finite loss whose gradient is NaN."""

    traits = pj.ObjectiveTraits()

    def __call__(self, logprobs, batch, entropy):
        return jnp.where(logprobs < 1, 0.0, jnp.sqrt(logprobs)), {}


def skipped_batches():
    batch = batch_of()
    first = jnp.argmax(batch.advantages != 0)
    row, column = divmod(int(first), batch.advantages.shape[1])
    return {
        "no kept token": dataclasses.replace(batch, weights=jnp.zeros_like(batch.weights)),
        "no advantage": dataclasses.replace(batch, advantages=jnp.zeros_like(batch.advantages)),
        "an infinite weight": dataclasses.replace(batch, weights=batch.weights.at[row, column].set(jnp.inf)),
        "a NaN advantage": dataclasses.replace(batch, advantages=batch.advantages.at[row, column].set(jnp.nan)),
    }


@pytest.mark.parametrize("name", skipped_batches())
def test_a_skipped_step_leaves_everything_but_the_counters(step, name):
    state = fresh(phase_step=4)
    after, metrics = step(state, skipped_batches()[name])
    toy.assert_same_bits((after.params, after.opt_state), (state.params, state.opt_state))
    assert [int(x) for x in (after.step, after.phase, after.phase_step)] == [41, 1, 5]
    assert metrics["train/skipped"] == 1
    assert metrics["train/update_norm"] == 0
    if name.startswith("no"):
        assert metrics["train/tokens"] == 0
        assert all(np.isfinite(value) for value in metrics.values())


def test_a_step_with_a_nan_gradient_is_skipped():
    state = fresh()
    after, metrics = jax.jit(pj.make_train_step(MODEL, TX, Broken()))(state, batch_of())
    toy.assert_same_bits((after.params, after.opt_state), (state.params, state.opt_state))
    assert np.isfinite(metrics["train/loss"])
    assert metrics["train/skipped"] == 1


def test_what_stands_outside_the_mask_is_harmless(step):
    batch = batch_of()
    mask = batch.sequences.mask
    old = jnp.where(mask, -2.0, 0.0)
    clean = dataclasses.replace(batch, old_logprobs=old)
    expected = step(fresh(), clean)
    for rubbish in (jnp.inf, -jnp.inf, jnp.nan):
        dirty = dataclasses.replace(
            clean,
            old_logprobs=jnp.where(mask, old, rubbish),
            sampler_logprobs=jnp.where(mask, clean.sampler_logprobs, rubbish),
            weights=jnp.where(mask, clean.weights, rubbish),
            advantages=jnp.where(mask, clean.advantages, rubbish),
        )
        toy.assert_same_bits(arrays(step(fresh(), dirty)), arrays(expected))
    assert expected[1]["train/skipped"] == 0


def test_the_state_can_be_donated(step):
    state, batch = fresh(), batch_of()
    donating = jax.jit(pj.make_train_step(MODEL, TX, PHASE.objective), donate_argnums=0)
    once, _ = donating(fresh(), batch)
    twice, _ = donating(once, batch)
    expected, _ = step(step(state, batch)[0], batch)
    toy.assert_close(twice.params, expected.params, rtol=1e-6)
    assert once.params["embed"].is_deleted()
    begun = pj.init_state(MODEL.init(), TX, jax.random.key(0))  # no two of its leaves share a buffer
    assert int(donating(begun, batch)[0].step) == 1


def test_the_rate_follows_the_step_of_the_phase(step):
    batch = batch_of()
    early, late = (step(fresh(phase_step), batch)[1]["train/update_norm"] for phase_step in (0, 5))
    np.testing.assert_allclose(late, early / 2, rtol=1e-5)


def test_temperature_is_that_of_the_logprobs():
    """Halving the temperature is doubling the unembedding."""
    batch, params = batch_of(), MODEL.init()
    doubled = params | {"unembed": 2 * params["unembed"]}

    def means(params, batch, temperature):
        step = pj.make_train_step(MODEL, TX, PHASE.objective, temperature=temperature)
        _, metrics = step(dataclasses.replace(fresh(), params=params), batch)
        score = pj.make_score(MODEL, temperature)(params, batch.sequences)
        return score, metrics["train/logprob"], metrics["train/entropy"]

    means = jax.jit(means, static_argnums=2)
    toy.assert_close(means(params, batch, 0.5), means(doubled, batch, 1.0))


def test_the_samplers_log_probabilities_count_where_they_are_known(step):
    """NaN stands for unknown: one program serves the phases of both spaces, and no number is made up for P(y)."""
    batch = batch_of()
    known = jnp.arange(len(batch.weights))[:, None] < 4
    some = dataclasses.replace(batch, sampler_logprobs=jnp.where(known, batch.sampler_logprobs, jnp.nan))
    none = dataclasses.replace(batch, sampler_logprobs=jnp.full_like(batch.weights, jnp.nan))
    everything, partly, nothing = (step(fresh(), b) for b in (batch, some, none))
    trained = (batch.weights != 0) & (batch.advantages != 0)
    logprobs = jax.jit(pj.make_score(MODEL))(fresh().params, batch.sequences)
    name = "train/sampler_logprob_diff"
    np.testing.assert_allclose(partly[1].pop(name), jnp.abs(logprobs + 2)[trained & known].mean(), rtol=1e-5)
    assert np.isnan(nothing[1].pop(name))
    del everything[1][name]
    toy.assert_same_bits(arrays(partly), arrays(everything))
    toy.assert_same_bits(arrays(nothing), arrays(everything))
    absent = pj.make_loss(MODEL, PHASE.objective)(MODEL.init(), dataclasses.replace(batch, sampler_logprobs=None))[1]
    assert not {"sampler_logprob_diff", "sampler_tokens"} & set(absent)


@pytest.mark.parametrize(("rate", "expected"), [(0.25, 0.25), (lambda step: 0.5 / (1 + step), 0.1), (None, None)])
def test_the_learning_rate_is_reported(rate, expected):
    step = pj.make_train_step(MODEL, pj.adamw(rate or 1e-3), PHASE.objective, learning_rate=rate)
    _, metrics = jax.jit(step)(fresh(phase_step=4), batch_of())
    assert metrics.get("train/learning_rate") == (None if expected is None else np.float32(expected))


@dataclasses.dataclass(frozen=True)
class Sum:
    """An objective that reads every number it is given."""

    traits = pj.ObjectiveTraits()

    def __call__(self, logprobs, batch, entropy):
        total = sum(x.sum() for x in (batch.old_logprobs, batch.ref_logprobs, batch.sampler_logprobs))
        return -batch.advantages * logprobs + total, {}


def test_an_objective_never_sees_what_stands_outside_the_mask():
    batch = batch_of()
    rubbish = jnp.where(batch.sequences.mask, -2.0, jnp.nan)
    fields = dict.fromkeys(("old_logprobs", "ref_logprobs", "sampler_logprobs"), rubbish)
    loss, _ = jax.jit(pj.make_loss(MODEL, Sum()))(MODEL.init(), dataclasses.replace(batch, **fields))
    assert np.isfinite(loss)


CONFIG = DecoderConfig("qwen3", 16, 16, 32, 2, 4, 2, 8, qk_norm=True, tied=False)


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [None, Replicas("data", 2)], ids=["reduced often", "reduced once"])
def test_one_device_and_eight_agree(replicas):
    """Parameters over fsdp, rows over data and fsdp, two microbatches. A small eps would blow rounding up."""
    tx = pj.adamw(0.1, eps=1e-3)
    mesh = make_mesh(MeshSpec(data=2, fsdp=4))
    batch = toy.to_numpy(batch_of(rollouts=toy.rollouts(prompts=4)))
    params = toy.random_params(Decoder(CONFIG))

    run = {"objective": PHASE.objective, "microbatches": 2}
    one = pj.init_state(params, tx, jax.random.PRNGKey(0))
    ours = jax.jit(pj.make_train_step(Decoder(CONFIG), tx, **run))(one, batch)
    sharded = Decoder(CONFIG, mesh=mesh)
    eight = create_state(jax.device_put(params, sharded.shardings()), tx, mesh, 0)
    before = jax.tree.map(lambda x: x.sharding, eight)
    assert eight.params["layers"]["mlp"]["up"].addressable_shards[0].data.shape == (2, 4, 32)

    assert splits_only_rows(sharded.rules, "data")
    assert not splits_only_rows(sharded.rules, "fsdp")
    model = sharded if replicas is None else within(sharded, "data")
    step = pj.make_train_step(model, tx, **run, replicas=replicas)
    theirs = jax.jit(step, donate_argnums=0)(eight, global_rows(mesh, batch))
    toy.assert_close(arrays(theirs), arrays(ours), rtol=1e-4, atol=1e-5)
    after = jax.tree.leaves(theirs[0])
    assert all(x.sharding.is_equivalent_to(s, x.ndim) for x, s in zip(after, jax.tree.leaves(before), strict=True))


def test_microbatches_that_do_not_divide_over_replicas():
    rows = np.zeros((6, 2))
    with pytest.raises(ValueError, match="the 3 rows of a microbatch do not divide over 2 replicas; use fewer microb"):
        accumulate(lambda params, rows: rows.sum(), 2, None, rows, replicas=Replicas("data", 2))
