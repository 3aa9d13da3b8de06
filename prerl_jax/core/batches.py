"""From rollouts to a batch: spaces, credits and weighings put together. Traceable; one row a sequence."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from prerl_jax.core.critic import value_batch
from prerl_jax.core.logprobs import token_logprobs
from prerl_jax.core.phases import Phase, Term
from prerl_jax.core.shaping import credited
from prerl_jax.core.spaces import response_part
from prerl_jax.core.types import Array, Batch, Model, Params, Rollouts, Sequences, Space


def make_score(
    model: Model, temperature: float = 1.0, *, chunk: int | None = None
) -> Callable[[Params, Sequences], Array]:
    """score(params, sequences) -> log-probability of every token, f32[B, T]; 0 where the mask is False."""

    def score(params: Params, sequences: Sequences) -> Array:
        return score_with_entropy(model, params, sequences, temperature, chunk)[0]

    return score


def score_with_entropy(
    model: Model, params: Params, sequences: Sequences, temperature: float, chunk: int | None
) -> tuple[Array, Array]:
    """(log-probabilities, entropies), f32[B, T] each; 0 where the mask is False."""
    hidden = model.hidden(params, sequences.tokens, sequences.positions, sequences.segments)
    scored = token_logprobs(hidden, model.unembedding(params), sequences.tokens, temperature=temperature, chunk=chunk)
    return tuple(jnp.where(sequences.mask, x, 0.0) for x in scored)


def make_prepare(
    model: Model, phase: Phase, group_size: int, *, response_length: int | None = None
) -> Callable[[Params, Rollouts], Batch]:
    """prepare(params, rollouts) -> Batch of the phase's terms, B rows each, one below the other.

    Old log-probabilities are None: there is one update per rollout, and the current ones serve. What some phases need
    besides is passed by keyword, and a ValueError says what is missing: `phase_step` i32[], the steps done in the phase
    (a coefficient on a Schedule); `key`, a PRNG key of the step (PromptDropout); `values` f32[B, R] of a critic (GAE),
    which gets its own rows then.

    Args:
      model: the policy.
      phase: its space, credit, weighing and shape, or its terms, are used.
      group_size: rollouts of one prompt, side by side.
      response_length: R of the weighings; the width of the rollouts' responses by default.
    """

    def prepare(
        params: Params,
        rollouts: Rollouts,
        *,
        phase_step: Array | None = None,
        key: Array | None = None,
        values: Array | None = None,
    ) -> Batch:
        del params
        length = response_length or rollouts.response.shape[1]
        if phase.shape is not None:
            rollouts = dataclasses.replace(rollouts, rewards=phase.shape(rollouts, length))
        batches = []
        for number, term in enumerate(phase.parts):
            sequences = _laid_out(term.space, rollouts, key, number)
            credit = credited(term.credit, rollouts, group_size, values)
            scale = _coefficient(term, phase_step)
            batches.append(_term_batch(term, rollouts, sequences, credit, length, scale))
        batch = concatenate(batches)
        if phase.valued is None:
            return batch
        _, keep = credited(phase.valued, rollouts, group_size, values)
        return dataclasses.replace(batch, critic=value_batch(phase.valued, rollouts, values, keep))

    return prepare


def _laid_out(space: Space, rollouts: Rollouts, key: Array | None, number: int) -> Sequences:
    if not getattr(space, "needs_key", False):
        return space(rollouts)
    if key is None:
        raise ValueError(f"{space} draws at random: pass prepare(..., key=k), a PRNG key that depends on the step.")
    return space(rollouts, key=jax.random.fold_in(key, number))


def _coefficient(term: Term, phase_step: Array | None) -> Array | float:
    if not callable(term.coefficient):
        return term.coefficient
    if phase_step is None:
        raise ValueError(
            f"{term.coefficient} is a schedule: pass prepare(..., phase_step=n), the steps done in the phase."
        )
    return term.coefficient(phase_step)


def _term_batch(
    term: Term,
    rollouts: Rollouts,
    sequences: Sequences,
    credit: tuple[Array, Array],
    response_length: int,
    coefficient: Array | float,
) -> Batch:
    advantages, keep = credit
    if advantages.ndim == 1:
        advantages = jnp.broadcast_to(advantages[:, None], rollouts.response.shape)
    given_prompt = getattr(term.space, "given_prompt", False)
    return Batch(
        sequences=sequences,
        weights=coefficient * term.weigh(sequences.mask, keep, response_length),
        advantages=response_part(sequences, rollouts, advantages),
        sampler_logprobs=response_part(sequences, rollouts, rollouts.logprobs) if given_prompt else None,
    )


def concatenate(batches: list[Batch]) -> Batch:
    """The rows of all batches in one, padded on the right to the longest; an optional field must be in all to stay."""
    if len(batches) == 1:
        return batches[0]
    length = max(batch.weights.shape[1] for batch in batches)

    def rows(get):
        parts = [get(batch) for batch in batches]
        if any(part is None for part in parts):
            return None
        return jnp.concatenate([jnp.pad(part, [(0, 0), (0, length - part.shape[1])]) for part in parts])

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
        sampler_logprobs=rows(lambda b: b.sampler_logprobs),
    )
