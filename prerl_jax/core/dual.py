"""Gradient alignment: both spaces' gradients in one program, and how far they agree.

    cos(g_pre, g_post) = <g_pre, g_post> / (|g_pre| |g_post|)

once for the two objectives (advantages, selection and weighing included), and, on request, for the mean
log-probabilities alone, grad mean log P(y) and grad mean log P(y|x) (paper arXiv 2604.14142, section 3). The two
measures differ, so both are named.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from prerl_jax.core.batches import make_prepare, make_score
from prerl_jax.core.credit import TokenMean
from prerl_jax.core.parameter_groups import cosine_by_group
from prerl_jax.core.phases import Phase
from prerl_jax.core.train_step import Metrics, make_loss
from prerl_jax.core.types import Array, Model, Params, Rollouts


def make_dual_gradients(
    model: Model,
    pre: Phase,
    post: Phase,
    group_size: int,
    *,
    logprob_alignment: bool = False,
    chunk: int | None = None,
) -> Callable[[Params, Rollouts], tuple[Params, Params, Metrics]]:
    """f(params, rollouts) -> (gradient of pre's loss, gradient of post's loss, alignment); pure, jit it whole.

    Both are on-policy: old log-probabilities are the current ones. Works on unpacked rollouts.

    Returns, in the third place: alignment/objective f32[] (the cosine), alignment/objective_by_layer f32[L] (where
      params has stacked "layers"), alignment/objective_by_group/NAME f32[] (of DECODER_GROUPS: embedding, attention_q,
      ..., and "other"), alignment/norm_pre, alignment/norm_post; alignment/logprob_gap, the mean absolute
      difference of the sampler's and the trainer's log-probabilities on post's trained tokens, where post is given the
      prompt; and with `logprob_alignment`, which costs two more backward passes, alignment/logprob,
      alignment/logprob_by_layer, alignment/logprob_by_group/NAME, alignment/logprob_norm_pre and
      alignment/logprob_norm_post. A cosine with a zero gradient (a selection that is empty) is NaN.
    """

    def gradient(phase: Phase, params: Params, rollouts: Rollouts) -> tuple[Params, Metrics]:
        batch = make_prepare(model, phase, group_size)(params, rollouts)
        loss = make_loss(model, phase.objective, temperature=phase.temperature, chunk=chunk)
        return jax.grad(lambda p: loss(p, batch), has_aux=True)(params)

    if logprob_alignment and (pre.terms or post.terms):
        raise ValueError("The mean log-probability of a phase with several terms is not defined; pass plain phases.")

    def mean_logprob_gradient(phase: Phase, params: Params, rollouts: Rollouts) -> Params:
        sequences = phase.space(rollouts)
        weights = TokenMean()(sequences.mask, jnp.ones(sequences.mask.shape[0], bool), 1)
        score = make_score(model, phase.temperature, chunk=chunk)
        return jax.grad(lambda p: jnp.sum(weights * score(p, sequences)))(params)

    def dual(params: Params, rollouts: Rollouts) -> tuple[Params, Params, Metrics]:
        grad_pre, _ = gradient(pre, params, rollouts)
        grad_post, sums = gradient(post, params, rollouts)
        found = _alignment("objective", "", grad_pre, grad_post)
        if "logprob_gap" in sums:
            found["alignment/logprob_gap"] = sums["logprob_gap"] / jnp.maximum(sums["tokens"], 1.0)
        if logprob_alignment:
            means = [mean_logprob_gradient(phase, params, rollouts) for phase in (pre, post)]
            found |= _alignment("logprob", "logprob_", *means)
        return grad_pre, grad_post, found

    return dual


def _alignment(name: str, prefix: str, a: Params, b: Params) -> Metrics:
    found = {
        f"alignment/{name}": cosine(a, b),
        f"alignment/{prefix}norm_pre": optax.tree.norm(a),
        f"alignment/{prefix}norm_post": optax.tree.norm(b),
    }
    if "layers" in a:
        found[f"alignment/{name}_by_layer"] = jax.vmap(cosine)(a["layers"], b["layers"])
    return found | {f"alignment/{name}_by_group/{group}": c for group, c in cosine_by_group(a, b).items()}


def cosine(a: Params, b: Params) -> Array:
    """Cosine f32[] of two gradients of one tree; NaN where either is zero."""
    inner = optax.tree.vdot(a, b)
    return inner / (optax.tree.norm(a) * optax.tree.norm(b))
