"""What is on disk for one step, and how it is read back: checked, leaf by leaf.

A checkpoint is a folder named by its step, written by Orbax, with its items: `params`, `critic` and `frozen` (where
there are any) and `state` (the rest of the TrainState) as arrays, and `record` as JSON: every leaf's shape, dtype and
checksum, the metrics, whether a phase ended there, and what the trainer adds. The leaves tell another model's
checkpoint (an error that names them) from a damaged one (the one before it is used); the checksums find flipped bits,
which the storage format lets through.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from prerl_jax.core.params import merge_params, split_params
from prerl_jax.core.types import Params, TrainState
from prerl_jax.runtime.mesh import max_over_processes

OPTIONAL = ("critic", "frozen")
"""Fields of a TrainState that have an item of their own, where they are not None."""
FROZEN = "frozen."


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, or none could be read; the message says which, why, and what is still good."""


class DamagedError(Exception):
    """One checkpoint cannot be read back as it was written."""


@dataclasses.dataclass(frozen=True)
class Record:
    """The JSON part of a checkpoint."""

    leaves: dict[str, Any]
    """Name -> [shape, dtype, checksum]."""
    metrics: dict[str, float]
    boundary: bool
    extra: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Restored:
    """A checkpoint that was read: `state` is the TrainState, or the parameters alone from `restore_params`."""

    step: int
    state: Any
    extra: dict[str, Any]


def _checksum(x: jax.Array) -> jax.Array:
    """u32[]: the sum mod 2^32 of a mix of every element's bits with its index.

    Integer addition wraps and commutes, so the value depends neither on the sharding nor on the order of the sum.
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
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):  # MurmurHash3's finaliser: no bit stays where it was
        mixed = (mixed ^ (mixed >> shift)) * np.uint32(factor)
    return jnp.sum(mixed ^ (mixed >> 16), dtype=jnp.uint32)


def _named(tree: Any) -> dict[str, Any]:
    """Leaf names such as opt_state.0.mu.layers.mlp.up -> leaves."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


