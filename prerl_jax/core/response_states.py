"""The hidden states that predict each token of a response, in any space, and functions of them in chunks of tokens.

Spaces lay a response out differently; here its R tokens stand at the same places whatever the space, so that what two
spaces say of one token can be compared. A function of states [B, c, D] that makes logits is run on c tokens of every
row at once, so the largest buffer is a few times [B, c, V].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from prerl_jax.core.types import Array, Model, Params, Rollouts, Space


def response_states(model: Model, params: Params, space: Space, rollouts: Rollouts) -> tuple[Array, Array]:
    """One forward pass in a space.

    Returns: (states [B, R, D], state t being what token t of the response is predicted from; mask bool[B, R] of the
      tokens that the space scores). A first token with nothing before it has a state of zeros, and is not in the mask.
    """
    sequences = space(rollouts)
    hidden = model.hidden(params, sequences.tokens, sequences.positions, sequences.segments)
    length = rollouts.response.shape[1]
    before = hidden.shape[1] - length  # the response is the row's last R tokens
    return jnp.pad(hidden, [(0, 0), (1, 0), (0, 0)])[:, before : before + length], sequences.mask[:, before:]


def by_chunks(function: Callable[..., Any], chunk: int, *arrays: Array) -> Any:
    """function(*arrays), done on `chunk` tokens of every row at a time.

    Args:
      function: arrays [B, c, ...] -> a tree of arrays [B, c, ...], each token on its own; any c.
      chunk: c; the last chunk is filled up with zeros.
      arrays: [B, R, ...].

    Returns: the tree, [B, R, ...].
    """
    rows, length = arrays[0].shape[:2]
    chunk = min(chunk, length)
    count = -(-length // chunk)
    if count == 1:
        return function(*arrays)

    def split(x):
        x = jnp.pad(x, [(0, 0), (0, count * chunk - length)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(rows, count, chunk, *x.shape[2:]), 1, 0)

    def join(x):
        return jnp.moveaxis(x, 0, 1).reshape(rows, count * chunk, *x.shape[3:])[:, :length]

    _, pieces = jax.lax.scan(lambda _, x: (None, function(*x)), None, tuple(split(x) for x in arrays))
    return jax.tree.map(join, pieces)
