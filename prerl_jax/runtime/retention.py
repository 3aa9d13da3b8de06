"""Which checkpoints a run keeps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from prerl_jax.runtime.step_files import Record


def retained(records: Mapping[int, Record], keep_last: int, best: str | None, needed: Sequence[int] = ()) -> set[int]:
    """Decides which checkpoints to keep.

    Args:
        records: step -> record, of all checkpoints.
        keep_last: how many of the newest to keep.
        best: the metric whose best checkpoint is kept, or None.
        needed: for each of these steps, the newest checkpoint up to it is kept.

    Returns:
        The steps to keep; those at which a phase ended are always among them.
    """
    keep = set(sorted(records)[-keep_last:]) | {step for step, record in records.items() if record.boundary}
    scores = {step: record.metrics.get(best) for step, record in records.items()} if best else {}
    scores = {step: score for step, score in scores.items() if score is not None and math.isfinite(score)}
    if scores:
        keep.add(max(scores, key=lambda step: (scores[step], -step)))
    earlier = [[step for step in records if step <= limit] for limit in needed]
    return keep | {max(steps) for steps in earlier if steps}


class Retention:
    """`retained` as a preservation policy of Orbax. A checkpoint without a readable record is not kept.

    Args:
        records: step -> record, of all checkpoints; later changes of the mapping are seen.
        keep_last: see `retained`.
        best: see `retained`.

    Attributes:
        needed: see `retained`; assign it before a save.
    """

    def __init__(self, records: Mapping[int, Record], keep_last: int, best: str | None) -> None:
        self._arguments = records, keep_last, best
        self.needed: Sequence[int] = ()

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """For each checkpoint, whether to keep it. Orbax calls this method."""
        keep = retained(*self._arguments, self.needed)
        return [checkpoint.step in keep for checkpoint in checkpoints]
