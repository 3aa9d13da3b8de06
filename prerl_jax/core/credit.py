"""From rewards to token weights: who is credited with what, and how the mean is taken.

A credit gives every sample an advantage and says which samples are kept:

    A_i = r_i - mean(r of i's group)     [ / (std(r of i's group, ddof=1) + 1e-6) ]

Selection goes by the sign of the advantage and never alters it. A weighing turns the kept samples into the weights w of
the loss  sum_{i,t} w_{i,t} l_{i,t},  normalised over the global batch: dropped samples leave numerator and denominator.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from prerl_jax.core.types import Array

KEEP = ("all", "negative", "positive")


@dataclasses.dataclass(frozen=True)
class GroupRelative:
    """Advantage relative to the group's mean (GRPO); contiguous blocks of `group_size` rows are a group.

    Attributes:
      normalize_std: divide by the group's sample standard deviation (ddof=1) + 1e-6.
      keep: "all", "negative" (advantage < 0, NSR) or "positive" (advantage > 0, PSR).
    """

    normalize_std: bool = True
    keep: str = "all"

    def __post_init__(self):
        if self.keep not in KEEP:
            raise ValueError(f"GroupRelative.keep must be one of {KEEP}, got {self.keep!r}.")

    def __call__(self, rewards: Array, group_size: int) -> tuple[Array, Array]:
        """rewards f32[B] -> (advantages f32[B], keep bool[B]).

        Rewards that differ from their group's mean by rounding alone have advantage exactly 0. Raises ValueError for a
        group of one, and for a batch that groups do not divide.
        """
        grouped = groups(rewards, group_size)
        centred = grouped - grouped.mean(axis=1, keepdims=True)
        rounding = 8 * jnp.finfo(grouped.dtype).eps * jnp.abs(grouped).max(axis=1, keepdims=True)
        advantages = jnp.where(jnp.abs(centred) <= rounding, 0.0, centred)
        if self.normalize_std:
            advantages = advantages / (jnp.std(grouped, axis=1, ddof=1, keepdims=True) + 1e-6)
        advantages = advantages.reshape(-1)
        return advantages, kept(advantages, self.keep)


def groups(rewards: Array, group_size: int) -> Array:
    """f32[B] -> f32[B / G, G]; ValueError for groups of one and for a batch that groups do not divide."""
    if group_size < 2:
        raise ValueError(
            f"A group-relative advantage compares the samples of one prompt, and a group of {group_size} is always 0. "
            f"Sample at least 2 responses a prompt (group_size >= 2)."
        )
    if rewards.shape[0] % group_size:
        raise ValueError(f"{rewards.shape[0]} rewards do not divide into groups of {group_size}.")
    return jnp.asarray(rewards, jnp.float32).reshape(-1, group_size)


def kept(advantages: Array, keep: str) -> Array:
    """bool[B]: which samples take part, by the sign of their advantage."""
    if keep == "negative":
        return advantages < 0
    if keep == "positive":
        return advantages > 0
    return jnp.ones_like(advantages, bool)


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

    def __call__(self, mask: Array, keep: Array, response_length: int) -> Array:
        tokens, _ = _kept_tokens(mask, keep)
        return _share(tokens, tokens.sum(), self.scale)


@dataclasses.dataclass(frozen=True)
class SequenceMeanTokenMean:
    """The mean over kept sequences of their token means."""

    scale: float = 1.0

    def __call__(self, mask: Array, keep: Array, response_length: int) -> Array:
        tokens, lengths = _kept_tokens(mask, keep)
        return _share(_share(tokens, lengths, 1.0), (lengths > 0).sum(), self.scale)


@dataclasses.dataclass(frozen=True)
class SequenceMeanTokenSum:
    """The mean over kept sequences of their token sums."""

    scale: float = 1.0

    def __call__(self, mask: Array, keep: Array, response_length: int) -> Array:
        tokens, lengths = _kept_tokens(mask, keep)
        return _share(tokens, (lengths > 0).sum(), self.scale)


@dataclasses.dataclass(frozen=True)
class SequenceSumNorm:
    """The sum over kept sequences of their token sums, divided by the maximum response length R."""

    scale: float = 1.0

    def __call__(self, mask: Array, keep: Array, response_length: int) -> Array:
        tokens, _ = _kept_tokens(mask, keep)
        return self.scale * tokens / response_length
