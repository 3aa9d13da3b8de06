"""The train step: one weighted policy gradient and one optimizer update, whatever the phase.

    loss = sum_{b,t} w_{b,t} l_{b,t},    w normalised over the global batch

Microbatches, devices and packed rows only split this sum, so the result is the same to rounding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from prerl_jax.core.fused import Terms, fused_loss
from prerl_jax.core.kl import divergence
from prerl_jax.core.logprobs import token_logprobs
from prerl_jax.core.microbatches import Replicas, accumulate
from prerl_jax.core.objectives import segment_mean
from prerl_jax.core.optimizer import rate_at
from prerl_jax.core.params import merge_params
from prerl_jax.core.scoring import states
from prerl_jax.core.traits import ObjectiveTraits, check_traits
from prerl_jax.core.types import (
    Array,
    Batch,
    CriticState,
    Model,
    Objective,
    Params,
    Schedule,
    TrainState,
    ValueBatch,
)

Metrics = dict[str, Array]
CriticStep = Callable[[CriticState, ValueBatch, Array], tuple[CriticState, Metrics]]


def init_state(
    params: Params, tx: optax.GradientTransformation, rng: Array, frozen: Params | None = None
) -> TrainState:
    """The state at the start of a run: step 0 of phase 0.

    Args:
      params: the parameters to train, f32[...]. With `frozen`, one part of `split_params`.
      tx: the optimizer; moments are made for `params` alone.
      rng: key[], the run's PRNG key.
      frozen: the other part of `split_params`; None trains all parameters.

    Returns:
      the TrainState, with `step`, `phase` and `phase_step` i32[] of 0.
    """
    step, phase, phase_step = (jnp.zeros((), jnp.int32) for _ in range(3))  # one buffer each: they are donated
    return TrainState(step, params, tx.init(params), rng, phase, phase_step, frozen=frozen)


def make_loss(
    model: Model, objective: Objective, *, temperature: float = 1.0, chunk: int | None = None
) -> Callable[[Params, Batch], tuple[Array, Metrics]]:
    """Makes the loss of a batch, with its metrics.

    A token is trained if its weight is not 0 and, for an objective that is 0 where the advantage is 0, its advantage is
    not 0. Metrics are summed over the trained tokens, and `sums["tokens"]` counts them, so the sums of parts of a batch
    add up; `token_means` gives the means. The objective sees zeros at every token that is not trained, so a NaN at such
    a token does not reach the loss or its gradient; but one that is not `elementwise` sees the log-probabilities of all
    scored tokens of a sequence with a trained token. For an objective that is declared `elementwise` the loss is
    computed together with its gradient, see `fused_loss`.

    Args:
      model: the policy.
      objective: the loss of each token.
      temperature: divides the logits; above 0.
      chunk: tokens of a row whose logits are held at once; None chooses by LOGITS_BUDGET.

    Returns:
      loss(params, batch) -> (loss f32[], sums), where `sums` holds the sums of per-token metrics, f32[] each.

    Raises ValueError for an objective without `traits`.
    """
    terms = token_loss(objective)
    settings: dict[str, Any] = {"temperature": temperature, "chunk": chunk}
    with_entropy = objective.traits.needs_entropy

    def loss(params: Params, batch: Batch) -> tuple[Array, Metrics]:
        data, tokens = visible(batch, objective), batch.sequences.tokens
        hidden, head = states(model, params, batch.sequences)
        if objective.traits.elementwise:
            total, sums = fused_loss(terms, hidden, head, tokens, data, entropy=with_entropy, **settings)
        else:
            (per_token,), metrics = terms(*token_logprobs(hidden, head, tokens, **settings), data)
            total, sums = jnp.sum(per_token), {name: jnp.sum(value) for name, value in metrics.items()}
        return total, jax.lax.stop_gradient(sums | {"tokens": data[1].sum(dtype=jnp.float32)})

    return loss


def token_loss(objective: Objective) -> Terms:
    """The weighted loss and the metrics of each token, 0 where it is not trained; the data are those of `visible`."""
    check_traits(objective, ObjectiveTraits)

    def terms(logprobs: Array, entropy: Array, data: tuple[Batch, Array]) -> tuple[tuple[Array], Metrics]:
        batch, trained = data
        seen = seen_tokens(batch, trained, objective)
        logprobs, entropy = jnp.where(seen, logprobs, 0.0), jnp.where(seen, entropy, 0.0)
        given = entropy if objective.traits.needs_entropy else jax.lax.stop_gradient(entropy)
        per_token, metrics = objective(logprobs, batch, given)
        metrics = metrics | {"logprob": logprobs, "entropy": entropy}
        if batch.sampler_logprobs is not None:
            known = trained & ~jnp.isnan(batch.sampler_logprobs)
            metrics["sampler_logprob_diff"] = jnp.where(known, jnp.abs(logprobs - batch.sampler_logprobs), 0.0)
            metrics["sampler_tokens"] = known.astype(jnp.float32)
        if batch.ref_logprobs is not None:
            metrics["reference_kl"] = divergence("k3", logprobs, batch.ref_logprobs)
        metrics = {name: jnp.where(trained, value, 0.0) for name, value in metrics.items()}
        return (jnp.where(trained, batch.weights * per_token, 0.0),), metrics

    return terms


def token_means(sums: Metrics) -> Metrics:
    """The means over trained tokens of the sums that `make_loss` returns, f32[] each; "tokens" is left out.

    The mean of `sampler_logprob_diff` is over the trained tokens whose sampler log-probability is known. It is NaN
    where tokens are trained and none is known, and absent where the batch has no `sampler_logprobs`. All means are 0
    where no token is trained.
    """
    sums = dict(sums)
    tokens, known = sums.pop("tokens"), sums.pop("sampler_tokens", None)
    count = jnp.maximum(tokens, 1.0)
    means = {name: value / count for name, value in sums.items()}
    if known is not None:
        means["sampler_logprob_diff"] = sums["sampler_logprob_diff"] / jnp.where(tokens > 0, known, 1.0)
    return means


def trained_tokens(batch: Batch, objective: Objective) -> Array:
    """bool[B, T]: the tokens that the update depends on. Numpy arrays give a numpy array."""
    trained = (batch.weights != 0) & batch.sequences.mask
    return trained & (batch.advantages != 0) if objective.traits.skips_zero_advantage else trained


def seen_tokens(batch: Batch, trained: Array, objective: Objective) -> Array:
    """bool[B, T]: the tokens whose log-probabilities the objective sees, see ObjectiveTraits.elementwise."""
    if objective.traits.elementwise:
        return trained
    sequences = batch.sequences
    share = segment_mean(trained.astype(jnp.float32), sequences.segments, sequences.mask)
    return sequences.mask & (share > 0)


def visible(batch: Batch, objective: Objective) -> tuple[Batch, Array]:
    """(the batch as the objective sees it, its trained tokens bool[B, T]).

    Tokens that are not trained have weight and advantage 0, and tokens that are not seen have log-probabilities 0:
    0 * NaN would be NaN, in the gradient too.
    """
    trained = trained_tokens(batch, objective)
    seen = seen_tokens(batch, trained, objective)
    names = ("old_logprobs", "ref_logprobs", "sampler_logprobs")
    where = dict.fromkeys(("weights", "advantages"), trained) | dict.fromkeys(names, seen)
    values = {name: (mask, value) for name, mask in where.items() if (value := getattr(batch, name)) is not None}
    clean: dict[str, Any] = {name: jnp.where(mask, value, 0.0) for name, (mask, value) in values.items()}
    return dataclasses.replace(batch, **clean), trained


def make_train_step(
    model: Model,
    tx: optax.GradientTransformation,
    objective: Objective,
    *,
    microbatches: int = 1,
    temperature: float = 1.0,
    chunk: int | None = None,
    critic: CriticStep | None = None,
    learning_rate: float | Schedule | None = None,
    replicas: Replicas | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Makes the train step.

    The gradient is taken with respect to `state.params`; the model sees them merged with `state.frozen`. If the loss or
    the gradient is not finite, or the batch has no trained token, params and opt_state stay as they are, bit for bit:
    the step still counts, and `train/skipped` is 1. `advance` moves the state to the next phase.

    Args:
      model: the policy.
      tx: the optimizer. Its `update` gets `phase_step` if it takes extra arguments.
      objective: the loss of each token.
      microbatches: parts that the rows are processed in, one after the other; it must divide them. A part without a
        trained token is skipped, so one program also serves batches of fewer rows, see `pack`.
      temperature: divides the logits; above 0.
      chunk: tokens of a row whose logits are held at once; None chooses by LOGITS_BUDGET.
      critic: the critic's own update, see `make_critic_step`; it runs where the batch has rows for it.
      learning_rate: the rate of `tx`, to be reported as train/learning_rate; None leaves the metric out.
      replicas: those whose gradients are added up once a step, with a model `partitioning.within` one; None for none.

    Returns:
      step(state, batch) -> (state, metrics f32[]). It is pure: jit it with the state donated. The metrics are
      train/loss, train/grad_norm (before clipping), train/update_norm, train/tokens (trained tokens), train/skipped,
      train/learning_rate, the means of `token_means`, and the critic's.

    Raises ValueError for an objective without `traits`; the step raises it where the rows do not divide into
    microbatches, or the batch has a critic's rows and the state no critic.
    """
    tx = optax.with_extra_args_support(tx)
    loss = make_loss(model, objective, temperature=temperature, chunk=chunk)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        values, batch = batch.critic, dataclasses.replace(batch, critic=None)
        trained = trained_tokens(batch, objective).any(axis=1)
        gradient_of = jax.value_and_grad(lambda p, part: loss(merge_params(p, state.frozen), part), has_aux=True)
        (total, sums), gradient = accumulate(gradient_of, microbatches, state.params, batch, trained, replicas)
        norm = optax.tree.norm(gradient)
        applied = (sums["tokens"] > 0) & jnp.isfinite(norm) & jnp.isfinite(total)
        trainable, moved = update(tx, gradient, (state.params, state.opt_state), applied, state.phase_step)
        metrics = _metrics(sums, loss=total, grad_norm=norm, update_norm=moved, skipped=1.0 - applied)
        if learning_rate is not None:
            metrics["train/learning_rate"] = rate_at(learning_rate, state.phase_step)
        new = dict(zip(("params", "opt_state"), trainable, strict=True))
        new |= {"step": state.step + 1, "phase_step": state.phase_step + 1}
        if critic is not None and values is not None:
            new["critic"], of_critic = critic(_critic_of(state), values, state.phase_step)
            metrics |= of_critic
        return dataclasses.replace(state, **new), metrics

    return step


