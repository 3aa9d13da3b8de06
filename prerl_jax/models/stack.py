"""Applies a stack of layers, one after the other: in a loop, or written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Body = Callable[[jax.Array, Any], tuple[jax.Array, Any]]
"""(states, the weights of a layer) -> (states after the layer, what it hands out)."""


def apply_layers(body: Body, x: jax.Array, layers: Any, *, unroll: bool) -> tuple[jax.Array, Any]:
    """`jax.lax.scan(body, x, layers)`; written out layer by layer if `unroll`.

    Args:
      body: see `Body`.
      x: the states before the first layer.
      layers: the weights, a pytree of arrays [L, ...].
      unroll: whether the program has each layer by itself.

    Returns: (the states after the last layer, what all layers handed out, stacked [L, ...]).
    """
    if not unroll:
        return jax.lax.scan(body, x, layers)
    # Split rather than indexed: the gradient is then one concatenation.
    apart = jax.tree.map(lambda w: list(jax.lax.split(w, [1] * w.shape[0])), layers)
    count = jax.tree.leaves(layers)[0].shape[0]
    one_by_one = jax.tree.transpose(jax.tree.structure(layers), jax.tree.structure([0] * count), apart)
    carries = []
    for weights in one_by_one:
        x, carry = body(x, jax.tree.map(lambda w: w[0], weights))
        carries.append(carry)
    return x, jax.tree.map(lambda *parts: jnp.stack(parts), *carries)
