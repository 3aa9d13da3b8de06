"""Numbers that pass between processes: gathered from all of them, by the devices."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from prerl_jax.runtime.row_share import RowShare


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


def gather_rows(rows: np.ndarray, share: RowShare) -> np.ndarray:
    """Gathers the rows of all row groups on every process. Every process must call it.

    Args:
        rows: the rows [b, ...] of this process's group, a numpy array; b is the same on every process.
        share: the row groups.

    Returns:
        The rows [B, ...] of all groups, once each, in the order of the groups.
    """
    return rows if share.count == 1 else np.concatenate(share.once(gather_processes(rows)))


def gather_processes(value: np.ndarray) -> np.ndarray:
    """Gathers an array of every process, of the same shape on each: [processes, ...]. Every process must call it."""
    if jax.process_count() == 1:
        return value[None]
    return np.asarray(multihost_utils.process_allgather(value[None], tiled=True))


def start_gather(numbers: np.ndarray) -> Callable[[], np.ndarray]:
    """Starts to gather numbers from all processes, without waiting.

    Every process must call it, in the same order as its other programs. The numbers keep double precision: they pass
    through the devices as pairs of 32-bit words.

    Args:
        numbers: f64[n], this process's numbers.

    Returns:
        A function of no arguments that waits for the gathered numbers and returns them: f64[processes, n]. All
        processes get the same array. Any thread may call the function. It blocks until the devices have finished their
        earlier work.
    """
    if jax.process_count() == 1:
        return lambda: numbers[None]
    words = numbers.astype(np.float64).view(np.uint32)
    mesh = _mesh_of_processes()
    split = NamedSharding(mesh, PartitionSpec("processes"))
    placed = jax.make_array_from_callback((jax.process_count(), len(words)), split, lambda index: words[None])
    gathered = _gather_program(mesh)(placed)
    return lambda: np.asarray(gathered).view(np.float64)


@functools.cache
def _mesh_of_processes() -> Mesh:
    """All devices by process: ("processes", "devices")."""
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(devices).reshape(jax.process_count(), -1), ("processes", "devices"))


@functools.cache
def _gather_program(mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
    def gather(rows: jax.Array) -> jax.Array:
        return rows

    return jax.jit(gather, out_shardings=NamedSharding(mesh, PartitionSpec()))