def _metrics(sums: Metrics, **others: Array) -> Metrics:
    """The step's metrics under their names in a run."""
    return {f"train/{name}": value for name, value in (token_means(sums) | others | {"tokens": sums["tokens"]}).items()}


def _critic_of(state: TrainState) -> CriticState:
    if state.critic is None:
        raise ValueError("The batch has a critic's rows, and state.critic is None. Pass a state with a critic.")
    return state.critic


def update(
    tx: optax.GradientTransformationExtraArgs,
    gradient: Params,
    trainable: tuple[Params, Any],
    applied: Array,
    phase_step: Array,
) -> tuple[tuple[Params, Any], Array]:
    """One update of the optimizer.

    Args:
      tx: the optimizer.
      gradient: of the trainable parameters.
      trainable: (params, opt_state).
      applied: bool[], whether the update is made; if not, both stay as they are, bit for bit.
      phase_step: i32[], the steps done in the phase.

    Returns: ((params, opt_state), the norm f32[] of the update, 0 where it is not made).
    """
    params, opt_state = trainable
    updates, opt_state = tx.update(gradient, opt_state, params, phase_step=phase_step)
    new = (optax.apply_updates(params, updates), opt_state)
    chosen = jax.tree.map(lambda new, old: jnp.where(applied, new, old), new, trainable)
    return chosen, jnp.where(applied, optax.tree.norm(updates), 0.0)
