"""A user's own parts are frozen dataclasses, and a model is any object with the four methods; nothing is registered."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import toy

import prerl_jax as pj

MODEL = toy.Toy()


@dataclasses.dataclass(frozen=True)
class LeaveOneOut:
    """Reward minus the mean of the others'; samples of advantage below `floor` are left out."""

    floor: float = -0.5
    traits = pj.AdvantageTraits(compares_group=True)

    def __call__(self, rollouts, group_size, values=None):
        grouped = rollouts.rewards.reshape(-1, group_size)
        advantages = (grouped - grouped.mean(axis=1, keepdims=True)).reshape(-1) * group_size / (group_size - 1)
        return advantages, advantages >= self.floor


@dataclasses.dataclass(frozen=True)
class Entropic:
    """REINFORCE with an entropy bonus, which acts without an advantage too."""

    bonus: float = 0.1
    traits = pj.ObjectiveTraits(elementwise=True, needs_entropy=True)

    def __call__(self, logprobs, batch, entropy):
        return -batch.advantages * logprobs - self.bonus * entropy, {"bonus": self.bonus * entropy}


@dataclasses.dataclass(frozen=True)
class Reversed:
    """P(y reversed), after a token of its own."""

    first: int = 1
    traits = pj.SpaceTraits()

    def __call__(self, rollouts):
        length = rollouts.response_mask.sum(axis=1, keepdims=True)
        index = jnp.arange(rollouts.response.shape[1])
        tokens = jnp.take_along_axis(rollouts.response, jnp.maximum(length - 1 - index, 0), axis=1)
        tokens = jnp.pad(jnp.where(rollouts.response_mask, tokens, 0), [(0, 0), (1, 0)], constant_values=self.first)
        mask = jnp.pad(rollouts.response_mask, [(0, 0), (1, 0)])
        valid = mask.at[:, 0].set(True)
        positions = jnp.where(valid, jnp.arange(tokens.shape[1]), 0)
        return pj.Sequences(tokens, positions, valid.astype(jnp.int32), mask)


@dataclasses.dataclass(frozen=True)
class LastToken:
    """All the weight on the last token of every selected row."""

    def __call__(self, mask, keep, response_length):
        last = mask & (jnp.cumsum(mask, axis=1) == mask.sum(axis=1, keepdims=True)) & keep[:, None]
        return last / jnp.maximum(last.sum(), 1)


PHASE = pj.Phase("mine", 2, Reversed(), LeaveOneOut(), Entropic(), LastToken(), learning_rate=lambda step: 0.1)


def test_a_phase_of_own_parts_trains():
    rollouts, params = toy.rollouts(), MODEL.init()
    batch = jax.jit(pj.make_prepare(PHASE, 4))(rollouts)
    assert batch.sampler_logprobs is None  # this space is not given the prompt, as the sampler is
    advantages, keep = LeaveOneOut()(rollouts, 4)
    np.testing.assert_allclose(batch.advantages, np.where(batch.sequences.mask, advantages[:, None], 0))
    assert not keep.all()
    np.testing.assert_array_equal((batch.weights > 0).sum(axis=1), keep)
    planned = pj.plan_bins(toy.to_numpy(batch), PHASE.objective)
    assert sorted(i for row in planned for i in row) == np.flatnonzero(keep).tolist()

    tx = pj.adamw(PHASE.learning_rate)
    step = jax.jit(pj.make_train_step(MODEL, tx, PHASE.objective, microbatches=2))
    state, metrics = step(pj.init_state(params, tx, jax.random.key(0)), batch)
    logprobs, entropy = expected = own_score(params, batch.sequences)
    loss = (batch.weights * (-batch.advantages * logprobs - 0.1 * entropy)).sum()
    np.testing.assert_allclose(metrics["train/loss"], loss, rtol=1e-5)
    trained = batch.weights > 0
    np.testing.assert_allclose(metrics["train/bonus"], 0.1 * entropy[trained].mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["train/entropy"], entropy[trained].mean(), rtol=1e-5)
    assert metrics["train/skipped"] == 0
    after = own_score(state.params, batch.sequences)
    assert (batch.weights * batch.advantages * (after[0] - expected[0])).sum() > 0


def own_score(params, sequences):
    """(log-probabilities, entropies) from all logits of the toy."""
    hidden = MODEL.hidden(params, sequences.tokens, sequences.positions, sequences.segments)
    table = jax.nn.log_softmax(hidden @ params["unembed"])[:, :-1]
    chosen = jnp.take_along_axis(table, sequences.tokens[:, 1:, None], axis=-1)[..., 0]
    both = chosen, -(jnp.exp(table) * table).sum(axis=-1)
    return tuple(jnp.where(sequences.mask, jnp.pad(x, [(0, 0), (1, 0)]), 0) for x in both)


def test_score_of_an_own_model():
    assert isinstance(MODEL, pj.Model)
    sequences = pj.PostTrainSpace()(toy.rollouts())
    found = jax.jit(pj.make_score(MODEL))(MODEL.init(), sequences)
    np.testing.assert_allclose(found, own_score(MODEL.init(), sequences)[0], rtol=1e-5, atol=1e-6)
    assert (found[~sequences.mask] == 0).all()
    assert (found[sequences.mask] < 0).all()


def test_an_own_model_samples_what_it_scores():
    prompts = toy.rollouts(group_size=1, prompts=3)
    sample = pj.make_sampler(MODEL, pj.SamplerConfig(6, stop_tokens=(4, 5)), group_size=4)
    found = sample(MODEL.init(), pj.Prompts(prompts.prompt, prompts.prompt_mask), jax.random.key(0))
    score = jax.jit(pj.make_score(MODEL))(MODEL.init(), pj.PostTrainSpace()(found))
    np.testing.assert_allclose(found.logprobs, score[:, -6:], atol=1e-5)
