"""Loss aggregation: how the mean over tokens is taken. Turns kept samples into the weights of the loss.

    loss = sum_{i,t} w_{i,t} l_{i,t}

The weights are normalised over the global batch. Samples that are not kept leave the numerator and the denominator.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from prerl_jax.core.types import Array


def _check_scale(aggregation: object) -> None:
    if not 0 <= aggregation.scale < float("inf"):
        raise ValueError(
            f"{type(aggregation).__name__}.scale is {aggregation.scale}; it must be 0 or more, and finite."
        )


def _kept_tokens(mask: Array, keep: Array) -> tuple[Array, Array]:
    """(kept tokens f32[B, T], kept tokens of each row f32[B, 1])."""
    tokens = (mask & keep[:, None]).astype(jnp.float32)
    return tokens, tokens.sum(axis=1, keepdims=True)


def _share(numerator: Array, denominator: Array, scale: float) -> Array:
    """scale * numerator / denominator, and 0 where there is nothing to share among."""
    return jnp.where(denominator > 0, scale * numerator / jnp.maximum(denominator, 1), 0.0)


@dataclasses.dataclass(frozen=True)
class TokenMean:
    """The mean over all kept tokens of the global batch."""

    scale: float = 1.0

    def __post_init__(self):
        _check_scale(self)

    def __call__(self, mask: Array, keep: Array, response_length: int) -> Array:
        tokens, _ = _kept_tokens(mask, keep)
        return _share(tokens, tokens.sum(), self.scale)


@dataclasses.dataclass(frozen=True)
class SequenceMeanTokenMean:
    """The mean over kept sequences of their token means."""

    scale: float = 1.0

    def __post_init__(self):
        _check_scale(self)

    def __call__(self, mask: Array, keep: Array, response_length: int) -> Array:
        tokens, lengths = _kept_tokens(mask, keep)
        return _share(_share(tokens, lengths, 1.0), (lengths > 0).sum(), self.scale)


@dataclasses.dataclass(frozen=True)
class SequenceMeanTokenSum:
    """The mean over kept sequences of their token sums."""

    scale: float = 1.0

    def __post_init__(self):
        _check_scale(self)

    def __call__(self, mask: Array, keep: Array, response_length: int) -> Array:
        tokens, lengths = _kept_tokens(mask, keep)
        return _share(tokens, (lengths > 0).sum(), self.scale)


@dataclasses.dataclass(frozen=True)
class SequenceSumTokenSumNorm:
    """The sum over kept sequences of their token sums, divided by the maximum response length R."""

    scale: float = 1.0

    def __post_init__(self):
        _check_scale(self)

    def __call__(self, mask: Array, keep: Array, response_length: int) -> Array:
        tokens, _ = _kept_tokens(mask, keep)
        return self.scale * tokens / response_length


@dataclasses.dataclass(frozen=True)
class SequenceMeanTokenSumNorm:
    """The mean over kept sequences of their token sums, each divided by the maximum response length R."""

    scale: float = 1.0

    def __post_init__(self):
        _check_scale(self)

    def __call__(self, mask: Array, keep: Array, response_length: int) -> Array:
        tokens, lengths = _kept_tokens(mask, keep)
        return _share(tokens, response_length * (lengths > 0).sum(), self.scale)
