"""Means of per-token values by how probable a token was and by where it stood in its response.

With edges e_1 < ... < e_(K-1) bucket k holds e_k <= value < e_(k+1), the first and the last being open, so K buckets
take in everything.
"""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp

from prerl_jax.core.token_alignment import TokenAlignment
from prerl_jax.core.types import Array


@dataclasses.dataclass(frozen=True)
class Buckets:
    """Where the buckets of tokens begin. ValueError for edges that do not increase or that are out of their range."""

    probability: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999)
    """Inner edges, in (0, 1), of P(y_t | x, y_<t)."""
    position: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
    """Inner edges, from 1, of t: the token's place in its response, from 0."""

    def __post_init__(self):
        for name, low, high in (("probability", 0, 1), ("position", 0, float("inf"))):
            edges = getattr(self, name)
            inside = all(low < edge < high for edge in edges)
            if not (inside and all(a < b for a, b in itertools.pairwise(edges))):
                raise ValueError(f"Buckets.{name} must increase between {low} and {high}, both left out; got {edges}.")

    def probability_names(self) -> tuple[str, ...]:
        """One name a bucket: "0-0.1", ..., "0.999-1"."""
        return tuple(f"{a:g}-{b:g}" for a, b in itertools.pairwise((0, *self.probability, 1)))

    def positions_within(self, length: int) -> tuple[int, ...]:
        """The edges of positions that responses of this length reach."""
        return tuple(edge for edge in self.position if edge < length)

    def position_names(self, length: int) -> tuple[str, ...]:
        """One name a bucket that responses of this length reach: "0", "1", "2-3", ..., up to length - 1."""
        ends = itertools.pairwise((0, *self.positions_within(length), length))
        return tuple(f"{a}" if b == a + 1 else f"{a}-{b - 1}" for a, b in ends)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Bucketed:
    """Means by bucket."""

    by_probability: Array
    """f32[K], NaN in an empty bucket."""
    probability_tokens: Array
    """i32[K]."""
    by_position: Array
    """f32[L]."""
    position_tokens: Array
    """i32[L]."""
    by_both: Array
    """f32[K, L]."""
    both_tokens: Array
    """i32[K, L]."""


def bucketed(values: Array, alignment: TokenAlignment, buckets: Buckets | None = None) -> Bucketed:
    """Means of f32[B, R] by the tokens' probability given the prompt and by their position, over the mask. Traceable.

    Args:
      values: a field of the alignment, or any other value of each response token.
      alignment: of the same responses; its mask, and its log-probabilities given the prompt, are used.
      buckets: `Buckets()` by default.
    """
    buckets = buckets or Buckets()
    length = values.shape[1]
    edges = jnp.asarray(buckets.probability, jnp.float32), jnp.asarray(buckets.positions_within(length), jnp.int32)
    row = jnp.searchsorted(edges[0], jnp.exp(alignment.logprobs_post), side="right")
    column = jnp.broadcast_to(jnp.searchsorted(edges[1], jnp.arange(length), side="right"), values.shape)
    shape = (edges[0].size + 1, edges[1].size + 1)
    mask = alignment.mask
    totals = jnp.zeros(shape, jnp.float32).at[row, column].add(jnp.where(mask, values, 0.0))
    counts = jnp.zeros(shape, jnp.int32).at[row, column].add(mask.astype(jnp.int32))
    return Bucketed(
        by_probability=totals.sum(axis=1) / counts.sum(axis=1),
        probability_tokens=counts.sum(axis=1),
        by_position=totals.sum(axis=0) / counts.sum(axis=0),
        position_tokens=counts.sum(axis=0),
        by_both=totals / counts,
        both_tokens=counts,
    )


def token_alignment_metrics(alignment: TokenAlignment, buckets: Buckets | None = None) -> dict[str, Array]:
    """The `alignment/token...` metrics of a run, f32[] each; NaN where there is no token. Traceable.

    alignment/token (the mean cosine), alignment/token/probability_A-B and alignment/token/position_A-B (that of a
    bucket), alignment/marginal_gap (mean, nats a token) and alignment/marginal_gap_per_response (summed over a
    response: log P(y|x) - log P(y)).
    """
    buckets = buckets or Buckets()
    found = bucketed(alignment.cosine, alignment, buckets)
    length = alignment.mask.shape[1]
    names = [f"probability_{name}" for name in buckets.probability_names()]
    names += [f"position_{name}" for name in buckets.position_names(length)]
    means = [*found.by_probability, *found.by_position]
    tokens = alignment.mask.sum()
    gap = alignment.marginal_gap.sum()
    return {
        "alignment/token": alignment.cosine.sum() / tokens,
        "alignment/marginal_gap": gap / tokens,
        "alignment/marginal_gap_per_response": gap / alignment.mask.any(axis=1).sum(),
        **{f"alignment/token/{name}": mean for name, mean in zip(names, means, strict=True)},
    }
