"""Metrics of a batch of responses in both spaces: alignment token by token, marginal gap and probabilities.

One forward pass in each space serves both the token alignment and the probability statistics. Everything is a sum over
tokens until the end, so the rows can be processed in microbatches:

    mean = (sum over all microbatches of a per-token value) / (number of tokens of all microbatches)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from prerl_jax.alignment.buckets import Buckets, token_alignment_means, token_alignment_sums
from prerl_jax.alignment.tokens import TokenAlignment, compare_tokens, response_states, within
from prerl_jax.core.head import Head
from prerl_jax.core.logprobs import chunk_length, map_chunks
from prerl_jax.core.microbatches import accumulate
from prerl_jax.core.types import Array, Model, Params, Rollouts, Space

BUFFERS = 6
"""Arrays of the size of a chunk's logits that are held at once: logits, q and probabilities, in two spaces."""


def make_space_measurements(
    model: Model,
    pre_space: Space,
    post_space: Space,
    stop_tokens: Sequence[int] = (),
    *,
    buckets: Buckets | None = None,
    temperature: float = 1.0,
    chunk: int | None = None,
    microbatches: int = 1,
) -> Callable[[Params, Rollouts], dict[str, Array]]:
    """Makes the function that measures a batch of responses in both spaces, without a gradient.

    Args:
      model: the policy.
      pre_space: P(y).
      post_space: P(y|x).
      stop_tokens: ids of the tokens that end a response.
      buckets: of probabilities and positions; None for `Buckets()`.
      temperature: divides the logits; above 0.
      chunk: tokens of a row whose logits are held at once, in both spaces; None chooses by LOGITS_BUDGET.
      microbatches: parts that the rows are processed in, one after the other; it must divide them.

    Returns:
      f(params, rollouts) -> the metrics of `token_alignment_metrics`, and those of `make_probability_statistics` under
      alignment/pre and alignment/post, f32[] each. f is pure: jit it whole.
    """
    buckets, stops = buckets or Buckets(), tuple(sorted(set(stop_tokens)))

    def sums(params: Params, rollouts: Rollouts) -> dict[str, Any]:
        pre, pre_mask, _ = response_states(model, params, pre_space, rollouts)
        post, post_mask, head = response_states(model, params, post_space, rollouts)
        rows, length = rollouts.response.shape
        tokens = chunk or chunk_length(BUFFERS * rows, length, head.vocab_size)

        def measure(pre: Array, post: Array, targets: Array) -> tuple[TokenAlignment, dict[str, dict[str, Array]]]:
            probabilities = {
                name: token_statistics(hidden, head, targets, stops, temperature)
                for name, hidden in (("pre", pre), ("post", post))
            }
            return compare_tokens(pre, post, head, targets, temperature), probabilities

        alignment, probabilities = map_chunks(measure, (pre, post, rollouts.response), tokens)
        masks = {"pre": pre_mask, "post": post_mask}
        return {
            "alignment": token_alignment_sums(within(alignment, pre_mask & post_mask), buckets),
            "tokens": {name: mask.sum() for name, mask in masks.items()},
            "probabilities": {name: _summed(found, masks[name]) for name, found in probabilities.items()},
        }

    def measurements(params: Params, rollouts: Rollouts) -> dict[str, Array]:
        found = accumulate(sums, microbatches, params, rollouts)
        metrics = {
            f"alignment/{name}/{key}": total / found["tokens"][name]
            for name, totals in found["probabilities"].items()
            for key, total in totals.items()
        }
        return token_alignment_means(found["alignment"], rollouts.response.shape[1], buckets) | metrics

    return measurements


def _summed(found: dict[str, Array], mask: Array) -> dict[str, Array]:
    return {name: jnp.where(mask, value, 0.0).sum() for name, value in found.items()}


def make_probability_statistics(
    model: Model,
    spaces: Mapping[str, Space],
    stop_tokens: Sequence[int] = (),
    *,
    temperature: float = 1.0,
    top: int = 3,
    chunk: int | None = None,
) -> Callable[[Params, Rollouts], dict[str, Array]]:
    """Makes f(params, rollouts) -> {"NAME/STATISTIC": f32[]}, means over the tokens that the space NAME scores.

    f is pure: jit it whole. It costs one forward pass for each space. In a space that scores no token, it gives NaN.

    Args:
      model: the policy.
      spaces: by the names in the results, such as {"pre": PreTrainSpace(prefix), "post": PostTrainSpace()}.
      stop_tokens: ids of the tokens that end a response.
      temperature: divides the logits; above 0.
      top: how many of the largest probabilities are reported.
      chunk: tokens of a row whose logits are held at once; None chooses by LOGITS_BUDGET.

    Returns:
      f. The STATISTICs are logprob and probability (of the response's own token), entropy, top1, top2, ... (the
      k-th largest probability) and, where there are stop tokens, eos (the probability of ending here).

    Raises ValueError, when f is traced, where `top` is more than the vocabulary.
    """
    stops = tuple(sorted(set(stop_tokens)))

    def means(params: Params, space: Space, rollouts: Rollouts) -> dict[str, Array]:
        hidden, mask, head = response_states(model, params, space, rollouts)
        if top > head.vocab_size:
            raise ValueError(f"top is {top}, but the vocabulary has {head.vocab_size} tokens. Choose a smaller top.")

        def tokens(hidden: Array, targets: Array) -> dict[str, Array]:
            return token_statistics(hidden, head, targets, stops, temperature, top)

        width = chunk or chunk_length(2 * mask.shape[0], mask.shape[1], head.vocab_size)
        found = map_chunks(tokens, (hidden, rollouts.response), width)
        return {name: total / mask.sum() for name, total in _summed(found, mask).items()}

    def statistics(params: Params, rollouts: Rollouts) -> dict[str, Array]:
        return {
            f"{name}/{statistic}": value
            for name, space in spaces.items()
            for statistic, value in means(params, space, rollouts).items()
        }

    return statistics


def token_statistics(
    hidden: Array, head: Head, targets: Array, stop_tokens: tuple[int, ...], temperature: float, top: int = 3
) -> dict[str, Array]:
    """The STATISTICs of `make_probability_statistics` for single tokens, f32[B, C] each.

    Args:
      hidden: [B, C, D], the states that predict the tokens.
      head: turns hidden states into logits.
      targets: i32[B, C], the tokens.
      stop_tokens: ids of the tokens that end a response.
      temperature: divides the logits.
      top: how many of the largest probabilities are reported.
    """
    logits = head.logits(hidden) / temperature
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    probabilities = jnp.exp(logits - normaliser[..., None])
    logprobs = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0] - normaliser
    largest = jnp.exp(jax.lax.top_k(logits, top)[0] - normaliser[..., None])
    found = {
        "logprob": logprobs,
        "probability": jnp.exp(logprobs),
        "entropy": normaliser - jnp.sum(probabilities * head.fill_invalid(logits, 0.0), axis=-1),
        **{f"top{k + 1}": largest[..., k] for k in range(top)},
    }
    if stop_tokens:
        found["eos"] = probabilities[..., jnp.asarray(stop_tokens)].sum(axis=-1)
    return found
