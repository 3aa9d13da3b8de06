"""The train step: one weighted policy gradient and one optimizer update, whatever the phase.

    loss = sum_{b,t} w_{b,t} l_{b,t},    w normalised over the global batch

so microbatches, devices and packed rows are plain sums of the same terms, exact to rounding.
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
from prerl_jax.core.microbatches import accumulate
from prerl_jax.core.scoring import states
from prerl_jax.core.types import (
    Array,
    Batch,
    CriticState,
    Model,
    Objective,
    Params,
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
      params: the parameters to train, float32. With `frozen`, one part of `split_params`.
      tx: the optimizer; moments are made for `params` alone.
      rng: the run's PRNG key.
      frozen: the other part of `split_params`; None trains all parameters.
    """
    step, phase, phase_step = (jnp.zeros((), jnp.int32) for _ in range(3))  # one buffer each: they are donated
    return TrainState(step, params, tx.init(params), rng, phase, phase_step, frozen=frozen)


def make_loss(
    model: Model, objective: Objective, *, temperature: float = 1.0, chunk: int | None = None
) -> Callable[[Params, Batch], tuple[Array, Metrics]]:
    """loss(params, batch) -> (loss f32[], sums): sums has per-token metrics summed over the trained tokens.

    A trained token has a weight, and an advantage too where the objective is 0 without one. `sums["tokens"]` counts
    them, so metrics of parts of a batch add up. The objective sees zeros wherever a token is not trained, so whatever
    stands there, NaN included, the loss and its gradient are finite. The loss of an objective that declares itself
    `elementwise` is computed with its gradient, see `fused_loss`.
    """
    terms, settings = token_loss(objective), {"temperature": temperature, "chunk": chunk}
    with_entropy = getattr(objective, "needs_entropy", False)

    def loss(params: Params, batch: Batch) -> tuple[Array, Metrics]:
        trained = trained_tokens(batch, objective)
        data, tokens = (masked(batch, trained), trained), batch.sequences.tokens
        hidden, head = states(model, params, batch.sequences)
        if getattr(objective, "elementwise", False):
            total, sums = fused_loss(terms, hidden, head, tokens, data, entropy=with_entropy, **settings)
        else:
            (per_token,), metrics = terms(*token_logprobs(hidden, head, tokens, **settings), data)
            total, sums = jnp.sum(per_token), {name: jnp.sum(value) for name, value in metrics.items()}
        return total, jax.lax.stop_gradient(sums | {"tokens": trained.sum(dtype=jnp.float32)})

    return loss


def token_loss(objective: Objective) -> Terms:
    """The weighted loss and the metrics of each trained token, 0 elsewhere, of data (masked batch, trained)."""

    def terms(logprobs: Array, entropy: Array, data: tuple[Batch, Array]) -> tuple[tuple[Array], Metrics]:
        batch, trained = data
        logprobs, entropy = jnp.where(trained, logprobs, 0.0), jnp.where(trained, entropy, 0.0)
        extra = {"entropy": entropy} if getattr(objective, "needs_entropy", False) else {}
        per_token, metrics = objective(logprobs, batch, **extra)
        metrics = metrics | {"logprob": logprobs, "entropy": entropy}
        if batch.sampler_logprobs is not None:
            metrics["sampler_logprob_diff"] = jnp.abs(logprobs - batch.sampler_logprobs)
        if batch.ref_logprobs is not None:
            metrics["reference_kl"] = divergence("k3", logprobs, batch.ref_logprobs)
        metrics = {name: jnp.where(trained, value, 0.0) for name, value in metrics.items()}
        return (jnp.where(trained, batch.weights * per_token, 0.0),), metrics

    return terms


def trained_tokens(batch: Batch, objective: Objective) -> Array:
    """bool[B, T] (numpy in, numpy out): the tokens that the update depends on."""
    trained = (batch.weights != 0) & batch.sequences.mask
    return trained & (batch.advantages != 0) if getattr(objective, "skips_zero_advantage", False) else trained


