"""The files of one checkpoint: its items, and the record that describes them.

A checkpoint is a folder named by its step, written by Orbax. Its items are `params`, `critic` and `frozen` (if there
are any) and `state` (the rest of the TrainState) as arrays, and `record` as JSON: the shape, dtype and checksum of
every leaf, the metrics, whether a phase ended at this step, and what the trainer adds. The checksums find flipped bits,
which the storage format does not detect.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from prerl_jax.core.types import TrainState
from prerl_jax.runtime.state import on_device

OPTIONAL = ("critic", "frozen")
"""The fields of a TrainState that are items of their own if they are not None."""


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read. The message says which one, why, and which ones are intact."""


class DamagedError(Exception):
    """One checkpoint cannot be read, or differs from what was written."""


@dataclasses.dataclass(frozen=True)
class Record:
    """The JSON part of a checkpoint.

    Attributes:
        leaves: name of a leaf -> [shape, dtype, checksum].
        metrics: the metrics of the step; the best checkpoint is found by one of them.
        boundary: whether a phase ended at this step.
        extra: what the trainer needs to resume, as JSON.
    """

    leaves: dict[str, Any]
    metrics: dict[str, float]
    boundary: bool
    extra: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Restored:
    """A checkpoint that was read.

    Attributes:
        step: the step of the checkpoint.
        state: the TrainState; from `restore_params`, the parameters alone.
        extra: what the trainer stored beside the state.
    """

    step: int
    state: Any
    extra: dict[str, Any]


def _checksum(x: jax.Array) -> jax.Array:
    """u32[]: the sum mod 2^32, over all elements, of a hash of the element's bits and its index.

    Integer addition wraps around and commutes, so the checksum depends neither on the sharding nor on the order of the
    sum.
    """
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    if x.dtype == jnp.bool_:
        x = x.astype(jnp.uint8)
    size = min(x.dtype.itemsize, 4)
    bits = jax.lax.bitcast_convert_type(x, {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[size]).astype(jnp.uint32)
    strides = [int(np.prod(bits.shape[axis + 1 :], dtype=object)) % 2**32 for axis in range(bits.ndim)]
    iotas = (jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis) for axis in range(bits.ndim))
    index = sum((iota * np.uint32(stride) for iota, stride in zip(iotas, strides, strict=True)), jnp.uint32(1))
    mixed = bits ^ (index * np.uint32(0x9E3779B9))
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):  # the finaliser of MurmurHash3: every bit affects all
        mixed = (mixed ^ (mixed >> shift)) * np.uint32(factor)
    return jnp.sum(mixed ^ (mixed >> 16), dtype=jnp.uint32)


def named_leaves(tree: Any) -> dict[str, Any]:
    """Name of a leaf, such as opt_state.0.mu.layers.mlp.up -> leaf, for all leaves of a pytree."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


@jax.jit
def _checksums(leaves: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {name: _checksum(leaf) for name, leaf in on_device(leaves).items()}


def fingerprint(tree: Any) -> dict[str, Any]:
    """Computes the checksums of a pytree of arrays, with one program for all arrays on the same devices.

    Args:
        tree: the arrays.

    Returns:
        Name of a leaf -> [shape, dtype, checksum].
    """
    leaves = named_leaves(tree)
    by_devices: dict[Any, dict[str, jax.Array]] = {}
    for name, leaf in leaves.items():
        devices = frozenset(leaf.sharding.device_set) if isinstance(leaf, jax.Array) else None
        by_devices.setdefault(devices, {})[name] = leaf
    sums: dict[str, jax.Array] = {}
    for arrays in by_devices.values():
        sums |= _checksums(arrays)
    return {name: [list(leaf.shape), str(leaf.dtype), int(sums[name])] for name, leaf in leaves.items()}


def committed_steps(directory: str | Path | epath.Path) -> list[int]:
    """The steps of all complete checkpoints in a folder, in order; [] if there is no folder."""
    directory = epath.Path(directory)
    if not directory.exists():
        return []
    return sorted(ocp.path.step.checkpoint_steps(directory))


def read_record(path: epath.Path) -> Record:
    """Reads the record of a checkpoint.

    Args:
        path: the folder of the checkpoint.

    Raises:
        DamagedError: the record is missing or incomplete.
        OSError: the file cannot be read.
    """
    try:
        return Record(**json.loads((path / "record" / "metadata").read_text()))
    except (FileNotFoundError, ValueError, TypeError) as error:
        raise DamagedError(f"its record cannot be read ({type(error).__name__}: {error})") from error


def save_args(state: TrainState, record: Record) -> ocp.args.Composite:
    """The items that Orbax writes for a step. `critic` and `frozen` are among them only if the state has them."""
    optional = {name: getattr(state, name) for name in OPTIONAL if getattr(state, name) is not None}
    return ocp.args.Composite(
        params=ocp.args.StandardSave(state.params),
        state=ocp.args.StandardSave(other_fields(state)),
        record=ocp.args.JsonSave(dataclasses.asdict(record)),
        **{name: ocp.args.StandardSave(tree) for name, tree in optional.items()},
    )


def other_fields(state: TrainState) -> dict[str, Any]:
    """The fields that no other item holds. The format keeps an empty place for the parameters."""
    fields = [field.name for field in dataclasses.fields(state) if field.name not in OPTIONAL]
    return {name: getattr(state, name) for name in fields} | {"params": None}
