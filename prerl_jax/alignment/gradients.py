"""Gradient alignment: both spaces' gradients in one program, and how far they agree.

    cos(g_pre, g_post) = <g_pre, g_post> / (|g_pre| |g_post|)

It is measured for the two objectives (with their advantages, selection and aggregation). On request it is also measured
for the mean log-probabilities, grad mean log P(y) and grad mean log P(y|x) (arXiv 2604.14142, section 3). These two
measures differ, so each has its own name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from prerl_jax.core.aggregation import TokenMean
from prerl_jax.core.batches import make_prepare
from prerl_jax.core.fused import losses_and_cotangents
from prerl_jax.core.head import Head
from prerl_jax.core.logprobs import token_logprobs
from prerl_jax.core.microbatches import accumulate
from prerl_jax.core.phases import Phase
from prerl_jax.core.scoring import states
from prerl_jax.core.train_step import Metrics, token_loss, token_means, visible
from prerl_jax.core.types import Array, Model, Params, Rollouts
from prerl_jax.core.xla_cpu import after

ParameterGroups = tuple[tuple[str, str], ...]
"""(group, text) pairs. A leaf belongs to the first group whose text is in its path, written as "^.layers.attention.q$".
A group may have several pairs."""

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
"""The groups of this package's decoders. Biases are in the group of their matrix; a tied embedding is "embedding"."""


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
    """Makes f(params, rollouts) -> (gradient of pre's loss, gradient of post's loss, metrics). f is pure: jit it whole.

    Both gradients are on-policy: the current log-probabilities serve as the old ones. The rollouts are not packed.

    Args:
      model: the policy.
      pre: the phase of the first gradient, normally in P(y).
      post: the phase of the second gradient, normally in P(y|x).
      group_size: the number of adjacent rollouts with the same prompt.
      logprob_alignment: whether the mean log-probabilities are compared as well; it costs one more backward pass in
        each space.
      chunk: tokens of a row whose logits are held at once; None chooses by LOGITS_BUDGET.
      microbatches: parts that the rows of a space are processed in, one after the other; it must divide them.

    Returns: f. Its metrics are
        alignment/objective f32[]: the cosine of the two gradients,
        alignment/objective_by_layer f32[L]: that of each layer, where params has stacked "layers",
        alignment/objective_by_group/NAME f32[]: that of each of DECODER_GROUPS (embedding, ...) and "other",
        alignment/norm_pre and alignment/norm_post f32[],
        alignment/sampler_logprob_diff f32[]: the mean absolute difference of the sampler's and the trainer's
          log-probabilities on post's trained tokens, where post is given the prompt,
        and, with `logprob_alignment`, alignment/logprob, alignment/logprob_by_layer, alignment/logprob_by_group/NAME,
          alignment/logprob_norm_pre and alignment/logprob_norm_post.
      A cosine with a zero gradient (from an empty selection) is NaN.

    Raises ValueError for `logprob_alignment` with a phase of several terms.
    """
    if logprob_alignment and (pre.terms or post.terms):
        raise ValueError(
            "The mean log-probability of a phase with several terms is not defined. Pass phases without terms, or set "
            "logprob_alignment=False."
        )

    def gradients(phase: Phase, params: Params, rollouts: Rollouts) -> tuple[tuple[Params, ...], Metrics]:
        batch = make_prepare(phase, group_size)(rollouts)
        mask = batch.sequences.mask
        means = TokenMean()(mask, jnp.ones(mask.shape[0], bool), 1) if logprob_alignment else None
        function = _make_gradients(model, phase, chunk)
        return accumulate(function, microbatches, params, (batch, means))

    def dual(params: Params, rollouts: Rollouts) -> tuple[Params, Params, Metrics]:
        pre_gradients, _ = gradients(pre, params, rollouts)
        post_gradients, sums = after(pre_gradients, functools.partial(gradients, post), params, rollouts)
        found, means = _alignments(pre_gradients, post_gradients), token_means(sums)
        if "sampler_logprob_diff" in means:
            found["alignment/sampler_logprob_diff"] = means["sampler_logprob_diff"]
        return pre_gradients[0], post_gradients[0], found

    return dual


def _make_gradients(model: Model, phase: Phase, chunk: int | None) -> Callable:
    """(params, (batch, weights of the mean log-probability or None)) -> (one or two gradients, sums of the metrics).

    It takes one forward pass, and one backward pass for each gradient.
    """
    objective = phase.objective
    loss = token_loss(objective)
    settings: dict[str, Any] = {"temperature": phase.temperature, "chunk": chunk}

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
        data = (visible(batch, objective), means)
        (hidden, head), pull = jax.vjp(lambda p: states(model, p, batch.sequences), params)
        metrics, cotangents = cotangents_of(hidden, head, batch.sequences.tokens, data, 1 if means is None else 2)
        return tuple(pull(c)[0] for c in cotangents), metrics | {"tokens": data[0][1].sum(dtype=jnp.float32)}

    return gradients


def _alignments(pre: tuple[Params, ...], post: tuple[Params, ...]) -> Metrics:
    """The metrics of the gradients of the objective and, where there is a second one, of the mean log-probability."""
    found: Metrics = {}
    for (name, prefix), *both in zip((("objective", ""), ("logprob", "logprob_")), pre, post, strict=False):
        found |= _alignment(name, prefix, *both)
    return found


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

    Groups without a leaf are left out. Leaves that belong to no group are in "other". A cosine with a zero gradient is
    NaN.
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