def masked(batch: Batch, trained: Array) -> Batch:
    """The batch with zeros on the tokens that are not trained: 0 * NaN would be NaN, in the gradient too."""
    names = ("weights", "advantages", "old_logprobs", "ref_logprobs", "sampler_logprobs")
    values = {name: getattr(batch, name) for name in names if getattr(batch, name) is not None}
    return dataclasses.replace(batch, **{n: jnp.where(trained, v, 0.0) for n, v in values.items()})


def make_train_step(
    model: Model,
    tx: optax.GradientTransformation,
    objective: Objective,
    *,
    microbatches: int = 1,
    temperature: float = 1.0,
    chunk: int | None = None,
    critic: CriticStep | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """step(state, batch) -> (state, metrics f32[]); pure, jit it with the state donated.

    A non-finite loss or gradient, or a batch without a trained token, leaves params and opt_state bit for bit as they
    were; it still counts as a step, and `train/skipped` is 1. `advance` moves the phase.

    Args:
      model: the policy.
      tx: optimizer; its `update` is given `phase_step` if it takes extra arguments.
      objective: per-token loss.
      microbatches: parts that the batch's rows are done in, one after the other; must divide the rows. A part without a
        trained token costs nothing, see `accumulate`: one program serves a batch of any number of rows up to its own,
        laid out by `pack(..., microbatches=...)`.
      temperature: of the log-probabilities.
      chunk: tokens of a row unembedded at once; None chooses.
      critic: the critic's own update, see `make_critic_step`; made where the batch has rows for it.

    Returns metrics: train/loss, train/grad_norm (before clipping), train/update_norm, train/tokens, train/skipped, and
      the means over trained tokens of train/logprob, train/entropy, train/ratio and the objective's others; and those
      of the critic.
    """
    tx = optax.with_extra_args_support(tx)
    loss_and_gradient = jax.value_and_grad(
        make_loss(model, objective, temperature=temperature, chunk=chunk), has_aux=True
    )

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        values, batch = batch.critic, dataclasses.replace(batch, critic=None)
        trained = trained_tokens(batch, objective).any(axis=1)
        (loss, sums), gradient = accumulate(loss_and_gradient, microbatches, state.params, batch, trained)
        norm = optax.tree.norm(gradient)
        applied = (sums["tokens"] > 0) & jnp.isfinite(norm) & jnp.isfinite(loss)
        trainable = (state.params, state.opt_state)
        (params, opt_state), moved = update(tx, gradient, trainable, applied, state.phase_step)
        tokens = jnp.maximum(sums["tokens"], 1.0)
        metrics = {f"train/{name}": value / tokens for name, value in sums.items() if name != "tokens"}
        metrics |= {
            "train/loss": loss,
            "train/grad_norm": norm,
            "train/update_norm": moved,
            "train/tokens": sums["tokens"],
            "train/skipped": 1.0 - applied,
        }
        new = {"params": params, "opt_state": opt_state, "step": state.step + 1, "phase_step": state.phase_step + 1}
        if critic is not None and values is not None:
            new["critic"], of_critic = critic(state.critic, values, state.phase_step)
            metrics |= of_critic
        return dataclasses.replace(state, **new), metrics

    return step


def update(
    tx: optax.GradientTransformationExtraArgs,
    gradient: Params,
    trainable: tuple[Params, Any],
    applied: Array,
    phase_step: Array,
) -> tuple[tuple[Params, Any], Array]:
    """((params, opt_state) after one update, or bit for bit as they were where not `applied`; the update's norm)."""
    params, opt_state = trainable
    updates, opt_state = tx.update(gradient, opt_state, params, phase_step=phase_step)
    new = (optax.apply_updates(params, updates), opt_state)
    chosen = jax.tree.map(lambda new, old: jnp.where(applied, new, old), new, trainable)
    return chosen, jnp.where(applied, optax.tree.norm(updates), 0.0)
