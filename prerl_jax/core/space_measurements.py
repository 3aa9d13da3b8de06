"""What both spaces say of a batch of responses, as metrics: alignment token by token, marginal gap, probabilities.

One forward pass in each space; the numbers of `token_alignment` and `statistics` follow from the same hidden states.
Everything is a sum over tokens until the end, so parts of the rows may be done one after the other:

    mean = (sum over parts of the sum over a part's tokens) / (sum over parts of its tokens)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from prerl_jax.core.logprobs import chunk_length
from prerl_jax.core.response_states import by_chunks, response_states
from prerl_jax.core.statistics import token_statistics
from prerl_jax.core.token_alignment import TokenAlignment, compare_tokens, within
from prerl_jax.core.token_buckets import Buckets, token_alignment_means, token_alignment_sums
from prerl_jax.core.train_step import accumulate
from prerl_jax.core.types import Array, Model, Params, Rollouts, Space

BUFFERS = 6
"""Arrays of a chunk's logits that are held at once: logits, q and probabilities, in two spaces."""


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
    """f(params, rollouts) -> the `alignment/` metrics, f32[] each, that need no gradient; pure, jit it whole.

    Those of `token_alignment_metrics`, and those of `make_probability_statistics` under alignment/pre and
    alignment/post.

    Args:
      model: the policy.
      pre_space: P(y).
      post_space: P(y|x).
      stop_tokens: ids that end a response.
      buckets: of probabilities and positions; `Buckets()` by default.
      temperature: divides the logits.
      chunk: tokens of a row whose logits are held at once, in both spaces; None chooses by LOGITS_BUDGET.
      microbatches: parts that the rows are done in, one after the other; must divide them.
    """
    buckets, stops = buckets or Buckets(), tuple(sorted(set(stop_tokens)))

    def sums(params: Params, rollouts: Rollouts) -> dict[str, Any]:
        pre, pre_mask = response_states(model, params, pre_space, rollouts)
        post, post_mask = response_states(model, params, post_space, rollouts)
        unembedding = model.unembedding(params)
        rows, length = rollouts.response.shape
        tokens = chunk or chunk_length(BUFFERS * rows, length, unembedding.shape[1])

        def measure(pre: Array, post: Array, targets: Array) -> tuple[TokenAlignment, dict[str, dict[str, Array]]]:
            probabilities = {
                name: token_statistics(states, unembedding, targets, stops, temperature)
                for name, states in (("pre", pre), ("post", post))
            }
            return compare_tokens(pre, post, unembedding, targets, temperature), probabilities

        alignment, probabilities = by_chunks(measure, tokens, pre, post, rollouts.response)
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
