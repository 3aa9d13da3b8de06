"""Reading checkpoints: every process reads its shards, and all agree that the checkpoint is whole.

The record distinguishes the checkpoint of another model from a damaged one. For another model, reading raises an error
that names the leaves. If a checkpoint is damaged, the one before it is read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from prerl_jax.core.params import merge_params, split_params
from prerl_jax.core.types import Params, TrainState
from prerl_jax.runtime.gather import max_over_processes
from prerl_jax.runtime.step_files import (
    OPTIONAL,
    CheckpointError,
    DamagedError,
    Record,
    Restored,
    fingerprint,
    named_leaves,
    other_fields,
    read_record,
)

FROZEN = "frozen."
"""The beginning of the names of frozen leaves."""


def require_same_leaves(path: epath.Path, saved: dict[str, Any], abstract: Any) -> None:
    """Checks that a checkpoint has the leaves of the model, with their shapes and dtypes.

    Args:
        path: the checkpoint, for the error message.
        saved: `Record.leaves`.
        abstract: the model's pytree of ShapeDtypeStructs.

    Raises:
        ValueError: they differ, with the names of the leaves.
    """
    mine = {name: [list(leaf.shape), str(leaf.dtype)] for name, leaf in named_leaves(abstract).items()}
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
        raise ValueError(
            f"the checkpoint {path} is of another model or optimizer; {'; '.join(found)}. Use the config of the run "
            "that wrote it."
        )


def _placed(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """The leaf with a sharding; the first device if it has none."""
    sharding = leaf.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _read_arrays(path: epath.Path, abstract: Any) -> Any:
    """Reads the arrays of one item; raises DamagedError if that fails."""
    try:
        # The handler, not a Checkpointer: a Checkpointer waits for all processes, and some of them may fail here.
        return ocp.StandardCheckpointHandler().restore(
            path, args=ocp.args.StandardRestore(jax.tree.map(_placed, abstract))
        )
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise DamagedError(f"{path.name} cannot be read ({type(error).__name__}: {reason[:300]})") from error


def _read(path: epath.Path, state: TrainState | None, params: Params | None) -> tuple[Any, Record]:
    """Reads (the state, or only the items of the parameters; the record), without waiting for other processes."""
    record = read_record(path)
    if state is None:
        record = _with_leaves(record, lambda name: name.startswith(("params.", FROZEN)))
        parts = _parts({} if params is None else params, record)
        require_same_leaves(path, record.leaves, parts)
        return {item: _read_arrays(path / item, part) for item, part in parts.items()}, record
    if state.critic is None or not any(map(_of_critic, record.leaves)):
        state, record = dataclasses.replace(state, critic=None), _with_leaves(record, lambda name: not _of_critic(name))
    require_same_leaves(path, record.leaves, state)
    arrays = {"params": _read_arrays(path / "params", state.params)}
    for name in OPTIONAL:
        if getattr(state, name) is not None:
            arrays[name] = _read_arrays(path / name, getattr(state, name))
    return TrainState(**_read_arrays(path / "state", other_fields(state)) | arrays), record


def _parts(params: Params, record: Record) -> dict[str, Params]:
    """A whole model's parameters, split into the items of the checkpoint: {item: its parameters}."""
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
    """Raises this process's failure, or DamagedError if only another process has failed."""
    worst = max_over_processes(0 if failure is None else 1)
    if failure is not None:
        raise failure
    if worst:
        raise DamagedError("another process could not read it")


def read_step(path: epath.Path, *, state: TrainState | None = None, params: Params | None = None) -> Restored:
    """Reads one checkpoint and verifies its checksums. Every process must call it.

    Args:
        path: the folder of the checkpoint.
        state: ShapeDtypeStructs of the whole state, to read it. The critic is read if both this state and the
            checkpoint have one; otherwise the critic of the result is None.
        params: ShapeDtypeStructs of all parameters of the model, to read them alone, if `state` is None. If the
            checkpoint has frozen parameters, they are read as well and merged.

    Raises:
        DamagedError: a process cannot read the checkpoint. All processes raise it.
        ValueError: the checkpoint is of another model, with the names of the leaves.
    """
    failure: Exception | None = None
    try:
        tree, record = _read(path, state, params)
    except (DamagedError, ValueError) as error:
        failure = error
    except OSError as error:
        failure = DamagedError(f"{type(error).__name__}: {error}")
    # All processes compute the checksums of shared arrays together, so first all must have read their shards.
    _agree(failure)
    wrong = [name for name, entry in fingerprint(tree).items() if entry[2] != record.leaves[name][2]]
    if wrong:
        raise DamagedError(f"the checksums of {', '.join(wrong[:8])} do not match")
    found = merge_params(tree["params"], tree.get("frozen")) if state is None else tree
    return Restored(int(path.name), found, record.extra)


def read_newest(directory: epath.Path, steps: list[int], **abstract: Any) -> tuple[Restored, list[str]]:
    """Reads the newest checkpoint that can be read. Every process must call it.

    Args:
        directory: the folder of the checkpoints.
        steps: the steps to try, the newest first.
        **abstract: `state` or `params`, see `read_step`.

    Returns:
        (the checkpoint, "step n: reason" for every damaged checkpoint that is newer).

    Raises:
        CheckpointError: none of them can be read.
        ValueError: a checkpoint is of another model, see `read_step`.
    """
    damaged: list[str] = []
    for step in sorted(steps, reverse=True):
        try:
            return read_step(directory / str(step), **abstract), damaged
        except DamagedError as error:
            damaged.append(f"step {step}: {error}")
    raise CheckpointError(f"no checkpoint in {directory} can be read; {'; '.join(damaged)}.")
