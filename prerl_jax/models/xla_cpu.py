"""Code of the decoder that has its form only because of XLA on CPUs (jax 0.10). It changes numbers only by rounding.

Here: whether layers are unrolled, and rotations that are computed once. Three other places have the form that XLA:CPU
computes fastest, which costs the other platforms nothing:

  `layers.project`       is one product of two matrices, tokens by features.
  `attention`            has heads before tokens in its products, so that no scores are written transposed.
  `cache.whole_lines`    rounds a ring's length up to whole cache lines.

The tricks of the loss and of its gradients are in `core/xla_cpu.py`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from prerl_jax.models.rope import angles_of

UNROLLED_LAYERS = 8
"""Models of at most this many layers are unrolled in training.

A scan zeroes, fills and reads back stacked copies of what the backward pass needs. On a CPU this took 9 % of a step
with 4 layers of width 128, and 5 % with SmolLM2's 30 layers, which compile in 5 s scanned and in 14 s unrolled.
"""


def on_cpu(mesh: Mesh | None) -> bool:
    """Whether the mesh, or JAX's first device where there is none, consists of CPUs."""
    return (jax.devices() if mesh is None else mesh.devices.flat)[0].platform == "cpu"


def unrolls(num_layers: int) -> bool:
    """Whether a model of `num_layers` layers is unrolled in training on a CPU.

    With several processes it always is. XLA's CPU runtime (jax 0.10) runs the collectives of a loop beside those
    outside of it, gloo confuses them, and the process aborts ("collective mismatch").
    """
    return num_layers <= UNROLLED_LAYERS or jax.process_count() > 1


def rotations_once(positions: jax.Array, freqs: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """`rope.rotations`, as arrays that XLA:CPU computes once: by a loop of two steps, first cos and then sin.

    Without the loop, XLA:CPU fuses them into the rotations, and computes both again for every element of every head of
    every unrolled layer. An optimization barrier does not help: XLA:CPU (jax 0.10) drops it before it fuses.
    """
    angles = angles_of(positions, freqs)
    both = jax.lax.map(lambda first: jax.lax.cond(first, jnp.cos, jnp.sin, angles), jnp.array([True, False]))
    return both[0], both[1]
