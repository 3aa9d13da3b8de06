"""The address of a checkpoint as the command line takes it: WORKDIR or WORKDIR@STEP."""

from __future__ import annotations

import dataclasses
from pathlib import Path

CHECKPOINTS = "checkpoints"


@dataclasses.dataclass(frozen=True)
class CheckpointAddress:
    """A checkpoint of a run.

    Attributes:
        workdir: the workdir of the run.
        step: the step of the checkpoint, at least 0; None for the newest checkpoint.
    """

    workdir: Path
    step: int | None = None

    @classmethod
    def parse(cls, text: str) -> CheckpointAddress:
        """Reads WORKDIR or WORKDIR@STEP.

        Args:
            text: a path, absolute or relative to the current folder. An "@" that is not followed by digits alone
                belongs to the folder's name.

        Returns:
            The address, with an absolute workdir.

        Raises:
            ValueError: the text names no workdir.
        """
        folder, _, step = text.rpartition("@")
        if not (step.isascii() and step.isdigit()):
            folder, step = text, ""
        if not folder:
            raise ValueError(f"{text!r} names no workdir. Give WORKDIR or WORKDIR@STEP.")
        return cls(Path(folder).absolute(), int(step) if step else None)

    def __str__(self) -> str:
        """WORKDIR or WORKDIR@STEP, as `parse` reads it."""
        return str(self.workdir) if self.step is None else f"{self.workdir}@{self.step}"

    @property
    def checkpoints(self) -> Path:
        """The folder that holds the checkpoints of the run."""
        return self.workdir / CHECKPOINTS
