"""A token-wise loss from hidden states: its value and its gradient in one pass over the vocabulary.

    L = sum_t l_t(log p_t, H_t),    dL/dh and dL/dW taken chunk by chunk while the chunk's logits are there

Where the loss of a token depends on that token alone, its cotangents are known as soon as its log-probability is. So
the forward pass takes the gradient too, and the backward pass only scales it: three products with the vocabulary, where
keeping nothing costs four, and no [B, T, V] array. With z = h W / temperature and y the target,

    d log p / d h = (W_y - sum_v p_v W_v) / temperature
    H = -log p - sum_v p_v (z_v - z_y) = -log p + h . d log p / d h

so that the entropy, which every run watches, comes with the gradient. The products are taken of (p - onehot) before it
is divided by the softmax's sum: each exponential is computed once, and where p is near 1 nothing cancels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from prerl_jax.core.logprobs import (
    Scored,
    chunk_length,
    entropy_of,
    logits_of,
    over_chunks,
    pull_back,
    statistics,
    to_hidden,
)
from prerl_jax.core.types import Array
from prerl_jax.core.xla_cpu import weight_gradient

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


def _read_first(normaliser: Array, never: Array) -> Array:
    """The normaliser, once `never` is known, which is false: what needs it may overwrite what `never` was read of.

    XLA:CPU drops `optimization_barrier` before it lays out memory; that the bound in `never` is not passed it cannot
    foresee.
    """
    return jnp.where(never, 0.0, normaliser)


def _with_gradient(states, unembedding, logits, targets, temperature):
    """(log-probabilities, entropies, pull) of a chunk, with most of its gradient computed already.

    `pull` gives, of the log-probabilities' cotangents f32[B, C], those of (states [B, C, D], unembedding f32[D, V]).
    """
    rows = states.reshape(-1, states.shape[-1])
    chosen = jnp.take_along_axis(logits, targets.reshape(-1, 1), axis=-1)
    largest = jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))
    largest = _read_first(largest, chosen > largest)
    is_target = jnp.arange(logits.shape[-1]) == targets.reshape(-1, 1)
    others = jnp.where(is_target, 0.0, jnp.exp(logits - largest))
    rest = others.sum(axis=-1, keepdims=True)
    total = rest + jnp.exp(chosen - largest)
    surplus = jnp.where(is_target, -rest, others).astype(states.dtype)  # total (p - onehot)
    slope = to_hidden(surplus, unembedding) / total  # -temperature d log p / d h
    logprobs = chosen - largest - jnp.log(total)
    if states.dtype == jnp.float32:
        entropies = -logprobs - jnp.sum(rows * slope, axis=-1, keepdims=True) / temperature
    else:  # from rounded products it would have their noise, times the logits' size
        entropies = entropy_of(logits, (chosen - logprobs)[:, 0])

    def pull(d_logprobs):
        weight = -d_logprobs.reshape(-1, 1) / temperature
        d_states = (weight * slope).astype(states.dtype).reshape(states.shape)
        return d_states, weight_gradient((weight / total * rows).astype(states.dtype), surplus, jnp.float32)

    return logprobs.reshape(targets.shape), jax.lax.stop_gradient(entropies.reshape(targets.shape)), pull


def _pass(terms, hidden, unembedding, tokens, split, count, *, temperature=1.0, chunk=None, entropy=False):
    """(losses, metrics, the cotangents of hidden, unembedding and floats of the first `count` losses)."""
    floats, others, merge = split
    targets, floats, others = jax.tree.map(lambda x: x[:, 1:], (tokens, floats, others))
    chunk = chunk or chunk_length(*targets.shape, unembedding.shape[1])

    def step(totals, x):
        states, targets, floats, others = x
        logits = logits_of(states, unembedding, temperature)
        if count and not entropy:
            logprobs, entropies, to_both = _with_gradient(states, unembedding, logits, targets, temperature)
        else:
            logprobs, entropies, normaliser = statistics(logits, targets)
            normaliser = _read_first(normaliser, (logprobs > 1) | (entropies < -1))
            scored = Scored(states, targets, logits, normaliser, entropies)
            to_both = functools.partial(pull_back, scored, unembedding, temperature)

        def summed(floats, logprobs, *with_entropy):
            seen = with_entropy[0] if entropy else jax.lax.stop_gradient(entropies)
            losses, metrics = terms(logprobs, seen, merge(floats, others))
            return tuple(jnp.sum(loss) for loss in losses), (losses, metrics)

        sums, pull, values = jax.vjp(summed, floats, logprobs, *([entropies] if entropy else []), has_aux=True)
        units = [tuple(jnp.full((), i == k, x.dtype) for i, x in enumerate(sums)) for k in range(count)]
        pulled = [pull(unit) for unit in units]
        heads = [to_both(*p[1:]) for p in pulled]
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
