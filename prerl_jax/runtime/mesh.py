"""The device mesh, and the transfer of batches between host and mesh.

The mesh has three axes: `data` (whole replicas), `fsdp` (shards of parameters and of rows) and `tensor` (shards of
heads, MLP width and vocabulary). The rows of a batch are sharded over data x fsdp. The tensor axis must lie within one
process. Every row then belongs to exactly one process, and the processes sample and verify without communication.

The rows of a process need not be contiguous in a global array, since topology-aware meshes permute the devices.
`global_rows` and `local_rows` are inverses of each other. To tell rows apart, use ids in the batch, not row numbers.
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
    """The sizes of the mesh axes. At most one of them may be -1, which means: all devices that the others leave.

    Attributes:
        data: how many replicas of the parameters there are; each has its own rows of a batch.
        fsdp: over how many devices the parameters of a replica, and its rows, are sharded.
        tensor: over how many devices heads, MLP width and vocabulary are sharded.

    Raises:
        ValueError: a size is neither positive nor -1, or two sizes are -1.
    """

    data: int = 1
    fsdp: int = -1
    tensor: int = 1

    def __post_init__(self) -> None:
        sizes = dataclasses.astuple(self)
        if any(type(n) is not int or (n != -1 and n < 1) for n in sizes):
            raise ValueError(f"{self}: every axis must be a positive integer, or -1 for all devices that are left.")
        if sizes.count(-1) > 1:
            raise ValueError(f"{self}: at most one axis can be -1 (all devices that are left).")


def _sizes(spec: MeshSpec, devices: int) -> tuple[int, int, int]:
    """The sizes of data, fsdp and tensor; raises ValueError if they do not use all devices."""
    sizes = dataclasses.astuple(spec)
    fixed = math.prod(n for n in sizes if n != -1)
    if fixed > devices:
        raise ValueError(f"{spec} needs {fixed} devices, there are {devices}. Choose smaller axes.")
    if devices % fixed:
        raise ValueError(f"{spec}: {fixed} does not divide the {devices} devices. Choose axes whose product does.")
    if -1 not in sizes and fixed != devices:
        raise ValueError(f"{spec} uses {fixed} of {devices} devices. Set one axis to -1 to use them all.")
    data, fsdp, tensor = (devices // fixed if n == -1 else n for n in sizes)
    return data, fsdp, tensor


def make_mesh(spec: MeshSpec, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Makes a mesh with the axes ("data", "fsdp", "tensor"), all of type Auto. The devices of a process are adjacent.

    The default of `jax.make_mesh` is axes of type Explicit, with which a gather from a sharded embedding fails.

    Args:
        spec: the sizes of the axes.
        devices: the devices of the mesh; by default all devices of all processes.

    Returns:
        The mesh.

    Raises:
        ValueError: the product of the sizes is larger than the number of devices, does not divide it or does not use
            all devices, or the tensor axis spans several processes.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = _sizes(spec, len(devices))
    types = (AxisType.Auto,) * len(AXES)
    near = jax.make_mesh(sizes, AXES, axis_types=types, devices=devices).devices  # neighbours on a TPU's network
    by_process = sorted(near.flat, key=lambda device: device.process_index)
    mesh = Mesh(np.array(by_process, dtype=object).reshape(sizes), AXES, axis_types=types)
    for line in mesh.devices.reshape(-1, sizes[2]):
        processes = {device.process_index for device in line}
        if len(processes) > 1:
            raise ValueError(
                f"tensor={sizes[2]} spans the processes {sorted(processes)}: rows could not be split by process. "
                "Choose a tensor axis that divides the devices of one process."
            )
    return mesh


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of an array that every device of the mesh holds as a whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of an array [B, ...] whose rows are split over data x fsdp."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def batch_shards(mesh: Mesh) -> int:
    """How many shards the rows of a batch are split into: data x fsdp."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def _start(index: tuple[slice, ...] | None) -> int:
    """The first row of the shard with this index."""
    return (index[0].start if index else None) or 0


