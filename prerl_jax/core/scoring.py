"""Log-probabilities that a batch is held against: of the policy before its updates, and of a reference.

    log pi_old    several updates of one rollout: the ratio is pi / pi_old
    log pi_ref    a KL term: the divergence is from pi_ref

Both are scored on the batch's own rows, so in the space and the packing that it is trained in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp

from prerl_jax.core.logprobs import token_logprobs
from prerl_jax.core.microbatches import by_parts
from prerl_jax.core.types import Array, Batch, Head, Model, Params, Sequences


def states(model: Model, params: Params, sequences: Sequences) -> tuple[Array, Head]:
    """(final hidden states [B, T, D], the head that turns them into logits)."""
    hidden = model.hidden(params, sequences.tokens, sequences.positions, sequences.segments)
    return hidden, model.head(params)


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
    hidden, head = states(model, params, sequences)
    scored = token_logprobs(hidden, head, sequences.tokens, temperature=temperature, chunk=chunk)
    return tuple(jnp.where(sequences.mask, x, 0.0) for x in scored)


class Anchor(Protocol):
    """(batch, *, old=None, reference=None) -> the batch with old_logprobs of one, ref_logprobs of the other."""

    def __call__(self, batch: Batch, *, old: Params | None = None, reference: Params | None = None) -> Batch: ...


def make_score_old_and_reference(
    model: Model, temperature: float = 1.0, *, chunk: int | None = None, microbatches: int = 1
) -> Anchor:
    """Fills in what a batch is held against; pure, jit it. One forward pass for each of the two that is given.

    Args:
      model: the policy's architecture, and the reference's.
      temperature: of the log-probabilities: the phase's.
      chunk: tokens of a row unembedded at once; None chooses.
      microbatches: parts that the rows are scored in, those without a token to score left out; as of the train step.

    Call it on packed rows, before the first update: rows that were left out are not scored.
    """
    score = make_score(model, temperature, chunk=chunk)

    def anchor(batch: Batch, *, old: Params | None = None, reference: Params | None = None) -> Batch:
        given = {"old_logprobs": old, "ref_logprobs": reference}

        def of(params: Params) -> Array:
            def part(rows: Sequences) -> Array:
                empty = jnp.zeros(rows.mask.shape)
                return jax.lax.cond(rows.mask.any(), lambda x: score(params, x), lambda _: empty, rows)

            return by_parts(part, microbatches, batch.sequences)

        return dataclasses.replace(batch, **{name: of(params) for name, params in given.items() if params is not None})

    return anchor
