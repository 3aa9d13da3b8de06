"""Loss aggregation: turns the selected responses into the weights w of the loss.

    loss = sum_{i,t} w_{i,t} l_{i,t}

The weights are normalised over the global batch of b sequences; sequence i has n_i trained tokens, at most R:

    TokenMean                  w = 1 / sum_i n_i                                       DAPO, arXiv 2503.14476
    SequenceMeanTokenMean      w = 1 / (b n_i)                                         GRPO, 2402.03300
    SequenceMeanTokenSum       w = 1 / b                                               RLOO, 2402.14740
    SequenceSumTokenSumNorm    w = 1 / R
    SequenceMeanTokenSumNorm   w = 1 / (b R)                                           Dr.GRPO, 2503.20783

times `scale`. Responses that are left out, and sequences without a trained token, do not count in any of these sums.
Every class is called with (mask bool[B, T], keep bool[B], R) and returns weights f32[B, T], 0 on tokens that are not
trained on.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp

from prerl_jax.core.types import Array


def _check_scale(aggregation: Any) -> None:
    if not 0 <= aggregation.scale < float("inf"):
        raise ValueError(
            f"{type(aggregation).__name__}.scale is {aggregation.scale}; it must be 0 or more, and finite."
        )


def _kept_tokens(mask: Array, keep: Array) -> tuple[Array, Array]:
    """(1 on selected tokens f32[B, T], their number in each row f32[B, 1])."""
    tokens = (mask & keep[:, None]).astype(jnp.float32)
    return tokens, tokens.sum(axis=1, keepdims=True)


def _ratio(numerator: Array, denominator: Array, scale: float) -> Array:
    """scale * numerator / denominator; 0 if the denominator is 0."""
    return jnp.where(denominator > 0, scale * numerator / jnp.maximum(denominator, 1), 0.0)


@dataclasses.dataclass(frozen=True)
class TokenMean:
    """The mean over all selected tokens of the global batch, as in DAPO (arXiv 2503.14476).

    A call returns weights f32[B, T].

    Attributes:
      scale: factor of all weights, 0 or more.
    """

    scale: float = 1.0

    def __post_init__(self):
        _check_scale(self)

    def __call__(self, mask: Array, keep: Array, response_length: int) -> Array:
        tokens, _ = _kept_tokens(mask, keep)
        return _ratio(tokens, tokens.sum(), self.scale)


@dataclasses.dataclass(frozen=True)
class SequenceMeanTokenMean:
    """The mean over selected sequences of their token means, as in GRPO (arXiv 2402.03300).

    A call returns weights f32[B, T].

    Attributes:
      scale: factor of all weights, 0 or more.
    """

    scale: float = 1.0

    def __post_init__(self):
        _check_scale(self)

    def __call__(self, mask: Array, keep: Array, response_length: int) -> Array:
        tokens, lengths = _kept_tokens(mask, keep)
        return _ratio(_ratio(tokens, lengths, 1.0), (lengths > 0).sum(), self.scale)


@dataclasses.dataclass(frozen=True)
class SequenceMeanTokenSum:
    """The mean over selected sequences of their token sums, as in RLOO (arXiv 2402.14740).

    A call returns weights f32[B, T].

    Attributes:
      scale: factor of all weights, 0 or more.
    """

    scale: float = 1.0

    def __post_init__(self):
        _check_scale(self)

    def __call__(self, mask: Array, keep: Array, response_length: int) -> Array:
        tokens, lengths = _kept_tokens(mask, keep)
        return _ratio(tokens, (lengths > 0).sum(), self.scale)


@dataclasses.dataclass(frozen=True)
class SequenceSumTokenSumNorm:
    """The sum of the losses of all selected tokens, divided by the maximum response length R.

    A call returns weights f32[B, T]. It is not divided by the number of sequences.

    Attributes:
      scale: factor of all weights, 0 or more.
    """

    scale: float = 1.0

    def __post_init__(self):
        _check_scale(self)

    def __call__(self, mask: Array, keep: Array, response_length: int) -> Array:
        tokens, _ = _kept_tokens(mask, keep)
        return self.scale * tokens / response_length


@dataclasses.dataclass(frozen=True)
class SequenceMeanTokenSumNorm:
    """The mean over selected sequences of their token sums, each divided by R, as in Dr.GRPO (arXiv 2503.20783).

    A call returns weights f32[B, T].

    Attributes:
      scale: factor of all weights, 0 or more.
    """

    scale: float = 1.0

    def __post_init__(self):
        _check_scale(self)

    def __call__(self, mask: Array, keep: Array, response_length: int) -> Array:
        tokens, lengths = _kept_tokens(mask, keep)
        return _ratio(tokens, response_length * (lengths > 0).sum(), self.scale)
