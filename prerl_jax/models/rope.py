"""Rotary position embedding (Su et al., arXiv 2104.09864), in the half-split layout of Hugging Face checkpoints."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Llama3Rope:
    """Llama 3's scaling: long wavelengths are stretched, short ones are kept, those between are interpolated.

    Attributes:
      factor: stretches wavelengths above original_max_position_embeddings / low_freq_factor.
      low_freq_factor: see `factor`.
      high_freq_factor: wavelengths below original_max_position_embeddings / high_freq_factor are kept.
      original_max_position_embeddings: the context length before the scaling, in tokens.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclasses.dataclass(frozen=True)
class LinearRope:
    """Position interpolation (Chen et al., arXiv 2306.15595): every frequency is divided by a factor.

    Attributes:
      factor: the divisor, above 0.
    """

    factor: float


def frequencies(head_dim: int, theta: float, scaling: Llama3Rope | LinearRope | None) -> np.ndarray:
    """f32[head_dim / 2], in radians per position. Raises ValueError for an unknown scaling."""
    base = (1.0 / theta ** (np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim))).astype(np.float32)
    match scaling:
        case None:
            return base
        case LinearRope(factor):
            return (base / np.float32(factor)).astype(np.float32)
        case Llama3Rope(factor, low, high, original):
            wavelength = 2 * math.pi / base
            smooth = (original / wavelength - low) / (high - low)
            between = (1 - smooth) * base / factor + smooth * base
            long, short = wavelength > original / low, wavelength < original / high
            return np.where(long, base / factor, np.where(short, base, between)).astype(np.float32)
    raise ValueError(f"Unknown rope scaling {scaling!r}; use Llama3Rope, LinearRope or None.")


def angles_of(positions: jax.Array, freqs: np.ndarray) -> jax.Array:
    """f32[..., head_dim / 2], in radians, of positions i32[...]."""
    return positions[..., None].astype(jnp.float32) * freqs


def rotations(positions: jax.Array, freqs: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """(cos, sin) f32[..., head_dim / 2] of positions i32[...]."""
    angles = angles_of(positions, freqs)
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: jax.Array, rotation: tuple[jax.Array, jax.Array]) -> jax.Array:
    """`x` [..., heads, head_dim] rotated by the angles of its positions, given as (cos, sin) [..., head_dim / 2]."""
    cos, sin = (r[..., None, :].astype(x.dtype) for r in rotation)
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
