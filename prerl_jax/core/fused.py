"""A token-wise loss from hidden states: its value and its gradient in one pass over the vocabulary.

    L = sum_t l_t(log p_t, H_t),    dL/dh and dL/dW computed chunk by chunk, while the chunk's logits exist

Where the loss of a token depends on that token alone, the cotangents are known as soon as the token's log-probability
is. So the forward pass computes the gradient too, and the backward pass only scales it. This takes three products with
the vocabulary, where recomputing the logits in the backward pass takes four, and it needs no [B, T, V] array. With
z = h W / temperature and y the target,

    d log p / d h = (W_y - sum_v p_v W_v) / temperature
    H = -log p - sum_v p_v (z_v - z_y) = -log p + h . d log p / d h

so the entropy, which every run reports, comes with the gradient. The products are taken with (p - onehot) before it is
divided by the softmax's sum: each exponential is computed once, and where p is near 1 nothing cancels. A head with a
scale, a soft cap or padding ids (see `head.Head`) has its derivative between the logits and `h W`. The entropy's
shortcut needs logits that are linear in h, so with a soft cap or padding ids the entropy is summed over the vocabulary.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from prerl_jax.core.head import Head
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
from prerl_jax.core.xla_cpu import as_matrix, read_first, weight_gradient

Terms = Callable[[Array, Array, Any], tuple[tuple[Array, ...], dict[str, Array]]]
"""(logprobs f32[B, C], entropy f32[B, C], data of [B, C]) -> (one or more losses f32[B, C], metrics f32[B, C])."""
Found = tuple[tuple[Array, ...], dict[str, Array], tuple[tuple[Array, Head, list[Array]], ...]]
"""(the losses' sums, the metrics' sums, for each loss the cotangents of the hidden states, the head and the floats)."""


def fused_loss(terms: Terms, hidden: Array, head: Head, tokens: Array, data: Any, **settings):
    """The sum of the one loss of `terms` over all tokens but the first of each row.

    The sum is differentiable in `hidden`, in `head.weights` and in the float arrays of `data`, any number of times. The
    metrics are not differentiable.

    Args:
      terms: computes the loss of a chunk of tokens, from the `data` of those tokens.
      hidden: [B, T, D].
      head: turns hidden states into logits.
      tokens: i32[B, T].
      data: a tree of arrays [B, T].
      settings: temperature, chunk and entropy, see `losses_and_cotangents`.

    Returns: (the loss f32[], {metric: its sum f32[]}).
    """
    floats, others, merge = split_floats(data)

    @jax.custom_vjp
    def run(hidden, head, floats, tokens, others):
        (loss,), sums, _ = _pass(terms, hidden, head, tokens, (floats, others, merge), 0, **settings)
        return loss, sums

    def forward(hidden, head, floats, tokens, others):
        found = _pass(terms, hidden, head, tokens, (floats, others, merge), 1, **settings)
        (loss,), sums, (cotangents,) = found
        return (loss, sums), cotangents

    def backward(cotangents, outer):
        return (*jax.tree.map(lambda x: (outer[0] * x).astype(x.dtype), cotangents), None, None)

    run.defvjp(forward, backward)
    loss, sums = run(hidden, head, floats, tokens, others)
    return loss, jax.lax.stop_gradient(sums)


def losses_and_cotangents(
    terms: Terms,
    hidden: Array,
    head: Head,
    tokens: Array,
    data: Any,
    count: int,
    *,
    temperature: float = 1.0,
    chunk: int | None = None,
    entropy: bool = False,
) -> tuple[tuple[Array, ...], dict[str, Array], tuple[tuple[Array, Head], ...]]:
    """Several losses at once, each with its gradient: what depends on the vocabulary alone is computed once.

    Args:
      terms: computes the losses.
      hidden: [B, T, D].
      head: turns hidden states into logits.
      tokens: i32[B, T].
      data: a tree of arrays [B, T].
      count: the number of losses.
      temperature: divides the logits.
      chunk: tokens of a row in one chunk; None chooses by LOGITS_BUDGET.
      entropy: whether a loss depends on the entropies; if not, they serve as metrics only.

    Returns: (losses f32[] each, {metric: sum f32[]}, for each loss the cotangents of (hidden, head)).
    """
    settings = {"temperature": temperature, "chunk": chunk, "entropy": entropy}
    losses, sums, cotangents = _pass(terms, hidden, head, tokens, split_floats(data), count, **settings)
    return losses, sums, tuple(c[:2] for c in cotangents)


def split_floats(data: Any) -> tuple[list[Array], list[Array], Callable]:
    """(the float leaves, the other leaves, the function of both that rebuilds the tree)."""
    leaves, structure = jax.tree.flatten(data)
    wanted = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]

    def merge(floats, others):
        floats, others = iter(floats), iter(others)
        return jax.tree.unflatten(structure, [next(floats if is_float else others) for is_float in wanted])

    pairs = list(zip(leaves, wanted, strict=True))
    return [leaf for leaf, w in pairs if w], [leaf for leaf, w in pairs if not w], merge


def _with_gradient(states, head, logits, targets, temperature):
    """(log-probabilities, entropies, pull) of a chunk, with most of its gradient computed already.

    `pull` takes the log-probabilities' cotangents f32[B, C] to those of (states [B, C, D], weights f32[D, V]).
    """
    rows = as_matrix(states)
    chosen = jnp.take_along_axis(logits, targets.reshape(-1, 1), axis=-1)
    largest = jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))
    largest = read_first(largest, chosen > largest)
    is_target = jnp.arange(logits.shape[-1]) == targets.reshape(-1, 1)
    others = jnp.where(is_target, 0.0, jnp.exp(logits - largest))
    rest = others.sum(axis=-1, keepdims=True)
    total = rest + jnp.exp(chosen - largest)
    surplus = jnp.where(is_target, -rest, others)  # total (p - onehot)
    surplus = head.pull_back(surplus, logits, temperature).astype(states.dtype)
    slope = to_hidden(surplus, head) / total  # -temperature d log p / d h
    logprobs = chosen - largest - jnp.log(total)
    if states.dtype == jnp.float32 and head.soft_cap is None and head.valid_ids is None:
        entropies = -logprobs - jnp.sum(rows * slope, axis=-1, keepdims=True) / temperature
    else:  # from products rounded to bfloat16 the entropy would have their noise, times the logits' size
        normaliser = largest + jnp.log(total) if head.valid_ids is not None else chosen - logprobs
        entropies = entropy_of(logits, normaliser[:, 0], head)

    def pull(d_logprobs):
        weight = -d_logprobs.reshape(-1, 1) / temperature
        d_states = (weight * slope).astype(states.dtype).reshape(states.shape)
        return d_states, weight_gradient((weight / total * rows).astype(states.dtype), surplus, jnp.float32)

    return logprobs.reshape(targets.shape), jax.lax.stop_gradient(entropies.reshape(targets.shape)), pull


def _pass(terms, hidden, head, tokens, split, count, *, temperature=1.0, chunk=None, entropy=False):
    """(losses, metrics, the cotangents of hidden, head and floats of the first `count` losses), see `Found`."""
    floats, others, merge = split
    targets, floats, others = jax.tree.map(lambda x: x[:, 1:], (tokens, floats, others))
    rows, length = targets.shape
    chunk = chunk or chunk_length(rows, length, head.vocab_size)

    def step(totals, x):
        states, targets, floats, others = x
        logits = logits_of(states, head, temperature)
        if count and not entropy:
            logprobs, entropies, to_both = _with_gradient(states, head, logits, targets, temperature)
        else:
            logprobs, entropies, normaliser = statistics(logits, targets, head)
            normaliser = read_first(normaliser, (logprobs > 1) | (entropies < -1))
            scored = Scored(states, targets, logits, normaliser, entropies)
            to_both = functools.partial(pull_back, scored, head, temperature)

        def summed(floats, logprobs, *with_entropy):
            seen = with_entropy[0] if entropy else jax.lax.stop_gradient(entropies)
            losses, metrics = terms(logprobs, seen, merge(floats, others))
            return tuple(jnp.sum(loss) for loss in losses), (losses, metrics)

        sums, pull, values = jax.vjp(summed, floats, logprobs, *([entropies] if entropy else []), has_aux=True)
        units = [tuple(jnp.full((), i == k, x.dtype) for i, x in enumerate(sums)) for k in range(count)]
        pulled = [pull(unit) for unit in units]
        heads = [to_both(*p[1:]) for p in pulled]
        totals = tuple(total + d_head[1] for total, d_head in zip(totals, heads, strict=True))
        return totals, (values, tuple((d_head[0], p[0]) for d_head, p in zip(heads, pulled, strict=True)))

    arrays = (hidden[:, :-1], targets, floats, others)
    start = tuple(jnp.zeros(head.weights.shape, jnp.float32) for _ in range(count))
    totals, ((losses, metrics), rows) = over_chunks(step, start, arrays, chunk)
    sums = {name: jnp.sum(value) for name, value in metrics.items()}
    cotangents = []
    for total, (d_states, d_floats) in zip(totals, rows, strict=True):
        d_hidden = jnp.pad(d_states, [(0, 0), (0, 1), (0, 0)])
        d_floats = [jnp.pad(x, [(0, 0), (1, 0)]) for x in d_floats]
        d_head = dataclasses.replace(head, weights=total.astype(head.weights.dtype))
        cotangents.append((d_hidden, d_head, d_floats))
    return tuple(jnp.sum(loss) for loss in losses), sums, tuple(cotangents)
