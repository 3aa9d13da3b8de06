"""The device mesh, and the transfer of batches between host and mesh.

The mesh has three axes: `data` (whole replicas), `fsdp` (shards of parameters and of rows) and `tensor` (shards of
heads, MLP width and vocabulary). Over several slices, which a data-center network (DCN) connects, the outer part of
`data` counts the slices: each has the parameters whole, and only gradients and rows pass between them. The rows of a
batch are sharded over data x fsdp. `row_share` says which of them a process has. Where the tensor axis spans several
processes, these have the same rows.

The rows of a process need not be contiguous in a global array, since topology-aware meshes permute the devices.
`global_rows` and `local_rows` are inverses of each other. To tell rows apart, use ids in the batch, not row numbers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from prerl_jax.runtime.gather import gather_rows
from prerl_jax.runtime.row_share import BATCH_AXES, RowShare, held_shards, row_share, uneven

AXES = ("data", "fsdp", "tensor")


@dataclasses.dataclass(frozen=True)
class MeshSpec:
    """The sizes of the mesh axes. At most one of them may be -1, which means: all devices that the others leave.

    Attributes:
        data: how many replicas of the parameters there are in a slice; each has its own rows of a batch.
        fsdp: over how many devices the parameters of a replica, and its rows, are sharded.
        tensor: over how many devices heads, MLP width and vocabulary are sharded.
        replica: how many slices there are, each with `data` replicas. The mesh's `data` axis is replica x data, with
            the slices outermost.

    Raises:
        ValueError: a size is neither positive nor -1, or two sizes are -1.
    """

    data: int = 1
    fsdp: int = -1
    tensor: int = 1
    replica: int = 1

    def __post_init__(self) -> None:
        sizes = dataclasses.astuple(self)
        if any(type(n) is not int or (n != -1 and n < 1) for n in sizes):
            raise ValueError(f"{self}: every axis must be a positive integer, or -1 for all devices that are left.")
        if sizes.count(-1) > 1:
            raise ValueError(f"{self}: at most one axis can be -1 (all devices that are left).")


def _filled(spec: MeshSpec, devices: int) -> MeshSpec:
    """The spec with a size for -1; raises ValueError if the sizes do not use all devices."""
    sizes = dataclasses.astuple(spec)
    fixed = math.prod(n for n in sizes if n != -1)
    if fixed > devices:
        raise ValueError(f"{spec} needs {fixed} devices, there are {devices}. Choose smaller axes.")
    if devices % fixed:
        raise ValueError(f"{spec}: {fixed} does not divide the {devices} devices. Choose axes whose product does.")
    if -1 not in sizes and fixed != devices:
        raise ValueError(f"{spec} uses {fixed} of {devices} devices. Set one axis to -1 to use them all.")
    return MeshSpec(*(devices // fixed if n == -1 else n for n in sizes))


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
            all devices; `replica` is not the number of slices, if there are several; or rows cannot be split evenly by
            process, because a process has only a part of the devices of two tensor groups.
    """
    devices = jax.devices() if devices is None else list(devices)
    filled = _filled(spec, len(devices))
    mesh = _arranged(filled, devices)
    reason = uneven(mesh)
    if reason:
        raise ValueError(f"{spec}: {reason}. {_proposal(filled, devices)}")
    return mesh


def _arranged(spec: MeshSpec, devices: Sequence[jax.Device]) -> Mesh:
    """The mesh with these sizes: each slice in the order that suits its links, one slice after the other."""
    of_slice: dict[int, list[jax.Device]] = {}
    for device in devices:
        of_slice.setdefault(device.slice_index if hasattr(device, "slice_index") else 0, []).append(device)
    sizes, types = (spec.data, spec.fsdp, spec.tensor), (AxisType.Auto,) * len(AXES)
    if len(of_slice) == 1:
        return Mesh(_neighbours((spec.replica * sizes[0], *sizes[1:]), devices), AXES, axis_types=types)
    if len(of_slice) != spec.replica:
        raise ValueError(
            f"{spec}: the {len(devices)} devices form {len(of_slice)} slices, and replica={spec.replica}. Set replica "
            f"to {len(of_slice)}, and the other axes to the {len(devices) // len(of_slice)} devices of one slice."
        )
    slices = [_neighbours(sizes, of_slice[number]) for number in sorted(of_slice)]
    return Mesh(np.concatenate(slices), AXES, axis_types=types)


