"""The plan of continuous batching: how many slots decode at once, with which rings, and how decoding ends."""

from __future__ import annotations

import dataclasses

from jax.sharding import Mesh

from prerl_jax.models.cache import whole_lines

SHORTEST_RING = 512
"""Columns of the shortest ring by default."""
SHORTEST_SHRINK = 128
"""By default, slots shrink if `max_new_tokens` is at least this. Below, compiling takes longer than shrinking saves."""
FEWEST_SLOTS = 8
"""By default, slots do not shrink below this number, and no tail is smaller: a step reads all weights anyway."""


@dataclasses.dataclass(frozen=True)
class BatchingPlan:
    """The numbers that the programs are compiled for, in addition to the shape of the prompts.

    Attributes:
      group_size: rows for each prompt.
      slots: S, rows decoded at once, over all processes.
      mesh: the devices as decoding has them, see `rollout.layout`; None for the default device.
      shards: D, shards of the batch on this mesh: the replicas of the weights.
      shared: whether every row has a slot of its own. Then a group shares its prompt's part of the cache.
      chunk: the most tokens that are decoded before the host reads the results; a tail is decoded in one chunk.
      rings: lengths of the responses' cache, rising. The next one is taken when a row needs it.
      shrink: numbers of slots, falling. Decoding continues in the next one when no row waits and the active slots fit.
      tail: when no row waits and at most this many slots are active, these are decoded to their ends in one chunk. 0
        for never. It requires a single ring.
      refill: a chunk ends early when one slot in `refill` is free and could take a waiting row.
    """

    group_size: int
    slots: int
    mesh: Mesh | None
    shards: int
    shared: bool
    chunk: int
    rings: tuple[int, ...]
    shrink: tuple[int, ...]
    tail: int = 0
    refill: int = 8


def default_rings(needed: int, reads_filled: bool) -> tuple[int, ...]:
    """Lengths of the responses' cache for `needed` columns: whole cache lines, and thirds down to SHORTEST_RING.

    Where attention reads only the filled columns, there is one ring. Elsewhere it reads the whole ring: for full rows,
    rings in thirds make it read 1.5 times the columns that it needs, rings in quarters 1.6 times.
    """
    rings = [whole_lines(needed)]
    while not reads_filled and -(-rings[0] // 3) >= SHORTEST_RING:
        rings.insert(0, whole_lines(-(-rings[0] // 3)))
    return tuple(rings)


def default_ending(
    slots: int, shards: int, max_new_tokens: int, rings: tuple[int, ...], reads_filled: bool
) -> tuple[tuple[int, ...], int]:
    """(shrink, tail) of a plan, by the length of responses: see `ContinuousBatching`.

    Where attention reads only the filled columns, complete rows cost next to nothing, and the slots stay.
    """
    if reads_filled:
        return (), 0

    def shares(*divisors: int) -> tuple[int, ...]:
        found = (slots // divisor // shards * shards for divisor in divisors)
        return tuple(n for n in found if n >= FEWEST_SLOTS)

    if max_new_tokens >= SHORTEST_SHRINK:
        return shares(2, 4, 8, 16) if len(rings) == 1 else shares(4, 16), 0
    return (), max(shares(8), default=0) if len(rings) == 1 else 0
