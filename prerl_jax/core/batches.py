"""From rollouts to a batch: spaces, credits and weighings put together. Traceable; one row a sequence."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from prerl_jax.core.advantages import estimate_advantages
from prerl_jax.core.critic import value_batch
from prerl_jax.core.phases import Phase, Term
from prerl_jax.core.spaces import response_part
from prerl_jax.core.types import Array, Batch, Model, Params, Rollouts, Sequences, Space


def make_prepare(
    model: Model, phase: Phase, group_size: int, *, response_length: int | None = None
) -> Callable[[Params, Rollouts], Batch]:
    """prepare(params, rollouts) -> Batch of the phase's terms, one row a rollout each, one below the other.

    What some phases need besides is passed by keyword, and a ValueError says what is missing:

      phase_step i32[], the steps done in the phase: a coefficient on a Schedule.
      key, a PRNG key of the step: PromptDropout.
      values f32[B, R] of a critic: GAE. The critic gets its own rows then.
      old_logprobs, ref_logprobs f32[terms * B, T], scored on the rows of `make_layout` before the step's first update:
        a KL penalty in the reward; and they become the batch's. Those of the policy do so where a phase has several
        updates: otherwise they are None, and the current ones serve.
      rows i32[N], the rollouts of a minibatch. AdvantageEstimator is given over all of them first, weights are normalised over
        these; the batch has N rows a term.

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
        old_logprobs: Array | None = None,
        ref_logprobs: Array | None = None,
        rows: Array | None = None,
    ) -> Batch:
        del params
        _check_shapes(rollouts)
        length = response_length or rollouts.response.shape[1]
        scored = {"old_logprobs": old_logprobs, "ref_logprobs": ref_logprobs}
        _check_scored(phase, scored)
        batches, critic = [], None
        for number, term in enumerate(phase.parts):
            sequences = _laid_out(term.space, rollouts, key, number)
            own = {n: _of_term(x, number, sequences) for n, x in scored.items() if x is not None}
            shaped = _shaped(phase, rollouts, length, own)
            advantages, keep = estimate_advantages(term.advantage, shaped, group_size, values)
            coefficient = _coefficient(term, phase_step)
            if phase.updates == 1:
                own.pop("old_logprobs", None)
            whole = _term_batch(term, rollouts, sequences, advantages, own)
            batch, keep_rows, *of_critic = _take(rows, (whole, keep, shaped, values))
            weights = coefficient * term.aggregation(batch.sequences.mask, keep_rows, length)
            batches.append(dataclasses.replace(batch, weights=weights))
            if critic is None and term.advantage == phase.valued:
                critic = value_batch(term.advantage, *of_critic, keep_rows)
        return dataclasses.replace(concatenate(batches), critic=critic)

    return prepare


def make_layout(phase: Phase) -> Callable[[Rollouts], Batch]:
    """layout(rollouts, key=None) -> Batch of the same rows as `make_prepare`'s, in which every token counts as trained.

    So it can be planned, packed and scored before anything is known of credits. Advantages are 1, and so are weights.
    """

    def layout(rollouts: Rollouts, *, key: Array | None = None) -> Batch:
        terms = [_laid_out(term.space, rollouts, key, number) for number, term in enumerate(phase.parts)]
        ones = [sequences.mask.astype(jnp.float32) for sequences in terms]
        return concatenate([Batch(sequences, one, one) for sequences, one in zip(terms, ones, strict=True)])

    return layout


def _check_shapes(rollouts: Rollouts) -> None:
    """Raises ValueError where there is no row, or arrays do not match: broadcast, they would give other advantages."""
    rows, length = (*rollouts.response.shape, 0, 0)[:2]
    prompt, response = (rows, *rollouts.prompt.shape[1:2]), (rows, length)
    expected = {"prompt": prompt, "prompt_mask": prompt, "response": response, "response_mask": response}
    expected |= {"rewards": (rows,), "logprobs": response, "truncated": (rows,)}
    shapes = {name: jnp.shape(x) for name in expected if (x := getattr(rollouts, name)) is not None}
    wrong = [f"{name} of shape {shape}" for name, shape in shapes.items() if shape != expected[name]]
    if wrong or not rows:
        raise ValueError(
            f"Rollouts of {rows} responses of {length} tokens have {', '.join(wrong) or 'no row'}; prompt is [B, P], "
            "response and logprobs are [B, R], as are their masks, and rewards are [B], with B of 1 or more."
        )


def _check_scored(phase: Phase, scored: dict[str, Array | None]) -> None:
    missing = [name for name in phase.scored_before if scored[name] is None]
    if missing:
        raise ValueError(
            f"Phase {phase.name!r} has {phase.updates} updates a step and the shape {phase.reward_shaping}: pass "
            f"prepare(..., {', '.join(f'{n}=x' for n in missing)}), scored on the rows of make_layout(phase)."
        )


def _laid_out(space: Space, rollouts: Rollouts, key: Array | None, number: int) -> Sequences:
    if not getattr(space, "needs_key", False):
        return space(rollouts)
    if key is None:
        raise ValueError(f"{space} draws at random: pass prepare(..., key=k), a PRNG key that depends on the step.")
    return space(rollouts, key=jax.random.fold_in(key, number))


def _of_term(values: Array, number: int, sequences: Sequences) -> Array:
    """The part of [terms * B, T] that is the term's, as its rows are."""
    rows, length = sequences.tokens.shape
    return values[number * rows : (number + 1) * rows, :length]


def _shaped(phase: Phase, rollouts: Rollouts, length: int, own: dict[str, Array]) -> Rollouts:
    """The rollouts with the rewards that credit is computed from."""
    if phase.reward_shaping is None:
        return rollouts
    extra = {}
    if getattr(phase.reward_shaping, "needs_reference", False):
        if "ref_logprobs" not in own:
            raise ValueError(f"{phase.reward_shaping} compares with a reference: pass prepare(..., ref_logprobs=x).")
        wide = rollouts.response.shape[1]
        extra = {"logprobs": own["old_logprobs"][:, -wide:], "reference": own["ref_logprobs"][:, -wide:]}
    return dataclasses.replace(rollouts, rewards=phase.reward_shaping(rollouts, length, **extra))


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


def _term_batch(
    term: Term, rollouts: Rollouts, sequences: Sequences, advantages: Array, scored: dict[str, Array]
) -> Batch:
    """All of a term's batch but its weights."""
    if advantages.ndim == 1:
        advantages = jnp.broadcast_to(advantages[:, None], rollouts.response.shape)
    given_prompt = getattr(term.space, "given_prompt", False)
    return Batch(
        sequences=sequences,
        weights=jnp.zeros(sequences.mask.shape),
        advantages=response_part(sequences, rollouts, advantages),
        sampler_logprobs=response_part(sequences, rollouts, rollouts.logprobs) if given_prompt else None,
        **scored,
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
