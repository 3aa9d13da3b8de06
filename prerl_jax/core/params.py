"""Parameters in two parts: those that are trained, and those that are frozen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from prerl_jax.core.types import Params


def split_params(params: Params, is_trainable: Callable[[str], bool]) -> tuple[Params, Params | None]:
    """Splits a parameter tree into (trainable, frozen).

    Args:
      params: a nested dict of arrays.
      is_trainable: whether a leaf is trained, given its dotted path, such as "layers.attention.q". Layers are stacked,
        so a leaf holds all of them.

    Returns:
      two nested dicts with the paths of `params`, for `init_state(trainable, tx, rng, frozen)`. The second is None
      where every leaf is trainable.

    Raises ValueError where no leaf is trainable.
    """
    trainable: Params = {}
    frozen: Params = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        keys = [entry.key for entry in path]
        part = trainable if is_trainable(".".join(keys)) else frozen
        for key in keys[:-1]:
            part = part.setdefault(key, {})
        part[keys[-1]] = leaf
    if not trainable:
        raise ValueError("is_trainable is False for every parameter. Leave at least one leaf to train.")
    return trainable, frozen or None


def merge_params(trainable: Params, frozen: Params | None) -> Params:
    """The whole parameter tree of its two parts: the inverse of `split_params`. Traceable.

    Args:
      trainable: a nested dict of arrays, `TrainState.params`.
      frozen: a nested dict of the other arrays, `TrainState.frozen`; None for no others.

    Returns:
      the whole nested dict; `trainable` itself where nothing is frozen.

    Raises ValueError where both parts have the same leaf.
    """
    return trainable if frozen is None else _merged(trainable, frozen, "")


def _merged(a: Any, b: Any, path: str) -> Params:
    if not (isinstance(a, dict) and isinstance(b, dict)):
        raise ValueError(f"The parameter {path!r} is both trainable and frozen. Give every leaf to one part only.")
    both = {key: _merged(a[key], b[key], f"{path}.{key}".lstrip(".")) for key in a.keys() & b.keys()}
    return a | b | both
