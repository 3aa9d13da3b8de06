"""Numbers of the slots of all shards, which decide whether decoding goes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp

from prerl_jax.core.types import Array
from prerl_jax.rollout.decode import Slots


@dataclasses.dataclass(frozen=True)
class SlotNumbers:
    """Numbers of the slots of all shards, i32[] each.

    Attributes:
      active: slots with a row that is not complete.
      most: active slots of the shard with the most.
      longest: tokens of the longest active row.
      waiting: rows without a slot.
      refillable: free slots that could take a waiting row of their shard.
    """

    active: Array
    most: Array
    longest: Array
    waiting: Array
    refillable: Array


def count_slots(slots: Slots, waiting: Array, replicated: Callable[[Array], Array]) -> SlotNumbers:
    """The numbers of the slots. On a mesh this is one collective, whatever is read of them.

    Args:
      slots: S slots of D shards.
      waiting: i32[D], rows of each shard that have no slot yet.
      replicated: pins an array so that every device holds it whole.
    """
    active = (~slots.done).reshape(len(waiting), -1)
    length = jnp.where(active, slots.count.reshape(len(waiting), -1), 0).max(axis=1)
    refillable = jnp.minimum((~active).sum(axis=1), waiting)
    of_shards = jnp.stack([active.sum(axis=1), length, waiting, refillable], axis=1).astype(jnp.int32)
    of_shards = replicated(of_shards)
    (total, _, left, free), (most, longest, _, _) = of_shards.sum(axis=0), of_shards.max(axis=0)
    return SlotNumbers(total, most, longest, left, free)