def _neighbours(sizes: tuple[int, ...], devices: Sequence[jax.Device]) -> np.ndarray:
    """The devices as an array of these sizes, in the order that suits their links, process after process.

    They are ordered as one line, whatever the sizes: JAX finds no order for some sizes on some slices.
    """
    line = jax.make_mesh((len(devices),), ("line",), axis_types=(AxisType.Auto,), devices=devices).devices
    by_process = sorted(line.flat, key=lambda device: device.process_index)
    return np.array(by_process, dtype=object).reshape(sizes)


def _proposal(spec: MeshSpec, devices: Sequence[jax.Device]) -> str:
    """The mesh with the nearest tensor axis whose rows can be split by process, as advice."""
    each = len(devices) // spec.replica
    for tensor in sorted((n for n in range(1, each + 1) if each % n == 0), key=lambda n: (abs(n - spec.tensor), n)):
        data = math.gcd(spec.data, each // tensor)
        nearest = MeshSpec(data, each // tensor // data, tensor, spec.replica)
        if not uneven(_arranged(nearest, devices)):
            return f"{nearest} works."
    raise AssertionError("tensor=1 works on all devices")


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


def global_rows(mesh: Mesh, tree: Any, share: RowShare | None = None) -> Any:
    """Puts the rows of every row group onto the mesh, as global arrays sharded over (data, fsdp).

    Args:
        mesh: the mesh of all processes.
        tree: a pytree of arrays [b, ...], the rows of this process's group; the same on all processes of a group. All
            leaves have the same b, and so have all groups.
        share: the row groups; by default those of the mesh. With larger ones, each process places its part of the rows.

    Returns:
        The pytree of jax arrays [B, ...]; B is the sum of b over the groups.

    Raises:
        ValueError: the leaves differ in their number of rows, or the rows do not divide evenly over the group's batch
            shards.
    """
    sharding, shards, share = batch_sharding(mesh), batch_shards(mesh), share or row_share(mesh)
    mine = held_shards(mesh, share.group)
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


def local_rows(tree: Any, share: RowShare | None = None) -> Any:
    """Fetches the rows of this process's group from global arrays, as numpy arrays, in row order.

    Args:
        tree: a pytree of global arrays [B, ...]. With several processes they must be sharded over their rows alone:
            compile the program that makes them with `out_shardings=batch_sharding(mesh)`. With a single process any
            sharding works.
        share: the row groups; by default those of the arrays' mesh. Every process fetches the rows of larger ones from
            the others: then every process must call this.

    Returns:
        The pytree of numpy arrays [b, ...]: the rows of this process's group, or all rows if there is only one process.

    Raises:
        ValueError: there are several processes, and an array is not sharded over its rows alone.
    """
    if jax.process_count() == 1:
        return jax.tree.map(np.asarray, tree)
    return jax.tree.map(lambda leaf: _rows_of_group(leaf, share), tree)


def _rows_of_group(leaf: jax.Array, share: RowShare | None) -> np.ndarray:
    """The rows of a global array that this process's row group has."""
    mesh = leaf.sharding.mesh if isinstance(leaf.sharding, NamedSharding) else None
    if not isinstance(mesh, Mesh) or not leaf.sharding.is_equivalent_to(batch_sharding(mesh), leaf.ndim):
        raise ValueError(
            f"an array {leaf.shape} with sharding {leaf.sharding} is not sharded over its rows alone. Compile the "
            "program that makes it with out_shardings=batch_sharding(mesh)."
        )
    parts = {_start(shard.index): shard.data for shard in leaf.addressable_shards}
    own = row_share(mesh)
    held = np.concatenate([np.asarray(parts[start]) for start in sorted(parts)])
    if share is None or share.group == own.group:
        return held
    order = [shard for group in own.groups for shard in held_shards(mesh, group)]
    by_shard = gather_rows(held, own).reshape(len(order), -1, *leaf.shape[1:])
    return np.concatenate([by_shard[order.index(shard)] for shard in held_shards(mesh, share.group)])