@jax.jit
def _checksums(leaves: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {name: _checksum(leaf) for name, leaf in leaves.items()}


def fingerprint(tree: Any) -> dict[str, Any]:
    """Name -> [shape, dtype, checksum] of every array of a tree; one program for all arrays on the same devices."""
    leaves, groups, sums = _named(tree), {}, {}
    for name, leaf in leaves.items():
        groups.setdefault(frozenset(leaf.sharding.device_set) if isinstance(leaf, jax.Array) else None, {})[name] = leaf
    for group in groups.values():
        sums |= _checksums(group)
    return {name: [list(leaf.shape), str(leaf.dtype), int(sums[name])] for name, leaf in leaves.items()}


def require_same_leaves(path: epath.Path, saved: dict[str, Any], abstract: Any) -> None:
    """Raises ValueError naming the leaves that a checkpoint and the model do not share, or not in shape and dtype."""
    mine = {name: [list(leaf.shape), str(leaf.dtype)] for name, leaf in _named(abstract).items()}
    theirs = {name: entry[:2] for name, entry in saved.items()}
    text = {
        "only in the checkpoint": sorted(theirs.keys() - mine.keys()),
        "only in the model": sorted(mine.keys() - theirs.keys()),
        "different": [
            f"{name}: {theirs[name][1]}{theirs[name][0]} in the checkpoint, {mine[name][1]}{mine[name][0]} in the model"
            for name in sorted(mine.keys() & theirs.keys())
            if mine[name] != theirs[name]
        ],
    }
    found = [f"{what}: {', '.join(names[:8])}{' ...' * (len(names) > 8)}" for what, names in text.items() if names]
    if found:
        raise ValueError(f"the checkpoint {path} is of another model or optimizer; {'; '.join(found)}.")


def committed_steps(directory: str | Path | epath.Path) -> list[int]:
    """The steps whose checkpoints were written to the end, in order; [] without the folder."""
    directory = epath.Path(directory)
    if not directory.exists():
        return []
    return sorted(ocp.path.step.checkpoint_steps(directory))


def read_record(path: epath.Path) -> Record:
    """The record of a checkpoint. Raises DamagedError where it is missing or not whole, OSError where unreadable."""
    try:
        return Record(**json.loads((path / "record" / "metadata").read_text()))
    except (FileNotFoundError, ValueError, TypeError) as error:
        raise DamagedError(f"its record cannot be read ({type(error).__name__}: {error})") from error


def save_args(state: TrainState, record: Record) -> ocp.args.Composite:
    """What Orbax writes for a step. The items `critic` and `frozen` are there only where the state has them."""
    optional = {name: getattr(state, name) for name in OPTIONAL if getattr(state, name) is not None}
    return ocp.args.Composite(
        params=ocp.args.StandardSave(state.params),
        state=ocp.args.StandardSave(_rest(state)),
        record=ocp.args.JsonSave(dataclasses.asdict(record)),
        **{name: ocp.args.StandardSave(tree) for name, tree in optional.items()},
    )


def _rest(state: TrainState) -> dict[str, Any]:
    """The fields that are in no other item; with an empty place for the parameters, which the format has always had."""
    fields = [field.name for field in dataclasses.fields(state) if field.name not in OPTIONAL]
    return {name: getattr(state, name) for name in fields} | {"params": None}


def _placed(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """The leaf with a sharding: the first device where it names none."""
    sharding = leaf.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _read_arrays(path: epath.Path, abstract: Any) -> Any:
    """One item's arrays. Raises DamagedError."""
    try:
        # The handler, not a Checkpointer: that one waits for all processes, of which some may fail here.
        return ocp.StandardCheckpointHandler().restore(
            path, args=ocp.args.StandardRestore(jax.tree.map(_placed, abstract))
        )
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise DamagedError(f"{path.name} cannot be read ({type(error).__name__}: {reason[:300]})") from error


def _read(path: epath.Path, state: TrainState | None, params: Params | None) -> tuple[Any, Record]:
    """(the state, or the items of the parameters where only they are asked for; the record). No process waits here."""
    record = read_record(path)
    if state is None:
        record = _with_leaves(record, lambda name: name.startswith(("params.", FROZEN)))
        parts = _parts(params, record)
        require_same_leaves(path, record.leaves, parts)
        return {item: _read_arrays(path / item, part) for item, part in parts.items()}, record
    if state.critic is None or not any(map(_of_critic, record.leaves)):
        state, record = dataclasses.replace(state, critic=None), _with_leaves(record, lambda name: not _of_critic(name))
    require_same_leaves(path, record.leaves, state)
    arrays = {"params": _read_arrays(path / "params", state.params)}
    for name in OPTIONAL:
        if getattr(state, name) is not None:
            arrays[name] = _read_arrays(path / name, getattr(state, name))
    return TrainState(**_read_arrays(path / "state", _rest(state)) | arrays), record


def _parts(params: Params, record: Record) -> dict[str, Params]:
    """{item: its part} of a whole model's parameters, as the checkpoint has split them."""
    frozen = {name.removeprefix(FROZEN) for name in record.leaves if name.startswith(FROZEN)}
    if not frozen:
        return {"params": params}
    trainable, rest = split_params(params, lambda name: name not in frozen)
    return {"params": trainable} if rest is None else {"params": trainable, "frozen": rest}


def _of_critic(name: str) -> bool:
    return name.startswith("critic.")


def _with_leaves(record: Record, wanted: Callable[[str], bool]) -> Record:
    return dataclasses.replace(record, leaves={name: e for name, e in record.leaves.items() if wanted(name)})


def _agree(failure: Exception | None) -> None:
    """Raises this process's failure, and DamagedError where only another process has one."""
    worst = max_over_processes(0 if failure is None else 1)
    if failure is not None:
        raise failure
    if worst:
        raise DamagedError("another process could not read it")


def read_step(path: epath.Path, *, state: TrainState | None = None, params: Params | None = None) -> Restored:
    """Reads one checkpoint: the whole `state` (abstract), or only `params` (abstract). Every process must call it.

    `params` are the whole model's: where the checkpoint has frozen parameters, they are read as well and merged.

    A critic is read where it is asked for and the checkpoint has one; without the one or the other, it is None.

    Raises:
        DamagedError: some process cannot read it; then it is raised on every process.
        ValueError: it is of another model, with the leaves.
    """
    failure: Exception | None = None
    try:
        tree, record = _read(path, state, params)
    except (DamagedError, ValueError) as error:
        failure = error
    except OSError as error:
        failure = DamagedError(f"{type(error).__name__}: {error}")
    # Checksums of arrays that several processes hold are computed together: first, all must have their parts.
    _agree(failure)
    wrong = [name for name, entry in fingerprint(tree).items() if entry[2] != record.leaves[name][2]]
    if wrong:
        raise DamagedError(f"the checksums of {', '.join(wrong[:8])} do not match")
    found = merge_params(tree["params"], tree.get("frozen")) if state is None else tree
    return Restored(int(path.name), found, record.extra)


def read_newest(directory: epath.Path, steps: list[int], **abstract) -> tuple[Restored, list[str]]:
    """The newest of these steps that can be read, and "step n: reason" of the damaged ones passed over.

    Raises CheckpointError when none can, ValueError as `read_step`.
    """
    damaged: list[str] = []
    for step in sorted(steps, reverse=True):
        try:
            return read_step(directory / str(step), **abstract), damaged
        except DamagedError as error:
            damaged.append(f"step {step}: {error}")
    raise CheckpointError(f"no checkpoint in {directory} can be read; {'; '.join(damaged)}.")
