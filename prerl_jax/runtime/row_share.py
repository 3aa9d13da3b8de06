"""Which rows of a batch a process has: a function of the mesh.

The rows of a batch are split over the shards of the mesh (data x fsdp); the devices of a tensor group hold the same
shard. Processes that hold the same shards are a *row group*: they sample and feed the same rows. Where the tensor axis
lies within each process, every process is a group of its own. The first process of a group, its leader, verifies the
group's rows and tells the others. What counts rows takes them from one process of each group.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

BATCH_AXES = ("data", "fsdp")
"""The axes of a mesh that the rows of a batch are split over."""


@dataclasses.dataclass(frozen=True)
class RowShare:
    """Which of a batch's rows this process has: those of its row group, the group's part of equal parts in order.

    Attributes:
        process: the index of this process.
        groups: the processes of each row group, rising; the groups are in the order of their first processes.
    """

    process: int
    groups: tuple[tuple[int, ...], ...]

    @property
    def group(self) -> tuple[int, ...]:
        """The processes of this process's row group."""
        return next(group for group in self.groups if self.process in group)

    @property
    def index(self) -> int:
        """The number of this process's row group."""
        return self.groups.index(self.group)

    @property
    def count(self) -> int:
        """How many row groups there are, so into how many parts a batch is split."""
        return len(self.groups)

    @property
    def leaders(self) -> list[int]:
        """The first process of each row group."""
        return [group[0] for group in self.groups]

    @property
    def leads(self) -> bool:
        """Whether this process is the first of its row group."""
        return self.process == self.group[0]

    @property
    def shared(self) -> bool:
        """Whether there are processes that have the same rows."""
        return any(len(group) > 1 for group in self.groups)

    def part(self, rows: int) -> slice:
        """The rows of this process among the `rows` of a batch.

        Raises:
            ValueError: the row groups do not divide the rows evenly.
        """
        if rows % self.count:
            raise ValueError(
                f"a batch of {rows} prompts does not divide evenly over {self.count} row groups of processes; choose a "
                f"multiple of {self.count}."
            )
        each = rows // self.count
        return slice(self.index * each, (self.index + 1) * each)

    def once(self, of_processes: Sequence[Any] | np.ndarray) -> list[Any]:
        """One value for each row group, of the values of all processes in their order."""
        return [of_processes[leader] for leader in self.leaders]


ALONE = RowShare(0, ((0,),))
"""The share of a process that has all rows."""


def shard_holders(mesh: Mesh) -> list[set[int]]:
    """The processes that hold each shard of a batch on this mesh, in the order of the shards."""
    lines = mesh.devices.reshape(math.prod(mesh.shape[axis] for axis in BATCH_AXES), -1)
    return [{device.process_index for device in line} for line in lines]


def held_shards(mesh: Mesh, processes: Sequence[int]) -> list[int]:
    """The numbers of the shards of a batch that these processes hold on this mesh, rising."""
    return [number for number, holders in enumerate(shard_holders(mesh)) if holders & set(processes)]


@functools.cache
def row_share(*meshes: Mesh | None) -> RowShare:
    """Which rows this process has on these meshes.

    With several meshes of the same devices, processes that share rows on one of them share them on all: the row groups
    are the finest that hold for every mesh. Without a mesh this process has all rows.

    Raises:
        ValueError: rows cannot be split evenly by process on one of the meshes, see `uneven`.
    """
    process, known = jax.process_index(), [mesh for mesh in meshes if mesh is not None]
    group = {device.process_index: {device.process_index} for mesh in known for device in mesh.devices.flat}
    for mesh in known:
        reason = uneven(mesh)
        if reason:
            raise ValueError(f"the mesh {dict(mesh.shape)}: {reason}.")
        for holders in shard_holders(mesh):
            joined = set().union(*(group[holder] for holder in holders))
            group |= dict.fromkeys(joined, joined)
    groups = tuple(sorted({tuple(sorted(members)) for members in group.values()}))
    return RowShare(process, groups) if groups else RowShare(process, ((process,),))


def uneven(mesh: Mesh) -> str:
    """Why the rows of a batch cannot be split evenly by process on this mesh; "" where they can.

    Processes must hold the same shards or none in common, and all row groups equally many.
    """
    holders = shard_holders(mesh)
    held: dict[int, set[int]] = {}
    for number, processes in enumerate(holders):
        for process in processes:
            held.setdefault(process, set()).add(number)
    for process, mine in sorted(held.items()):
        for other in sorted(set().union(*(holders[number] for number in mine))):
            if held[other] != mine:
                return (
                    f"process {process} holds the batch shards {sorted(mine)} and process {other} {sorted(held[other])}"
                    ", so rows could not be split by process"
                )
    counts = np.unique([len(mine) for mine in held.values()])
    if len(counts) > 1:
        return f"some processes hold {counts[0]} batch shards and others {counts[-1]}"
    return ""
