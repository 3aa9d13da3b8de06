"""From rollouts to a batch: applies a phase's spaces, advantage estimators and aggregations. Traceable.

Every sequence has a row of its own; `packing` puts several into one row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from prerl_jax.core.advantages import reads_values
from prerl_jax.core.critic import value_batch
from prerl_jax.core.gae import missing_values
from prerl_jax.core.grouping import by_group, equal_groups
from prerl_jax.core.phases import Phase, Term
from prerl_jax.core.reward_shaping import divergence_alone, reward_on_last_token
from prerl_jax.core.spaces import missing_key, response_part
from prerl_jax.core.types import AdvantageEstimator, Array, Batch, RewardShaping, Rollouts, Sequences, Space


class Prepare(Protocol):
    """The function that `make_prepare` returns."""

    def __call__(
        self,
        rollouts: Rollouts,
        *,
        phase_step: Array | None = None,
        key: Array | None = None,
        values: Array | None = None,
        old_logprobs: Array | None = None,
        ref_logprobs: Array | None = None,
        rows: Array | None = None,
    ) -> Batch:
        """A batch with one row for each term and rollout, the rows of the first term first.

        A response with an unknown verdict has advantage 0 and weight 0, whatever the estimator is, and its reward is
        not read. Some phases need one of the keywords; a ValueError names what is missing.

        Args:
          rollouts: B verified rollouts.
          phase_step: i32[], the steps done in the phase; for a coefficient on a Schedule.
          key: a PRNG key of the step; for PromptDropout.
          values: f32[B, R], a critic's; for GAE. The batch then has rows for the critic, too.
          old_logprobs, ref_logprobs: f32[terms * B, T], of the rows of `make_layout`, computed before the step's first
            update (see `Phase.logprobs_needed_before_update`). A KL penalty in the reward reads them, and they become
            the batch's. With one update a step the batch's old_logprobs stay None.
          rows: i32[N], the rollouts of a minibatch. Advantages are computed over all B rollouts first, weights are
            normalised over these N. The batch has N rows for each term.
        """


def make_prepare(phase: Phase, group_size: int, *, response_length: int | None = None) -> Prepare:
    """Makes prepare(rollouts, ...) -> Batch of the phase's terms, see `Prepare`.

    Args:
      phase: its terms and its reward shaping are used.
      group_size: the number of adjacent rollouts with the same prompt.
      response_length: R, for reward shaping and aggregation. None: the width of the rollouts' responses.

    Returns:
      The function. It is pure: jit it.
    """

    def prepare(
        rollouts: Rollouts,
        *,
        phase_step: Array | None = None,
        key: Array | None = None,
        values: Array | None = None,
        old_logprobs: Array | None = None,
        ref_logprobs: Array | None = None,
        rows: Array | None = None,
    ) -> Batch:
        _check_shapes(rollouts)
        rollouts = dataclasses.replace(rollouts, rewards=jnp.where(rollouts.known_mask, rollouts.rewards, 0.0))
        length = response_length or rollouts.response.shape[1]
        given = {"old_logprobs": old_logprobs, "ref_logprobs": ref_logprobs}
        _check_logprobs(phase, given)
        batches, critic = [], None
        for number, term in enumerate(phase.all_terms):
            sequences = _laid_out(term.space, rollouts, key, number)
            scored = {n: _rows_of_term(x, number, sequences) for n, x in given.items() if x is not None}
            shaped = _shaped(phase, rollouts, group_size, length, scored)
            if reads_values(term.advantage) and values is None:
                raise missing_values(term.advantage)
            advantages, keep = _of_known(term.advantage, shaped, group_size, values)
            coefficient = _coefficient(term, phase_step)
            if phase.updates == 1:
                scored.pop("old_logprobs", None)
            whole = _without_weights(term, rollouts, sequences, advantages, scored)
            batch, keep, shaped, own_values = _take(rows, (whole, keep, shaped, values))
            weights = coefficient * term.aggregation(batch.sequences.mask, keep, length)
            batches.append(dataclasses.replace(batch, weights=weights))
            if critic is None and reads_values(term.advantage):
                critic = value_batch(term.advantage, shaped, own_values, keep)
        return dataclasses.replace(concatenate(batches), critic=critic)

    return prepare


def make_layout(phase: Phase) -> Callable[..., Batch]:
    """layout(rollouts, *, key=None) -> Batch of the rows of `make_prepare`, with advantages and weights of 1.

    With it, rows can be planned, packed and scored before the advantages are known.

    Args:
      phase: its terms are laid out.

    Returns:
      The function; its batch has the arrays [terms * B, T] of the phase's spaces.
    """

    def layout(rollouts: Rollouts, *, key: Array | None = None) -> Batch:
        terms = [_laid_out(term.space, rollouts, key, number) for number, term in enumerate(phase.all_terms)]
        ones = [sequences.mask.astype(jnp.float32) for sequences in terms]
        return concatenate([Batch(sequences, one, one) for sequences, one in zip(terms, ones, strict=True)])

    return layout


def _check_shapes(rollouts: Rollouts) -> None:
    """Raises ValueError for no rows, and for arrays that do not match: broadcasting would give other advantages."""
    rows, length = (*rollouts.response.shape, 0, 0)[:2]
    prompt, response = (rows, *rollouts.prompt.shape[1:2]), (rows, length)
    expected = {"prompt": prompt, "prompt_mask": prompt}
    expected |= dict.fromkeys(("response", "response_mask", "logprobs", "loss_mask"), response)
    expected |= dict.fromkeys(("rewards", "truncated", "known", "right"), (rows,))
    shapes = {name: jnp.shape(x) for name in expected if (x := getattr(rollouts, name)) is not None}
    wrong = [f"{name} of shape {shape}" for name, shape in shapes.items() if shape != expected[name]]
    if wrong or not rows:
        raise ValueError(
            f"Rollouts of {rows} responses of {length} tokens have {', '.join(wrong) or 'no row'}; prompts and their "
            "mask are [B, P]; responses, logprobs and their masks are [B, R]; rewards, truncated, known and right are "
            "[B]; B is 1 or more."
        )


def _check_logprobs(phase: Phase, given: dict[str, Array | None]) -> None:
    missing = [name for name in phase.logprobs_needed_before_update if given[name] is None]
    if missing:
        raise ValueError(
            f"Phase {phase.name!r} has {phase.updates} updates a step and the reward shaping {phase.reward_shaping}: "
            f"pass prepare(..., {', '.join(f'{n}=x' for n in missing)}), computed on the rows of make_layout(phase)."
        )


def _laid_out(space: Space, rollouts: Rollouts, key: Array | None, number: int) -> Sequences:
    if not space.traits.needs_key:
        return space(rollouts)
    if key is None:
        raise missing_key(space)
    extra = {"key": jax.random.fold_in(key, number)}
    return space(rollouts, **extra)


def _rows_of_term(values: Array, number: int, sequences: Sequences) -> Array:
    """The part of [terms * B, T] that belongs to one term, as wide as its rows."""
    rows, length = sequences.tokens.shape
    return values[number * rows : (number + 1) * rows, :length]


def _shaped(phase: Phase, rollouts: Rollouts, group_size: int, length: int, scored: dict[str, Array]) -> Rollouts:
    """The rollouts with shaped rewards, from which advantages are computed.

    With `max_resamples`, groups of equal rewards are those that found no replacement. Only a divergence from the
    reference makes a difference between their responses.
    """
    shaping = phase.reward_shaping
    if shaping is None:
        return rollouts
    rewards = _shaped_rewards(shaping, rollouts, length, scored)
    if phase.max_resamples:
        plain = _shaped_rewards(divergence_alone(shaping), rollouts, length, scored)
        if plain.ndim < rewards.ndim:
            plain = reward_on_last_token(plain, rollouts.trained_mask)
        equal = equal_groups(rollouts, group_size)
        rewards = jnp.where(equal[:, None] if rewards.ndim == 2 else equal, plain, rewards)
    return dataclasses.replace(rollouts, rewards=rewards)


def _shaped_rewards(shaping: RewardShaping | None, rollouts: Rollouts, length: int, scored: dict[str, Array]) -> Array:
    """f32[B], or f32[B, R] by token: the rewards after one shaping."""
    if shaping is None:
        return rollouts.rewards
    extra = {}
    if shaping.traits.needs_reference:
        if "ref_logprobs" not in scored:
            raise ValueError(f"{shaping} compares with a reference: pass prepare(..., ref_logprobs=x).")
        wide = rollouts.response.shape[1]
        extra = {"logprobs": scored["old_logprobs"][:, -wide:], "reference": scored["ref_logprobs"][:, -wide:]}
    return shaping(rollouts, length, **extra)


def _of_known(
    advantage: AdvantageEstimator, rollouts: Rollouts, group_size: int, values: Array | None
) -> tuple[Array, Array]:
    """The estimator's advantages and selection, without responses whose verdict is unknown.

    The means of an estimator that does not read `known` count such a response. So it has the mean reward of the known
    responses there, which leaves the mean of the batch as it is, and its whole group is left out.
    """
    if rollouts.known is None:
        return advantage(rollouts, group_size, values)
    known = rollouts.known_mask
    if not advantage.traits.reads_known:
        rollouts = dataclasses.replace(rollouts, rewards=_with_mean_where_unknown(rollouts.rewards, known))
        known = jnp.repeat(by_group(known, group_size).all(axis=1), group_size)
    advantages, keep = advantage(rollouts, group_size, values)
    return jnp.where(known[:, None] if advantages.ndim == 2 else known, advantages, 0.0), keep & known


def _with_mean_where_unknown(rewards: Array, known: Array) -> Array:
    """Rewards f32[B] or f32[B, R] with the mean of the known rows, bool[B], in each unknown one; 0 if none is known."""
    known = known.reshape(-1, *(1,) * (rewards.ndim - 1))
    total = jnp.where(known, rewards, 0.0).sum(axis=0)
    return jnp.where(known, rewards, total / jnp.maximum(known.sum(), 1))


def _take(rows: Array | None, tree: Any) -> Any:
    return tree if rows is None else jax.tree.map(lambda x: x[rows], tree)


def _coefficient(term: Term, phase_step: Array | None) -> Array | float:
    if not callable(term.coefficient):
        return term.coefficient
    if phase_step is None:
        raise ValueError(
            f"{term.coefficient} is a schedule: pass prepare(..., phase_step=n), the steps done in the phase."
        )
    return term.coefficient(phase_step)


def _without_weights(
    term: Term, rollouts: Rollouts, sequences: Sequences, advantages: Array, scored: dict[str, Array]
) -> Batch:
    """A term's batch, with zeros for the weights."""
    if advantages.ndim == 1:
        advantages = jnp.broadcast_to(advantages[:, None], rollouts.response.shape)
    given_prompt = term.space.traits.given_prompt
    return Batch(
        sequences=sequences,
        weights=jnp.zeros(sequences.mask.shape),
        advantages=response_part(sequences, rollouts, advantages),
        sampler_logprobs=response_part(sequences, rollouts, rollouts.logprobs) if given_prompt else None,
        old_logprobs=scored.get("old_logprobs"),
        ref_logprobs=scored.get("ref_logprobs"),
    )