def global_rows(mesh: Mesh, tree: Any) -> Any:
    """Puts every process's rows onto the mesh, as global arrays sharded over (data, fsdp).

    Args:
        mesh: the mesh of all processes.
        tree: a pytree of this process's arrays [b, ...]. All leaves have the same b, and so have all processes.

    Returns:
        The pytree of jax arrays [B, ...]; B is the sum of b over the processes.

    Raises:
        ValueError: the leaves differ in their number of rows, or the rows do not divide evenly over this process's
            batch shards.
    """
    sharding, shards = batch_sharding(mesh), batch_shards(mesh)
    mine = sorted({_start(i) for i in sharding.addressable_devices_indices_map((shards,)).values()})
    rows = {np.shape(leaf)[0] if np.ndim(leaf) else 0 for leaf in jax.tree.leaves(tree)}
    if len(rows) > 1:
        raise ValueError(f"the arrays of one batch have different numbers of rows: {sorted(rows)}.")
    for n in rows:
        if n == 0 or n % len(mine):
            raise ValueError(
                f"{n} rows do not divide evenly over the {len(mine)} batch shards of this process "
                f"(data={mesh.shape['data']} x fsdp={mesh.shape['fsdp']} = {shards} in all). Change the number of rows "
                "or the mesh."
            )

    def place(leaf: np.ndarray) -> jax.Array:
        each = len(leaf) // len(mine)
        parts = {start * each: leaf[k * each : (k + 1) * each] for k, start in enumerate(mine)}
        return jax.make_array_from_callback(
            (shards * each, *leaf.shape[1:]), sharding, lambda index: parts[_start(index)]
        )

    return jax.tree.map(lambda leaf: place(np.asarray(leaf)), tree)


def replicate(mesh: Mesh, value: Any) -> jax.Array:
    """Puts a small host array onto every device of the mesh as a whole.

    Args:
        mesh: the mesh of all processes.
        value: a scalar or an array, the same on every process.

    Returns:
        A jax array of the same shape and dtype.
    """
    value = np.asarray(value)
    return jax.make_array_from_callback(value.shape, replicated(mesh), lambda index: value[index])


def local_rows(tree: Any) -> Any:
    """Fetches this process's rows of global arrays as numpy arrays, in row order.

    Args:
        tree: a pytree of global arrays [B, ...]. With several processes they must be sharded over their rows alone:
            compile the program that makes them with `out_shardings=batch_sharding(mesh)`. With a single process any
            sharding works.

    Returns:
        The pytree of numpy arrays [b, ...]: the rows that lie on this process's devices, or all rows if there is only
        one process.

    Raises:
        ValueError: there are several processes, and an array is not sharded over its rows alone.
    """
    return jax.tree.map(np.asarray if jax.process_count() == 1 else _own_rows, tree)


def _own_rows(leaf: jax.Array) -> np.ndarray:
    """The rows of a global array that lie on this process's devices."""
    if leaf.is_fully_replicated or leaf.sharding.shard_shape(leaf.shape)[1:] != leaf.shape[1:]:
        raise ValueError(
            f"an array {leaf.shape} with sharding {leaf.sharding} is not sharded over its rows alone. Compile the "
            "program that makes it with out_shardings=batch_sharding(mesh)."
        )
    parts = {_start(shard.index): shard.data for shard in leaf.addressable_shards}
    return np.concatenate([np.asarray(parts[start]) for start in sorted(parts)])


def max_over_processes(value: int) -> int:
    """The largest value among all processes. Every process must call it.

    Args:
        value: this process's value, within int32.

    Raises:
        ValueError: the value does not fit into int32.
    """
    if not -(2**31) <= value < 2**31:
        raise ValueError(f"max_over_processes takes 32-bit integers, not {value}.")
    if jax.process_count() == 1:
        return int(value)
    return int(np.max(multihost_utils.process_allgather(np.int32(value))))


def gather_rows(rows: np.ndarray) -> np.ndarray:
    """Gathers the rows of all processes on every process. Every process must call it.

    Args:
        rows: this process's rows [b, ...], a numpy array; b is the same on every process.

    Returns:
        The rows [B, ...] of all processes, in the order of the processes.
    """
    return rows if jax.process_count() == 1 else np.asarray(multihost_utils.process_allgather(rows, tiled=True))


def start_gather(mesh: Mesh, numbers: np.ndarray) -> Callable[[], np.ndarray]:
    """Starts to gather numbers from all processes, without waiting.

    Every process must call it, in the same order as its other programs. The numbers keep double precision: they pass
    through the devices as pairs of 32-bit words.

    Args:
        mesh: the mesh of all processes.
        numbers: f64[n], this process's numbers.

    Returns:
        A function of no arguments that waits for the gathered numbers and returns them: f64[m, n], one row for each
        process and otherwise rows of zeros, so that sums over rows are right. All processes get the same array. Any
        thread may call the function. It blocks until the devices have finished their earlier work.
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
