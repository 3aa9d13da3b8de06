"""The critic's side of PPO: what it learns from, its update, and how much of the returns it explains.

    loss = sum_{b,t} w_{b,t} l(V_{b,t}),    l the clipped squared error of `gae.clipped_value_loss`,
                                            w the mean over the response tokens of the global batch
    explained variance = 1 - Var(target - V_old) / Var(target)

V_t is the value of prompt and response up to token t, so the critic's rows are those of P(y|x), whatever space the
policy is trained in. The value does not depend on the token that it is a baseline for, so in P(y|x) it leaves the
expected gradient as it is. In P(y), where tokens drawn from pi(.|x) are scored under another distribution, no baseline
is free in that sense, the mean of a group no more than this one; there the advantage says what it always says: how much
better than expected, of this prompt and this beginning, the response went on.

Policy and critic share no parameter: each has its optimizer and its clip, and each is left as it was by itself.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from prerl_jax.core.aggregation import TokenMean
from prerl_jax.core.microbatches import accumulate, map_microbatches
from prerl_jax.core.spaces import PostTrainSpace, response_part
from prerl_jax.core.train_step import CriticStep, Metrics, update
from prerl_jax.core.types import AdvantageEstimator, Array, Critic, CriticState, Params, Rollouts, ValueBatch


def rollout_values(critic: Critic, params: Params, rollouts: Rollouts, microbatches: int = 1) -> Array:
    """f32[B, R]: the value of what stands before every token of the responses; 0 outside of them.

    Computed once a rollout batch, in parts of rows (`microbatches`), and kept through all of its updates.
    """
    found = map_microbatches(lambda rows: critic.values(params, rows), microbatches, PostTrainSpace()(rollouts))
    return found[:, rollouts.prompt.shape[1] :]


def value_batch(advantage: AdvantageEstimator, rollouts: Rollouts, values: Array, keep: Array) -> ValueBatch:
    """The critic's rows, one a rollout, T = P + R.

    Args:
      credit: gives the targets.
      rollouts: B responses of up to R tokens, with the rewards that the credit reads.
      values: f32[B, R], see `rollout_values`.
      keep: bool[B]: what the credit leaves out, the critic does not learn from either.
    """
    sequences = PostTrainSpace()(rollouts)
    laid = {"targets": advantage.targets(rollouts, values), "old_values": values}
    weights = TokenMean()(sequences.mask, keep, rollouts.response.shape[1])
    return ValueBatch(sequences, weights, **{n: response_part(sequences, rollouts, v) for n, v in laid.items()})


def value_statistics(batch: ValueBatch) -> Metrics:
    """Of the values that a whole rollout batch was judged by: their mean, the targets', and the explained variance.

    Where all targets are equal there is nothing to explain: NaN.
    """

    def mean(x: Array) -> Array:
        return jnp.sum(jnp.where(batch.weights != 0, batch.weights * x, 0.0)) / batch.weights.sum()

    def variance(x: Array) -> Array:
        return mean((x - mean(x)) ** 2)

    left = variance(batch.targets - batch.old_values) / variance(batch.targets)
    return {
        "train/value_mean": mean(batch.old_values),
        "train/return_mean": mean(batch.targets),
        "train/explained_variance": 1.0 - left,
    }


def make_critic_step(
    critic: Critic, tx: optax.GradientTransformation, *, clip: float | None, microbatches: int = 1
) -> CriticStep:
    """step(state, batch, phase_step) -> (state, metrics f32[]); pure, a part of the train step.

    A non-finite loss or gradient, or a batch without a kept token, leaves the critic bit for bit as it was.

    Args:
      critic: the value model.
      tx: its optimizer; `update` is given `phase_step`.
      clip: see `gae.clipped_value_loss`.
      microbatches: as for `make_train_step`, of the critic's rows.

    Returns metrics: train/value_loss, train/value_clip_fraction (tokens whose loss is that of the clipped value),
      train/critic_grad_norm (before clipping), train/critic_update_norm, train/critic_skipped.
    """
    tx = optax.with_extra_args_support(tx)

    def loss(params: Params, batch: ValueBatch) -> tuple[Array, Metrics]:
        trained = (batch.weights != 0) & batch.sequences.mask
        arrays = (critic.values(params, batch.sequences), batch.old_values, batch.targets, batch.weights)
        values, old, targets, weights = (jnp.where(trained, x, 0.0) for x in arrays)
        per_token = clipped_value_loss(values, old, targets, clip)
        clipped = per_token > clipped_value_loss(values, old, targets, None)
        sums = {"tokens": trained.sum(dtype=jnp.float32), "clipped": clipped.sum(dtype=jnp.float32)}
        return jnp.sum(weights * per_token), sums

    loss_and_gradient = jax.value_and_grad(loss, has_aux=True)

    def step(state: CriticState, batch: ValueBatch, phase_step: Array) -> tuple[CriticState, Metrics]:
        kept = (batch.weights != 0).any(axis=1)
        (total, sums), gradient = accumulate(loss_and_gradient, microbatches, state.params, batch, kept)
        norm = optax.tree.norm(gradient)
        applied = (sums["tokens"] > 0) & jnp.isfinite(norm) & jnp.isfinite(total)
        (params, opt_state), moved = update(tx, gradient, (state.params, state.opt_state), applied, phase_step)
        return CriticState(params, opt_state), {
            "train/value_loss": total,
            "train/value_clip_fraction": sums["clipped"] / jnp.maximum(sums["tokens"], 1.0),
            "train/critic_grad_norm": norm,
            "train/critic_update_norm": moved,
            "train/critic_skipped": 1.0 - applied,
        }

    return step


def clipped_value_loss(values: Array, old_values: Array, targets: Array, clip: float | None = 0.2) -> Array:
    """The critic's loss by token, of the shape of `values`, differentiable by them.

    Args:
      values: f32[...], of the critic being trained.
      old_values: f32[...], of the critic that the targets were made with.
      targets: f32[...], see `gae`.
      clip: how far a value is rewarded for moving away from its old one; None for any distance.
    """
    plain = (values - targets) ** 2
    if clip is None:
        return plain / 2
    bounded = (old_values + jnp.clip(values - old_values, -clip, clip) - targets) ** 2
    return jnp.where(bounded > plain, bounded, plain) / 2  # not maximum: equal ones would share the gradient
