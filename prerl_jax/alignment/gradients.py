"""Gradient alignment: both spaces' gradients in one program, and how far they agree.

    cos(g_pre, g_post) = <g_pre, g_post> / (|g_pre| |g_post|)

once for the two objectives (advantages, selection and weighing included), and, on request, for the mean
log-probabilities alone, grad mean log P(y) and grad mean log P(y|x) (paper arXiv 2604.14142, section 3). The two
measures differ, so both are named.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from prerl_jax.core.aggregation import TokenMean
from prerl_jax.core.batches import make_prepare
from prerl_jax.core.fused import losses_and_cotangents
from prerl_jax.core.logprobs import token_logprobs
from prerl_jax.core.microbatches import accumulate
from prerl_jax.core.phases import Phase
from prerl_jax.core.scoring import states
from prerl_jax.core.train_step import Metrics, masked, token_loss, token_means, trained_tokens
from prerl_jax.core.types import Array, Head, Model, Params, Rollouts
from prerl_jax.core.xla_cpu import after

ParameterGroups = tuple[tuple[str, str], ...]
"""(name, text) pairs, tried in order: whether the text is in a leaf's path, written as "^.layers.attention.q$". A group
may have several."""

DECODER_GROUPS: ParameterGroups = (
    ("norm", "norm"),
    ("embedding", "^.embed$"),
    ("embedding", "^.embed."),
    ("unembedding", "^.unembed$"),
    ("unembedding", "^.unembed."),
    ("attention_q", ".attention.q"),
    ("attention_k", ".attention.k"),
    ("attention_v", ".attention.v"),
    ("attention_o", ".attention.o"),
    ("mlp", ".mlp."),
)
"""Of the decoders that come with the package, biases with their matrices; a tied embedding is "embedding"."""


def make_dual_gradients(
    model: Model,
    pre: Phase,
    post: Phase,
    group_size: int,
    *,
    logprob_alignment: bool = False,
    chunk: int | None = None,
    microbatches: int = 1,
) -> Callable[[Params, Rollouts], tuple[Params, Params, Metrics]]:
    """f(params, rollouts) -> (gradient of pre's loss, gradient of post's loss, alignment); pure, jit it whole.

    Both are on-policy: old log-probabilities are the current ones. Works on unpacked rollouts.

    Args:
      model: the policy.
      pre: the phase of the one gradient.
      post: the phase of the other.
      group_size: rollouts of one prompt, side by side.
      logprob_alignment: whether the mean log-probabilities are compared too, by one more backward pass in each space.
      chunk: tokens of a row unembedded at once; None chooses.
      microbatches: parts that the rows of either space are done in, one after the other; must divide them.

    Returns, in the third place: alignment/objective f32[] (the cosine), alignment/objective_by_layer f32[L] (where
      params has stacked "layers"), alignment/objective_by_group/NAME f32[] (of DECODER_GROUPS: embedding, attention_q,
      ..., and "other"), alignment/norm_pre, alignment/norm_post; alignment/sampler_logprob_diff, the mean absolute
      difference of the sampler's and the trainer's log-probabilities on post's trained tokens, where post is given the
      prompt; and with `logprob_alignment`, alignment/logprob,
      alignment/logprob_by_layer, alignment/logprob_by_group/NAME, alignment/logprob_norm_pre and
      alignment/logprob_norm_post. A cosine with a zero gradient (a selection that is empty) is NaN.
    """

    if logprob_alignment and (pre.terms or post.terms):
        raise ValueError("The mean log-probability of a phase with several terms is not defined; pass plain phases.")

    def gradients(phase: Phase, params: Params, rollouts: Rollouts) -> tuple[tuple[Params, ...], Metrics]:
        batch = make_prepare(phase, group_size)(rollouts)
        mask = batch.sequences.mask
        means = TokenMean()(mask, jnp.ones(mask.shape[0], bool), 1) if logprob_alignment else None
        function = _make_gradients(model, phase, chunk)
        return accumulate(function, microbatches, params, (batch, means))

    def dual(params: Params, rollouts: Rollouts) -> tuple[Params, Params, Metrics]:
        pre_gradients, _ = gradients(pre, params, rollouts)
        post_gradients, sums = after(pre_gradients, functools.partial(gradients, post), params, rollouts)
        found = {}
        kinds = (("objective", ""), ("logprob", "logprob_"))
        for (name, prefix), *both in zip(kinds, pre_gradients, post_gradients, strict=False):
            found |= _alignment(name, prefix, *both)
        means = token_means(sums)
        if "sampler_logprob_diff" in means:
            found["alignment/sampler_logprob_diff"] = means["sampler_logprob_diff"]
        return pre_gradients[0], post_gradients[0], found

    return dual


def _make_gradients(model: Model, phase: Phase, chunk: int | None) -> Callable:
    """(params, (batch, weights of the mean log-probability or None)) -> (the gradient of either, sums of the metrics).

    One forward pass, whatever is asked for, and one backward pass for each gradient.
    """
    objective = phase.objective
    loss, settings = token_loss(objective), {"temperature": phase.temperature, "chunk": chunk}

    def terms(logprobs: Array, entropy: Array, data) -> tuple[tuple[Array, ...], Metrics]:
        (batch, trained), means = data
        losses, metrics = loss(logprobs, entropy, (batch, trained))
        return losses if means is None else (*losses, means * jnp.where(means != 0, logprobs, 0.0)), metrics

    def cotangents_of(hidden: Array, head: Head, tokens: Array, data, count: int):
        """Metrics and, for each loss, the cotangents of the hidden states and the head."""
        if objective.traits.elementwise:
            reads_entropy = objective.traits.needs_entropy
            found = losses_and_cotangents(terms, hidden, head, tokens, data, count, entropy=reads_entropy, **settings)
            return found[1:]

        def sums(hidden, head):
            losses, metrics = terms(*token_logprobs(hidden, head, tokens, **settings), data)
            return tuple(map(jnp.sum, losses)), {name: jnp.sum(value) for name, value in metrics.items()}

        _, pull, metrics = jax.vjp(sums, hidden, head, has_aux=True)
        return metrics, [pull(tuple(jnp.float32(i == k) for i in range(count))) for k in range(count)]

    def gradients(params: Params, rows) -> tuple[tuple[Params, ...], Metrics]:
        batch, means = rows
        trained = trained_tokens(batch, objective)
        data = ((masked(batch, trained), trained), means)
        (hidden, head), pull = jax.vjp(lambda p: states(model, p, batch.sequences), params)
        metrics, cotangents = cotangents_of(hidden, head, batch.sequences.tokens, data, 1 if means is None else 2)
        return tuple(pull(c)[0] for c in cotangents), metrics | {"tokens": trained.sum(dtype=jnp.float32)}

    return gradients


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


def cosine_by_group(a: Params, b: Params, groups: ParameterGroups = DECODER_GROUPS) -> dict[str, Array]:
    """{group: cosine f32[]} of two gradients of one tree, in the order of `groups`.

    A group without a leaf is left out, leaves of no group are in "other", and a cosine with a zero gradient is NaN.
    """
    sums: dict[str, Array] = {name: jnp.zeros(3) for name, _ in (*groups, ("other", ""))}
    there = set()

    def add(path, x, y):
        where = f"^.{jax.tree_util.keystr(path, simple=True, separator='.')}$"
        name = next((name for name, text in groups if text in where), "other")
        there.add(name)
        sums[name] += jnp.stack([jnp.vdot(x, y), jnp.vdot(x, x), jnp.vdot(y, y)])

    jax.tree_util.tree_map_with_path(add, a, b)
    return {name: xy / (jnp.sqrt(xx) * jnp.sqrt(yy)) for name, (xy, xx, yy) in sums.items() if name in there}
