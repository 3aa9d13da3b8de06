"""Where a run begins: the parameters and moments of another run's checkpoint, and the workdir's record of that."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from prerl_jax.runtime.metrics import write_json

FILE = "init_from.json"


@dataclasses.dataclass(frozen=True)
class Source:
    """The run whose parameters and moments another one begins with."""

    workdir: Path
    step: int | None
    """None is the newest checkpoint, as long as it is not settled which one that is."""

    @classmethod
    def named(cls, text: str) -> Source:
        """The source that `--init-from WORKDIR[@STEP]` names."""
        folder, _, at = text.rpartition("@")
        if not at.isdigit():  # an @ may belong to the folder's name
            folder, at = text, ""
        return cls(Path(folder).absolute(), int(at) if at else None)

    def __str__(self) -> str:
        return str(self.workdir) if self.step is None else f"{self.workdir} at step {self.step}"


def write_source(workdir: Path, source: Source | None) -> None:
    """Records where the run of a workdir began; nothing, and no record of an earlier one, for the config's model."""
    if source is None:
        (workdir / FILE).unlink(missing_ok=True)
    else:
        write_json(workdir / FILE, {"workdir": str(source.workdir), "step": source.step})


def read_source(workdir: Path, *, asked: Source | None) -> Source | None:
    """Where the run of a workdir with checkpoints began, None for the config's model.

    Raises:
        ValueError: it is asked to begin somewhere else, with the remedy.
    """
    began = None
    if (workdir / FILE).exists():
        record = json.loads((workdir / FILE).read_text())
        began = Source(Path(record["workdir"]), record["step"])
    same = began is not None and asked is not None and asked.workdir == began.workdir
    if asked is not None and not (same and asked.step in (None, began.step)):
        raise ValueError(
            f"{workdir} holds a run that began from {began or 'its model'}, not from {asked}. Leave --init-from out to "
            "go on with it, or begin another run with another --workdir."
        )
    return began
