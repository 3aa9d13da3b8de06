"""Rewards by group, and their means and deviations over the responses whose verdict is known.

A value whose verdict is unknown is not read, so it may be NaN. Where all verdicts are known, the results are those of
the plain mean and deviation, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from prerl_jax.core.types import Array, Rollouts


def response_rewards(rollouts: Rollouts) -> Array:
    """The reward of each response, f32[B]; rewards by token are summed."""
    rewards = jnp.asarray(rollouts.rewards, jnp.float32)
    return rewards if rewards.ndim == 1 else rewards.sum(axis=1)


def groups(values: Array, group_size: int) -> Array:
    """[B] -> [B / G, G]; ValueError for groups of one, and if the group size does not divide B."""
    if group_size < 2:
        raise ValueError(
            f"A group-relative advantage compares the responses to one prompt; with group_size = {group_size} it is "
            "always 0. Sample at least 2 responses a prompt (group_size >= 2)."
        )
    return by_group(values, group_size)


def by_group(values: Array, group_size: int) -> Array:
    """[B] -> [B / G, G]; ValueError if the group size does not divide B."""
    if values.shape[0] % group_size:
        raise ValueError(f"{values.shape[0]} rewards do not divide into groups of {group_size}.")
    return values.reshape(-1, group_size)


def equal_groups(rollouts: Rollouts, group_size: int) -> Array:
    """bool[B], True in groups whose known rewards are all equal, and in groups with fewer than two of them."""
    rewards, known = by_group(response_rewards(rollouts), group_size), by_group(rollouts.known_mask, group_size)
    equal = ((rewards == _first_known(rewards, known)) | ~known).all(axis=1)
    return jnp.repeat(equal, group_size)


def over_known(statistic: Callable[[Array | None], Array], known: Array) -> Array:
    """A statistic over the last axis, of known values alone.

    Args:
      statistic: takes `known`, or None for all values. XLA computes a mean over a mask in another order of operations
        than one over all values, so where all are known the latter is taken.
      known: bool[..., N].
    """
    of_all, of_known = statistic(None), statistic(known)
    return jnp.where(known.all(axis=-1, keepdims=of_all.ndim == known.ndim), of_all, of_known)


def centred(values: Array, known: Array) -> Array:
    """f32[N, G] minus the mean of each row's known values, bool[N, G]; 0 where a value is not known.

    Differences that are rounding alone become exactly 0. A row's first known value is subtracted before the mean is
    taken, so equal values leave no rounding at any length.
    """
    shifted = values - _first_known(values, known)
    difference = shifted - over_known(lambda where: shifted.mean(axis=1, keepdims=True, where=where), known)
    size = jnp.abs(values).max(axis=1, keepdims=True, where=known, initial=0.0)
    rounding = 8 * jnp.finfo(values.dtype).eps * size
    return jnp.where(known & ~(jnp.abs(difference) <= rounding), difference, 0.0)


def deviation(values: Array, known: Array) -> Array:
    """f32[..., 1], the sample standard deviation (ddof=1) of the known values of the last axis, bool[..., N], + 1e-6.

    It is 1 for fewer than two known values.
    """
    found = over_known(lambda where: jnp.std(values, axis=-1, ddof=1, keepdims=True, where=where), known)
    return jnp.where(known.sum(axis=-1, keepdims=True) > 1, found + 1e-6, 1.0)


def _first_known(values: Array, known: Array) -> Array:
    """[N, 1], the first known value of each row [N, G], bool[N, G]; the row's first value if none is known."""
    return jnp.take_along_axis(values, jnp.argmax(known, axis=1, keepdims=True), axis=1)
