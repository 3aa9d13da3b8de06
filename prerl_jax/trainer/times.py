"""When what of a step happened, how much work it was, and the `time/` metrics that follow.

    free ... begun ... sampled ... verified ... prepared ... aligned ... done

The device is free of what came before at `free`; sampling that was begun earlier than that waited in its queue. `done`
is when the update is computed. So steps, but for evaluations between them, lie end to end on the clock.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np

from prerl_jax.core.types import Batch, Rollouts
from prerl_jax.models.flops import sampling_flops, scoring_flops, training_flops, value_flops
from prerl_jax.models.layers import DecoderConfig
from prerl_jax.runtime.mesh import all_rows

MARKS = ("begun", "sampled", "verified", "prepared", "aligned", "done")


class Times:
    """The marks of one step, in seconds of `time.perf_counter`."""

    def __init__(self):
        self.marks: dict[str, float] = {}
        self.mark("begun")

    def mark(self, name: str) -> None:
        """The part that is called so, and those before it, are over."""
        self.marks[name] = time.perf_counter()

    def metrics(self, free: float) -> dict[str, float]:
        """Seconds of the step and of its parts, and the share of it in which the device had nothing to do.

        Rows are verified while others are sampled: `time/verify` is what of it is left when all are.
        `time/wait` counts what lies between the last sample and the batch on the device, and what lies before sampling
        with the device free. The device is given the train step before it is asked for anything, and the next
        sampling before the step's metrics are read, so it waits nowhere else.
        """
        at = [self.marks[name] for name in MARKS]
        begun = max(at[0], free)
        parts = dict(zip(("sample", "verify", "prepare", "align", "train"), np.diff([begun, *at[1:]]), strict=True))
        step = at[-1] - free
        waited = (begun - free) + parts["verify"] + parts["prepare"]
        parts |= {"step": step, "wait": waited / max(step, 1e-9)}
        return {f"time/{name}": float(value) for name, value in parts.items()}


class Work:
    """What a step computes, over all processes: tokens, and model FLOPs. Every process makes it, of its own rows."""

    def __init__(
        self,
        config: DecoderConfig,
        drawn: Sequence[Rollouts],
        updates: Sequence[Batch],
        group_size: int,
        scored: np.ndarray | Sequence[int] = (),
    ):
        """`updates` are the packed batches that were trained on; `scored` has the tokens of every sequence whose
        log-probabilities were computed beforehand, once for each policy that it was done under."""
        prompts, responses = (
            np.concatenate([getattr(rollouts, mask).sum(axis=1) for rollouts in drawn])
            for mask in ("prompt_mask", "response_mask")
        )
        lengths = np.concatenate([segment_lengths(batch.sequences.segments) for batch in updates])
        trained = sum(int((batch.weights != 0).sum()) for batch in updates)
        flops = sampling_flops(config, prompts, responses, group_size) + training_flops(config, lengths, trained)
        flops += scoring_flops(config, np.asarray(scored, np.int64))
        valued = [segment_lengths(batch.critic.sequences.segments) for batch in updates if batch.critic is not None]
        if valued:  # all rows once, and what the critic is trained on with every update
            flops += value_flops(config, prompts + responses) + 3 * value_flops(config, np.concatenate(valued))
        self.sampled, self.trained, self.flops = _over_processes(responses.sum(), lengths.sum(), flops)

    def metrics(self, times: Mapping[str, float], peak: float) -> dict[str, float]:
        """The step's FLOPs; tokens a second, sampled in the whole step, sampled while sampling and trained on while
        training; and MFU.

        Alignment is a measurement: neither `train/flops` nor `time/mfu` counts it.
        """
        step, sample, train = (max(times[f"time/{name}"], 1e-9) for name in ("step", "sample", "train"))
        return {
            "train/flops": self.flops,
            "time/tokens_per_second": self.sampled / step,
            "time/sampled_per_second": self.sampled / sample,
            "time/trained_per_second": self.trained / train,
            "time/mfu": self.flops / (peak * max(step - times["time/align"], 1e-9)),
        }


def _over_processes(*numbers: float) -> tuple[float, ...]:
    """Each summed over the processes, in double precision, which goes through their devices as pairs of words."""
    words = np.array([numbers], np.float64).view(np.uint32)
    return tuple(all_rows(words).view(np.float64).sum(axis=0).tolist())


def segment_lengths(segments: np.ndarray) -> np.ndarray:
    """Tokens of every sequence in packed rows; segments i32[B, T], 0 is padding."""
    rows, kinds = len(segments), int(segments.max(initial=0)) + 1
    numbered = segments + kinds * np.arange(rows)[:, None]
    counts = np.bincount(numbered.ravel(), minlength=rows * kinds).reshape(rows, kinds)[:, 1:]
    return counts[counts > 0]