def concatenate(batches: list[Batch]) -> Batch:
    """One batch of the rows of all, padded on the right to the longest; an optional field is kept if all have it.

    The sampler's log-probabilities are kept if any batch has them. They are NaN, which is unknown, in the others' rows.
    """
    if len(batches) == 1:
        return batches[0]
    length = max(batch.weights.shape[1] for batch in batches)
    known = any(batch.sampler_logprobs is not None for batch in batches)

    def sampler_logprobs(batch: Batch) -> Array | None:
        return unknown_logprobs(batch) if known and batch.sampler_logprobs is None else batch.sampler_logprobs

    def rows(get):
        arrays = [get(batch) for batch in batches]
        if any(array is None for array in arrays):
            return None
        return jnp.concatenate([jnp.pad(array, [(0, 0), (0, length - array.shape[1])]) for array in arrays])

    return Batch(
        sequences=Sequences(
            tokens=rows(lambda b: b.sequences.tokens),
            positions=rows(lambda b: b.sequences.positions),
            segments=rows(lambda b: b.sequences.segments),
            mask=rows(lambda b: b.sequences.mask),
        ),
        weights=rows(lambda b: b.weights),
        advantages=rows(lambda b: b.advantages),
        old_logprobs=rows(lambda b: b.old_logprobs),
        ref_logprobs=rows(lambda b: b.ref_logprobs),
        sampler_logprobs=rows(sampler_logprobs),
    )


def unknown_logprobs(batch: Batch) -> Array:
    """f32[B, T], NaN: the sampler's log-probabilities in a space without the prompt, where there are none."""
    return jnp.full(batch.weights.shape, jnp.nan)
