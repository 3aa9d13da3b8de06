"""The device mesh, and batches that go onto it and come back.

The mesh axes are `data` (whole replicas), `fsdp` (parameters and rows) and `tensor` (heads, MLP width, vocabulary).
Rows of a batch are split over data x fsdp; the tensor axis stays within one process, so that every row belongs to
exactly one process, and sampling and verification split by process without exchanging anything.

A process's rows need not be contiguous in a global array (topology-aware meshes permute devices): `global_rows` and
`local_rows` are inverse to each other, and what must tell rows apart goes by ids in the batch, not by row numbers.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")


@dataclasses.dataclass(frozen=True)
class MeshSpec:
    """The sizes of the mesh axes; at most one of them is -1, which is what the others leave of the devices.

    Raises ValueError for a size that is neither -1 nor positive, and for two sizes of -1.
    """

    data: int = 1
    fsdp: int = -1
    tensor: int = 1

    def __post_init__(self):
        sizes = dataclasses.astuple(self)
        if any(type(n) is not int or (n != -1 and n < 1) for n in sizes):
            raise ValueError(f"{self}: every axis must be a positive integer, or -1 for what is left.")
        if sizes.count(-1) > 1:
            raise ValueError(f"{self}: at most one axis can be -1 (what is left).")


def _sizes(spec: MeshSpec, devices: int) -> tuple[int, int, int]:
    """The sizes of data, fsdp and tensor on this many devices; ValueError when they are not exactly used up."""
    sizes = dataclasses.astuple(spec)
    fixed = math.prod(n for n in sizes if n != -1)
    if fixed > devices:
        raise ValueError(f"{spec} needs {fixed} devices, there are {devices}. Choose smaller axes.")
    if devices % fixed:
        raise ValueError(f"{spec}: {fixed} does not divide the {devices} devices. Choose axes whose product does.")
    if -1 not in sizes and fixed != devices:
        raise ValueError(f"{spec} uses {fixed} of {devices} devices. Set one axis to -1 to use them all.")
    return tuple(devices // fixed if n == -1 else n for n in sizes)


def make_mesh(spec: MeshSpec, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of all devices (or of these), with axes ("data", "fsdp", "tensor") of type Auto.

    `jax.make_mesh` would make Explicit axes, under which a gather from a sharded embedding fails.

    Raises:
        ValueError: the sizes are larger than the devices, do not divide them or do not use all of them, or the tensor
            axis would span processes.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = _sizes(spec, len(devices))
    mesh = jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)
    for line in mesh.devices.reshape(-1, sizes[2]):
        processes = {device.process_index for device in line}
        if len(processes) > 1:
            raise ValueError(
                f"tensor={sizes[2]} spans the processes {sorted(processes)}: rows could not be split by process. "
                "Choose a tensor axis that divides the devices of one process."
            )
    return mesh


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of an array whose first axis is the batch: over data x fsdp."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def batch_shards(mesh: Mesh) -> int:
    """Into how many parts the batch is split: data x fsdp."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def _start(index: tuple[slice, ...]) -> int:
    """The first row of a shard."""
    return index[0].start or 0


def global_rows(mesh: Mesh, tree: Any) -> Any:
    """This process's rows -> global arrays whose rows are split over (data, fsdp).

    Args:
        mesh: the mesh of all processes.
        tree: arrays [b, ...], all with the same b, which must be the same on every process.

    Returns:
        The tree of jax arrays [B, ...], B the sum of b over the processes.

    Raises:
        ValueError: the leaves differ in rows, or the rows do not divide among this process's shards.
    """
    sharding, shards = batch_sharding(mesh), batch_shards(mesh)
    mine = sorted({_start(i) for i in sharding.addressable_devices_indices_map((shards,)).values()})
    rows = {np.shape(leaf)[0] if np.ndim(leaf) else 0 for leaf in jax.tree.leaves(tree)}
    if len(rows) > 1:
        raise ValueError(f"the arrays of one batch have different numbers of rows: {sorted(rows)}.")
    for n in rows:
        if n == 0 or n % len(mine):
            raise ValueError(
                f"{n} rows do not divide among the {len(mine)} batch shards of this process "
                f"(data={mesh.shape['data']} x fsdp={mesh.shape['fsdp']} = {shards} in all)."
            )

    def place(leaf: np.ndarray) -> jax.Array:
        each = len(leaf) // len(mine)
        parts = {start * each: leaf[k * each : (k + 1) * each] for k, start in enumerate(mine)}
        return jax.make_array_from_callback(
            (shards * each, *leaf.shape[1:]), sharding, lambda index: parts[_start(index)]
        )

    return jax.tree.map(lambda leaf: place(np.asarray(leaf)), tree)


def replicate(mesh: Mesh, value: Any) -> jax.Array:
    """A small array of the host, the same on every process, held whole by every device."""
    value = np.asarray(value)
    return jax.make_array_from_callback(value.shape, replicated(mesh), lambda index: value[index])


def local_rows(tree: Any) -> Any:
    """Global arrays [B, ...] split over rows -> this process's rows [b, ...] as numpy, in row order.

    A single process gets all rows, however they are split. Raises ValueError on several processes for an array that is
    not split over rows alone: give the program that makes it `out_shardings=batch_sharding(mesh)`.
    """
    return jax.tree.map(np.asarray if jax.process_count() == 1 else _own_rows, tree)


def _own_rows(leaf: jax.Array) -> np.ndarray:
    """The rows of one global array that lie on this process's devices."""
    if leaf.is_fully_replicated or leaf.sharding.shard_shape(leaf.shape)[1:] != leaf.shape[1:]:
        raise ValueError(f"an array {leaf.shape} with sharding {leaf.sharding} is not split over its rows alone.")
    parts = {_start(shard.index): shard.data for shard in leaf.addressable_shards}
    return np.concatenate([np.asarray(parts[start]) for start in sorted(parts)])


def max_over_processes(value: int) -> int:
    """The largest of all processes' values; every process must call it. ValueError outside of int32."""
    if not -(2**31) <= value < 2**31:
        raise ValueError(f"max_over_processes takes 32-bit integers, not {value}.")
    if jax.process_count() == 1:
        return int(value)
    return int(np.max(multihost_utils.process_allgather(np.int32(value))))


def gather_rows(rows: np.ndarray) -> np.ndarray:
    """Every process's rows [b, ...], one process below the other, on every process; every process must call it."""
    return rows if jax.process_count() == 1 else np.asarray(multihost_utils.process_allgather(rows, tiled=True))


def start_gather(mesh: Mesh, numbers: np.ndarray) -> Callable[[], np.ndarray]:
    """Every process's numbers f64[n] -> what gives [m, n], a row of each and rows of zeros, the same on every process.

    Every process must call it, in the same order as its other programs; none waits here. What it gives may be called
    on any thread, and waits until the device has done what it was given before. Double precision goes through the
    devices as pairs of words.
    """
    if jax.process_count() == 1:
        return lambda: numbers[None]
    words = np.zeros((batch_shards(mesh) // jax.process_count(), 2 * len(numbers)), np.uint32)
    words[0] = numbers.astype(np.float64).view(np.uint32)
    gathered = _gather_program(mesh)(global_rows(mesh, words))
    return lambda: np.asarray(gathered).view(np.float64)


@functools.cache
def _gather_program(mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
    def gather(rows: jax.Array) -> jax.Array:
        return rows

    return jax.jit(gather, out_shardings=replicated(mesh))
