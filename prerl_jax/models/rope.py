"""Rotary position embedding, in the half-split layout of Hugging Face checkpoints, with the scalings we support."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Llama3Rope:
    """Llama 3's scaling: long wavelengths are stretched by `factor`, short ones kept, those between interpolated."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclasses.dataclass(frozen=True)
class LinearRope:
    """Position interpolation: every frequency is divided by `factor`."""

    factor: float


def frequencies(head_dim: int, theta: float, scaling: Llama3Rope | LinearRope | None) -> np.ndarray:
    """f32[head_dim / 2], radians a position."""
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


def rotations(positions: jax.Array, freqs: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """(cos, sin) f32[..., head_dim / 2] of positions i32[...]."""
    angles = positions[..., None].astype(jnp.float32) * freqs
    return jnp.cos(angles), jnp.sin(angles)


def rotations_once(positions: jax.Array, freqs: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """What `rotations` returns, as arrays that XLA:CPU computes once: from a loop of two steps, cos and then sin.

    It fuses them into what they turn otherwise, and takes both anew for every element of every head of every layer
    that is written out. An optimization barrier does not help: XLA:CPU (jax 0.10) drops it before it fuses.
    """
    angles = positions[..., None].astype(jnp.float32) * freqs
    both = jax.lax.map(lambda first: jax.lax.cond(first, jnp.cos, jnp.sin, angles), jnp.array([True, False]))
    return both[0], both[1]


def rotate(x: jax.Array, rotation: tuple[jax.Array, jax.Array]) -> jax.Array:
    """`x` [..., heads, head_dim] turned by its position's angles (cos, sin) [..., head_dim / 2]."""
    cos, sin = (r[..., None, :].astype(x.dtype) for r in rotation)
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
