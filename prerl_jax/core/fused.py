"""A token-wise loss from hidden states: its value and its gradient in one pass over the vocabulary.

    L = sum_t l_t(log p_t, H_t),    dL/dh and dL/dW taken chunk by chunk while the chunk's logits are there

Where the loss of a token depends on that token alone, its cotangents are known as soon as its log-probability is. So
the forward pass takes the gradient too, and the backward pass only scales it: three products with the vocabulary, where
keeping nothing costs four, and no [B, T, V] array.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from prerl_jax.core.logprobs import Scored, chunk_length, logits_of, over_chunks, pull_back, statistics
from prerl_jax.core.types import Array

Terms = Callable[[Array, Array, Any], tuple[tuple[Array, ...], dict[str, Array]]]
"""(logprobs f32[B, C], entropy f32[B, C], data of [B, C]) -> (losses f32[B, C], several; metrics f32[B, C])."""
Found = tuple[tuple[Array, ...], dict[str, Array], tuple[tuple[Array, Array, list[Array]], ...]]
"""(the losses' sums, the metrics' sums, the cotangents of hidden, unembedding and floats for each of the losses)."""


def fused_loss(terms: Terms, hidden: Array, unembedding: Array, tokens: Array, data: Any, **settings):
    """The sum of the one loss of `terms` over all tokens but the first of a row: (f32[], {metric: its sum f32[]}).

    Differentiable in hidden, unembedding and the float arrays of `data`, again and again; the metrics are not.

    Args:
      terms: the loss; of a chunk, it is given `data` of those tokens.
      hidden: [B, T, D].
      unembedding: [D, V].
      tokens: i32[B, T].
      data: arrays [B, T].
      settings: those of `losses_and_cotangents`.
    """
    floats, others, merge = split_floats(data)

    @jax.custom_vjp
    def run(hidden, unembedding, floats, tokens, others):
        (loss,), sums, _ = _pass(terms, hidden, unembedding, tokens, (floats, others, merge), 0, **settings)
        return loss, sums

    def forward(hidden, unembedding, floats, tokens, others):
        found = _pass(terms, hidden, unembedding, tokens, (floats, others, merge), 1, **settings)
        (loss,), sums, (cotangents,) = found
        return (loss, sums), cotangents

    def backward(cotangents, outer):
        return (*jax.tree.map(lambda x: (outer[0] * x).astype(x.dtype), cotangents), None, None)

    run.defvjp(forward, backward)
    loss, sums = run(hidden, unembedding, floats, tokens, others)
    return loss, jax.lax.stop_gradient(sums)


def losses_and_cotangents(
    terms: Terms,
    hidden: Array,
    unembedding: Array,
    tokens: Array,
    data: Any,
    count: int,
    *,
    temperature: float = 1.0,
    chunk: int | None = None,
    entropy: bool = False,
) -> Found:
    """Several losses at once, each with its gradient: what depends on the vocabulary alone is computed once.

    Args:
      terms: the losses.
      hidden: [B, T, D].
      unembedding: [D, V].
      tokens: i32[B, T].
      data: arrays [B, T].
      count: how many losses there are.
      temperature: divides the logits.
      chunk: tokens of a row done at once; None chooses by LOGITS_BUDGET.
      entropy: whether a loss depends on the entropies; if not, they are metrics only.

    Returns: (losses f32[] each, {metric: sum f32[]}, ((d hidden, d unembedding) for each loss)).
    """
    settings = {"temperature": temperature, "chunk": chunk, "entropy": entropy}
    losses, sums, cotangents = _pass(terms, hidden, unembedding, tokens, split_floats(data), count, **settings)
    return losses, sums, tuple(c[:2] for c in cotangents)


def split_floats(data: Any) -> tuple[list[Array], list[Array], Callable]:
    """(float leaves, other leaves, the function of both that puts the tree together again)."""
    leaves, structure = jax.tree.flatten(data)
    wanted = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]

    def merge(floats, others):
        floats, others = iter(floats), iter(others)
        return structure.unflatten([next(floats if is_float else others) for is_float in wanted])

    parts = ([leaf for leaf, w in zip(leaves, wanted, strict=True) if w == kind] for kind in (True, False))
    return *parts, merge


def _read_first(normaliser: Array, logprobs: Array, metrics: dict[str, Array]) -> Array:
    """The normaliser, but only once what else is read of the logits is there: what needs it may then overwrite them.

    XLA:CPU drops `optimization_barrier`; that neither bound is ever passed it cannot foresee.
    """
    never = (logprobs > 1) | (metrics.get("entropy", 0.0) < -1)
    return jnp.where(never, 0.0, normaliser)


def _pass(terms, hidden, unembedding, tokens, split, count, *, temperature=1.0, chunk=None, entropy=False):
    """(losses, metrics, the cotangents of hidden, unembedding and floats of the first `count` losses)."""
    floats, others, merge = split
    targets, floats, others = jax.tree.map(lambda x: x[:, 1:], (tokens, floats, others))
    chunk = chunk or chunk_length(*targets.shape, unembedding.shape[1])

    def step(totals, x):
        states, targets, floats, others = x
        logits = logits_of(states, unembedding, temperature)
        logprobs, entropies, normaliser = statistics(logits, targets)

        def summed(floats, logprobs, *with_entropy):
            seen = with_entropy[0] if entropy else jax.lax.stop_gradient(entropies)
            losses, metrics = terms(logprobs, seen, merge(floats, others))
            return tuple(jnp.sum(loss) for loss in losses), (losses, metrics)

        sums, pull, values = jax.vjp(summed, floats, logprobs, *([entropies] if entropy else []), has_aux=True)
        units = [tuple(jnp.full((), i == k, x.dtype) for i, x in enumerate(sums)) for k in range(count)]
        pulled = [pull(unit) for unit in units]
        scored = Scored(states, targets, logits, _read_first(normaliser, logprobs, values[1]), entropies)
        heads = pull_back(scored, unembedding, temperature, [p[1:] for p in pulled])
        totals = tuple(total + head[1] for total, head in zip(totals, heads, strict=True))
        return totals, (values, tuple((head[0], p[0]) for head, p in zip(heads, pulled, strict=True)))

    arrays = (hidden[:, :-1], targets, floats, others)
    start = tuple(jnp.zeros(unembedding.shape, jnp.float32) for _ in range(count))
    totals, ((losses, metrics), rows) = over_chunks(step, start, arrays, chunk)
    sums = {name: jnp.sum(value) for name, value in metrics.items()}
    cotangents = []
    for total, (d_states, d_floats) in zip(totals, rows, strict=True):
        d_hidden = jnp.pad(d_states, [(0, 0), (0, 1), (0, 0)])
        d_floats = [jnp.pad(x, [(0, 0), (1, 0)]) for x in d_floats]
        cotangents.append((d_hidden, total.astype(unembedding.dtype), d_floats))
    return tuple(jnp.sum(loss) for loss in losses), sums, tuple(cotangents)
