"""The record of where a run began: init_from.json in its workdir, if it began from another run's checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

from prerl_jax.runtime.checkpoint_address import CheckpointAddress
from prerl_jax.runtime.metrics import write_json

FILE = "init_from.json"


def write_source(workdir: Path, source: CheckpointAddress | None) -> None:
    """Records where the run of a workdir began; for the config's model the record is removed.

    Args:
      workdir: the run's workdir.
      source: the checkpoint, with its step; None for the config's model.
    """
    if source is None:
        (workdir / FILE).unlink(missing_ok=True)
    else:
        write_json(workdir / FILE, {"workdir": str(source.workdir), "step": source.step})


def read_source(workdir: Path, *, asked: CheckpointAddress | None) -> CheckpointAddress | None:
    """Where the run of a workdir with checkpoints began; None for the config's model.

    Args:
      workdir: the run's workdir.
      asked: the checkpoint of --init-from; None if it is not given.

    Raises ValueError where `asked` is another place, with the remedy.
    """
    began = None
    if (workdir / FILE).exists():
        record = json.loads((workdir / FILE).read_text())
        began = CheckpointAddress(Path(record["workdir"]), record["step"])
    elsewhere = asked is not None and (began is None or asked.workdir != began.workdir)
    if elsewhere or (asked is not None and began is not None and asked.step not in (None, began.step)):
        raise ValueError(
            f"{workdir} holds a run that began from {began or 'its model'}, not from {asked}. Leave --init-from out to "
            "resume it, or begin another run with another --workdir."
        )
    return began
