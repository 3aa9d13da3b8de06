"""The critic of PPO: its batch, its update, and its metrics.

    loss = sum_{b,t} w_{b,t} l(V_{b,t}),    l the clipped squared error of `clipped_value_loss`,
                                            w the mean over the response tokens of the global batch
    explained variance = 1 - Var(target - V_old) / Var(target)

V_t is the value of the prompt and of the response before token t. So the critic's rows are those of P(y|x), whatever
space the policy is trained in. The value does not depend on the token for which it is the baseline, so in P(y|x) it
does not change the expected gradient. In P(y), tokens drawn from pi(.|x) are scored under another distribution, and no
baseline has that property, neither this one nor the mean of a group. The advantage still says how much better
than expected the response went on, given this prompt and this beginning.

The policy and the critic share no parameters. Each has its own optimizer and gradient clipping, and each skips its
update by itself where its gradient is not finite.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from prerl_jax.core.aggregation import TokenMean
from prerl_jax.core.microbatches import Replicas, accumulate, map_microbatches
from prerl_jax.core.spaces import PostTrainSpace, response_part
from prerl_jax.core.train_step import CriticStep, Metrics, update
from prerl_jax.core.types import Array, Critic, CriticState, Params, Rollouts, ValueAdvantageEstimator, ValueBatch


def rollout_values(critic: Critic, params: Params, rollouts: Rollouts, microbatches: int = 1) -> Array:
    """The values f32[B, R] of the tokens before each response token; 0 at padding.

    They are computed once for a batch of rollouts, and serve all of its updates.

    Args:
      critic: the value model.
      params: the critic's parameters.
      rollouts: B responses of up to R tokens.
      microbatches: the number of parts that the rows are processed in, one after the other; it must divide B.
    """
    found = map_microbatches(lambda rows: critic.values(params, rows), microbatches, PostTrainSpace()(rollouts))
    return found[:, rollouts.prompt.shape[1] :]


def value_batch(advantage: ValueAdvantageEstimator, rollouts: Rollouts, values: Array, keep: Array) -> ValueBatch:
    """The critic's rows, one per rollout, with T = P + R.

    Args:
      advantage: the advantage estimator; its method `targets` gives the returns.
      rollouts: B responses of up to R tokens, with the rewards that the advantages are computed from.
      values: f32[B, R], see `rollout_values`.
      keep: bool[B], False for responses that neither the policy nor the critic is trained on.
    """
    sequences = PostTrainSpace()(rollouts)
    laid = {"targets": advantage.targets(rollouts, values), "old_values": values}
    weights = TokenMean()(sequences.mask, keep, rollouts.response.shape[1])
    return ValueBatch(sequences, weights, **{n: response_part(sequences, rollouts, v) for n, v in laid.items()})


def value_statistics(batch: ValueBatch) -> Metrics:
    """train/value_mean, train/return_mean and train/explained_variance of a whole rollout batch, f32[] each.

    The values are those that the advantages were computed from. The explained variance is NaN where all targets are
    equal.
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
    critic: Critic,
    tx: optax.GradientTransformation,
    *,
    clip: float | None,
    microbatches: int = 1,
    replicas: Replicas | None = None,
) -> CriticStep:
    """Makes step(state, batch, phase_step) -> (state, metrics f32[]), a pure part of the train step.

    If the loss or the gradient is not finite, or the batch has no kept token, the critic stays as it was, bit for bit.

    Args:
      critic: the value model.
      tx: the critic's optimizer. Its `update` gets `phase_step`.
      clip: see `clipped_value_loss`.
      microbatches: as in `make_train_step`, for the critic's rows.
      replicas: as in `make_train_step`; the critic must leave their axis alone, too.

    Returns: the step. Its metrics are train/value_loss, train/value_clip_fraction (the fraction of tokens whose loss is
      that of the clipped value), train/critic_grad_norm (before clipping), train/critic_update_norm and
      train/critic_skipped.
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
        (total, sums), gradient = accumulate(loss_and_gradient, microbatches, state.params, batch, kept, replicas)
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
    """The critic's loss at each token, f32[...]. Differentiable in `values`.

    Args:
      values: f32[...], the current critic's values.
      old_values: f32[...], the values that the targets were computed from.
      targets: f32[...], the returns, see `gae`.
      clip: the largest change of a value from its old one that lowers the loss; None for no limit.
    """
    plain = (values - targets) ** 2
    if clip is None:
        return plain / 2
    bounded = (old_values + jnp.clip(values - old_values, -clip, clip) - targets) ** 2
    return jnp.where(bounded > plain, bounded, plain) / 2  # not maximum: equal ones would share the gradient
