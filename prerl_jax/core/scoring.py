"""Log-probabilities that are computed before the first update: those of the old policy, and those of a reference.

    log pi_old    for several updates of one batch of rollouts: the ratio is pi / pi_old
    log pi_ref    for a KL term: the divergence is KL(pi || pi_ref)

Both are computed on the batch's own rows, so in the space and the packing that the batch is trained in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp

from prerl_jax.core.head import Head
from prerl_jax.core.logprobs import token_logprobs
from prerl_jax.core.microbatches import map_microbatches
from prerl_jax.core.types import Array, Batch, Model, Params, Sequences


def states(model: Model, params: Params, sequences: Sequences) -> tuple[Array, Head]:
    """One forward pass: (final hidden states [B, T, D], the head that turns them into logits)."""
    hidden = model.hidden(params, sequences.tokens, sequences.positions, sequences.segments)
    return hidden, model.head(params)


def make_score(
    model: Model, temperature: float = 1.0, *, chunk: int | None = None
) -> Callable[[Params, Sequences], Array]:
    """Makes the function that computes the log-probability of every token.

    Args:
      model: the language model.
      temperature: divides the logits; above 0.
      chunk: tokens of a row whose logits are held at once; None chooses by LOGITS_BUDGET.

    Returns:
      score(params, sequences) -> f32[B, T], 0 where the mask is False; pure: jit it.
    """

    def score(params: Params, sequences: Sequences) -> Array:
        return score_with_entropy(model, params, sequences, temperature, chunk)[0]

    return score


def score_with_entropy(
    model: Model, params: Params, sequences: Sequences, temperature: float, chunk: int | None
) -> tuple[Array, Array]:
    """(log-probabilities, entropies), f32[B, T] each; 0 where the mask is False."""
    hidden, head = states(model, params, sequences)
    logprobs, entropy = token_logprobs(hidden, head, sequences.tokens, temperature=temperature, chunk=chunk)
    return jnp.where(sequences.mask, logprobs, 0.0), jnp.where(sequences.mask, entropy, 0.0)


class ScoreOldAndReference(Protocol):
    """(batch, *, old=None, reference=None) -> the batch with the log-probabilities under the given parameters."""

    def __call__(self, batch: Batch, *, old: Params | None = None, reference: Params | None = None) -> Batch: ...


def make_score_old_and_reference(
    model: Model, temperature: float = 1.0, *, chunk: int | None = None, microbatches: int = 1
) -> ScoreOldAndReference:
    """Makes the function that computes `old_logprobs` and `ref_logprobs` of a batch.

    Call it on packed rows, before the first update. Rows that packing has left out are not scored.

    Args:
      model: the architecture of the policy and of the reference.
      temperature: divides the logits; that of the phase.
      chunk: tokens of a row whose logits are held at once; None chooses by LOGITS_BUDGET.
      microbatches: parts that the rows are scored in, as in the train step; it must divide the rows. A part without a
        token to score is skipped.

    Returns:
      fill(batch, old=None, reference=None) -> the batch with `old_logprobs` f32[B, T] under the parameters `old` and
      `ref_logprobs` f32[B, T] under `reference`. What is None is left as it is. It costs one forward pass for each of
      the two. Pure: jit it.
    """
    score = make_score(model, temperature, chunk=chunk)

    def fill(batch: Batch, *, old: Params | None = None, reference: Params | None = None) -> Batch:
        def of(params: Params) -> Array:
            def part(rows: Sequences) -> Array:
                empty = jnp.zeros(rows.mask.shape)
                return jax.lax.cond(rows.mask.any(), lambda x: score(params, x), lambda _: empty, rows)

            return map_microbatches(part, microbatches, batch.sequences)

        return dataclasses.replace(
            batch,
            old_logprobs=batch.old_logprobs if old is None else of(old),
            ref_logprobs=batch.ref_logprobs if reference is None else of(reference),
        )

    return fill
