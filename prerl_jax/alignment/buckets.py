"""Means of per-token values by the token's probability and by its position in the response.

With edges e_1 < ... < e_(K-1), bucket k holds e_k <= value < e_(k+1). The first and the last bucket are open, so the K
buckets hold all values.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import jax.numpy as jnp

from prerl_jax.alignment.tokens import TokenAlignment
from prerl_jax.core.pytree import pytree
from prerl_jax.core.types import Array


@dataclasses.dataclass(frozen=True)
class Buckets:
    """The inner edges of the buckets of tokens.

    Attributes:
      probability: increasing, in (0, 1): edges for P(y_t | x, y_<t) and for P(y_t | y_<t).
      position: increasing, 1 or more: edges for t, the position in the response, from 0.

    Raises ValueError for edges that do not increase or that are out of their range.
    """

    probability: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999)
    position: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)

    def __post_init__(self):
        for name, low, high in (("probability", 0, 1), ("position", 0, float("inf"))):
            edges = getattr(self, name)
            inside = all(low < edge < high for edge in edges)
            if not (inside and all(a < b for a, b in itertools.pairwise(edges))):
                raise ValueError(f"Buckets.{name} must increase between {low} and {high}, both left out; got {edges}.")

    def positions_within(self, length: int) -> tuple[int, ...]:
        """The edges of positions that responses of `length` tokens reach."""
        return tuple(edge for edge in self.position if edge < length)

    def names(self, length: int) -> dict[str, tuple[str, ...]]:
        """The buckets' names for each of AXES, for responses of `length` tokens: "0.9-0.99"; "0", "1", "2-3", ..."""
        probability = tuple(f"{a:g}-{b:g}" for a, b in itertools.pairwise((0, *self.probability, 1)))
        ends = itertools.pairwise((0, *self.positions_within(length), length))
        position = tuple(f"{a}" if b == a + 1 else f"{a}-{b - 1}" for a, b in ends)
        return {"post": probability, "pre": probability, "position": position}


AXES = ("post", "pre", "position")
"""The buckets' axes: P(y_t | x, y_<t), P(y_t | y_<t), and t."""


@pytree
class Bucketed:
    """Sums of a per-token value over the buckets of all three AXES. The sums of several batches add up.

    Attributes:
      totals: f32[K, K, L], sums of the value.
      tokens: i32[K, K, L], numbers of tokens.
    """

    totals: Array
    tokens: Array

    def mean(self, *axes: str) -> Array:
        """The mean in each bucket of the given axes, in the order of AXES, over the other axes; NaN without a token."""
        return jnp.divide(self._over(self.totals, axes), self._over(self.tokens, axes))

    def count(self, *axes: str) -> Array:
        """The number of tokens in each bucket of the given axes, as in `mean`."""
        return self._over(self.tokens, axes)

    def _over(self, values: Array, axes: tuple[str, ...]) -> Array:
        if set(axes) - set(AXES):
            raise ValueError(f"the axes of buckets are {AXES}, got {axes}. Use some of these.")
        return values.sum(axis=tuple(i for i, axis in enumerate(AXES) if axis not in axes))


def bucketed(values: Array, alignment: TokenAlignment, buckets: Buckets | None = None) -> Bucketed:
    """Sums of per-token values in the buckets of both probabilities and of the position. Traceable.

    Args:
      values: f32[B, R], a field of the alignment or any other value of each response token.
      alignment: of the same responses. Its mask selects the tokens; its log-probabilities choose their buckets.
      buckets: None for `Buckets()`.
    """
    buckets = buckets or Buckets()
    length, mask = values.shape[1], alignment.mask
    edges = jnp.asarray(buckets.probability, jnp.float32)
    reached = jnp.asarray(buckets.positions_within(length), jnp.int32)
    position = jnp.broadcast_to(jnp.searchsorted(reached, jnp.arange(length), side="right"), values.shape)
    probabilities = (jnp.exp(x) for x in (alignment.logprobs_post, alignment.logprobs_pre))
    place = (*(jnp.searchsorted(edges, p, side="right") for p in probabilities), position)
    shape = (edges.size + 1, edges.size + 1, reached.size + 1)
    return Bucketed(
        totals=jnp.zeros(shape, jnp.float32).at[place].add(jnp.where(mask, values, 0.0)),
        tokens=jnp.zeros(shape, jnp.int32).at[place].add(mask.astype(jnp.int32)),
    )


def token_alignment_metrics(alignment: TokenAlignment, buckets: Buckets | None = None) -> dict[str, Array]:
    """The `alignment/token...` metrics of a run, f32[] each; NaN where there is no token. Traceable.

    alignment/token: the mean cosine.
    alignment/token_weighted: the mean cosine with weights |g_pre| |g_post|. A token whose gradient is nearly zero
      changes nothing, whatever its cosine.
    alignment/marginal_gap: the mean, in nats per token.
    alignment/marginal_gap_per_response: the mean over responses of log P(y|x) - log P(y).
    alignment/token/post_A-B, alignment/token/pre_A-B: the mean cosine by probability with and without the prompt.
    alignment/token/position_A-B: the mean cosine by position.

    Args:
      alignment: of B responses of up to R tokens.
      buckets: None for `Buckets()`.
    """
    buckets = buckets or Buckets()
    return token_alignment_means(token_alignment_sums(alignment, buckets), alignment.mask.shape[1], buckets)


Sums = dict[str, Any]
"""{name: an array f32[] or i32[], or a `Bucketed`}."""


def token_alignment_sums(alignment: TokenAlignment, buckets: Buckets) -> Sums:
    """The sums that `token_alignment_means` takes. Those of several batches add up, leaf by leaf."""
    return {
        "cosine": alignment.cosine.sum(),
        "inner": alignment.inner.sum(),
        "norms": (alignment.norm_pre * alignment.norm_post).sum(),
        "gap": alignment.marginal_gap.sum(),
        "tokens": alignment.mask.sum(),
        "responses": alignment.mask.any(axis=1).sum(),
        "by_bucket": bucketed(alignment.cosine, alignment, buckets),
    }


def token_alignment_means(sums: Sums, length: int, buckets: Buckets) -> dict[str, Array]:
    """The metrics of `token_alignment_metrics`, from sums over batches of responses of up to `length` tokens."""
    metrics = {
        "alignment/token": sums["cosine"] / sums["tokens"],
        "alignment/token_weighted": sums["inner"] / sums["norms"],
        "alignment/marginal_gap": sums["gap"] / sums["tokens"],
        "alignment/marginal_gap_per_response": sums["gap"] / sums["responses"],
    }
    for axis, names in buckets.names(length).items():
        means = sums["by_bucket"].mean(axis)
        metrics |= {f"alignment/token/{axis}_{n}": m for n, m in zip(names, means, strict=True)}
    return metrics
