"""From rollouts to a batch: spaces, credits and weighings put together. Traceable; one row a sequence."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from prerl_jax.core.logprobs import token_logprobs
from prerl_jax.core.phases import Phase, Term
from prerl_jax.core.spaces import response_part
from prerl_jax.core.types import Array, Batch, Model, Params, Rollouts, Sequences


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

    Old log-probabilities are None: there is one update per rollout, and the current ones serve.

    Args:
      model: the policy.
      phase: its space, credit and weighing, or its terms, are used.
      group_size: rollouts of one prompt, side by side.
      response_length: R of the weighings; the width of the rollouts' responses by default.
    """

    def prepare(params: Params, rollouts: Rollouts) -> Batch:
        del params
        length = response_length or rollouts.response.shape[1]
        return concatenate([_term_batch(term, rollouts, group_size, length) for term in phase.parts])

    return prepare


def _term_batch(term: Term, rollouts: Rollouts, group_size: int, response_length: int) -> Batch:
    sequences = term.space(rollouts)
    advantages, keep = term.credit(rollouts.rewards, group_size)
    if advantages.ndim == 1:
        advantages = jnp.broadcast_to(advantages[:, None], rollouts.response.shape)
    given_prompt = getattr(term.space, "given_prompt", False)
    return Batch(
        sequences=sequences,
        weights=term.weigh(sequences.mask, keep, response_length),
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
