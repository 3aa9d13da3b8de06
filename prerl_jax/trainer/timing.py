"""The clock of a step, the amount of work in it, and the `time/` metrics.

    free ... begun ... sampled ... verified ... scored ... prepared ... aligned ... done

`free`: the device has finished the previous step. If a step begins earlier, its programs wait in the device's queue
until then. `prepared`: the first update, or the alignment before it, has been started. `done`: the last update is
computed. So the steps follow one another on the clock without a gap, except for the evaluations between them. The time
to compile a program counts in the stage that first uses it; that of the alignment counts in `prepare`.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from prerl_jax.core.types import Batch, Rollouts
from prerl_jax.models.flops import sampling_flops, scoring_flops, training_flops, value_flops
from prerl_jax.models.layers import DecoderConfig
from prerl_jax.runtime.gather import start_gather
from prerl_jax.runtime.row_share import RowShare

STEP_PARTS = ("sample", "verify", "score", "prepare", "align", "train")
MARKS = ("begun", "sampled", "verified", "scored", "prepared", "aligned", "done")


class StepClock:
    """The times at which the stages of one step ended, in seconds of `time.perf_counter`.

    Attributes:
      marks: name -> time, see MARKS.
      idle: (from, to) pairs that do not overlap: the device had no work while responses were sampled.
    """

    def __init__(self) -> None:
        self.marks: dict[str, float] = {}
        self.idle: list[tuple[float, float]] = []
        self.mark("begun")

    def mark(self, *names: str) -> None:
        """Sets these marks to the current time."""
        self.marks |= dict.fromkeys(names, time.perf_counter())

    def mark_once(self, name: str) -> None:
        """Sets a mark that is not set yet. Several threads may call it."""
        self.marks.setdefault(name, time.perf_counter())

    def engine_begins(self) -> None:
        """Marks the call of the engine. The time since the step began, or since the last call ended, counts as idle."""
        self.idle.append((self.marks.get("sampled", self.marks["begun"]), time.perf_counter()))

    def engine_ends(self, idle: Sequence[tuple[float, float]]) -> None:
        """Marks the end of the call; `idle` are the times in it in which the device had no work."""
        self.idle += idle
        self.mark("sampled")

    def metrics(self, free: float) -> dict[str, float]:
        """`time/step`, the seconds of each stage, and `time/wait`, the share of the step in which the device was idle.

        Responses are verified while others are sampled, so `time/verify` is only what is left when sampling has ended.
        `time/wait` counts the idle times of sampling, the time between the last sample and the first batch on the
        device without scoring, and the time before sampling in which the device was free. Everywhere else
        the next program is started before the results of the last one are read.

        Args:
          free: the time at which the device had finished what came before this step.
        """
        at = [self.marks[name] for name in MARKS]
        parts = dict(zip(STEP_PARTS, np.diff([max(at[0], free), *at[1:]]), strict=True))
        begun, sampled, verified, scored, prepared = at[:5]
        spans = [(free, begun), *self.idle, (sampled, verified), (scored, prepared)]
        waited = sum(max(0.0, end - max(start, free)) for start, end in spans)
        step = at[-1] - free
        parts |= {"step": step, "wait": waited / max(step, 1e-9)}
        return {f"time/{name}": float(value) for name, value in parts.items()}


@dataclasses.dataclass(frozen=True)
class TrainedTokens:
    """The amount of work in a packed batch: this process's rows of it.

    Attributes:
      lengths: i64[n], tokens of every sequence.
      tokens: the number of tokens with a weight other than 0.
      valued: i64[m], tokens of every sequence that the critic is trained on.
    """

    lengths: np.ndarray
    tokens: int
    valued: np.ndarray

    @classmethod
    def of(cls, batch: Batch) -> TrainedTokens:
        """The amount of work in a packed batch of numpy arrays."""
        valued = np.zeros(0, np.int64)
        if batch.critic is not None:
            valued = segment_lengths(np.asarray(batch.critic.sequences.segments))
        lengths = segment_lengths(np.asarray(batch.sequences.segments))
        return cls(lengths, int((batch.weights != 0).sum()), valued)


class Work:
    """Tokens and model FLOPs of one step, over all processes. Every process creates it from its own rows.

    The constructor does not wait. `sums` and `metrics` wait for the device and for the other processes.

    Args:
      config: the model's architecture.
      shares: which rows this process has of the rollouts, and of the updates.
      sampled: the rollouts that were sampled in the step.
      updates: the work of each update.
      group_size: rollouts of one prompt.
      scored: i64[n], tokens of every sequence that was scored before the updates, once for each policy.
    """

    def __init__(
        self,
        config: DecoderConfig,
        shares: tuple[RowShare, RowShare],
        sampled: Sequence[Rollouts],
        updates: Sequence[TrainedTokens],
        group_size: int,
        scored: np.ndarray | Sequence[int] = (),
    ):
        prompts = np.concatenate([rollouts.prompt_mask.sum(axis=1) for rollouts in sampled])
        responses = np.concatenate([rollouts.response_mask.sum(axis=1) for rollouts in sampled])
        lengths = np.concatenate([update.lengths for update in updates])
        valued = np.concatenate([update.valued for update in updates])
        sampling = sampling_flops(config, prompts, responses, group_size)
        flops = training_flops(config, lengths, sum(update.tokens for update in updates))
        flops += scoring_flops(config, np.asarray(scored, np.int64))
        if len(valued):  # the critic values all rows once, and is trained on its rows in every update
            sampling += value_flops(config, prompts + responses)
            flops += 3 * value_flops(config, valued)
        self._shares = shares
        numbers = [responses.sum(), sampling, lengths.sum(), flops]
        self._totals = start_gather(np.array(numbers, np.float64))

    @functools.cached_property
    def sums(self) -> tuple[float, float, float]:
        """(tokens sampled, tokens trained on, FLOPs), over all processes."""
        totals = self._totals()
        of_rollouts, of_updates = (np.sum(share.once(totals), axis=0).tolist() for share in self._shares)
        return of_rollouts[0], of_updates[2], of_rollouts[1] + of_updates[3]

    def metrics(self, times: Mapping[str, float], peak: float | None) -> dict[str, float]:
        """train/flops, tokens per second, and MFU where the peak is known.

        Alignment is a measurement: neither `train/flops` nor `time/mfu` counts it.

        Args:
          times: the `time/` metrics of the step.
          peak: FLOPs per second of all devices; None if it is not known.
        """
        sampled, trained, flops = self.sums
        step, sample, train = (max(times[f"time/{name}"], 1e-9) for name in ("step", "sample", "train"))
        found = {
            "train/flops": flops,
            "time/tokens_per_second": sampled / step,
            "time/sampled_per_second": sampled / sample,
            "time/trained_per_second": trained / train,
        }
        return found if peak is None else found | {"time/mfu": flops / (peak * max(step - times["time/align"], 1e-9))}


def segment_lengths(segments: np.ndarray) -> np.ndarray:
    """i64[n]: the tokens of every sequence in packed rows; segments i32[B, T], 0 is padding."""
    rows, kinds = len(segments), int(segments.max(initial=0)) + 1
    numbered = segments + kinds * np.arange(rows)[:, None]
    counts = np.bincount(numbered.ravel(), minlength=rows * kinds).reshape(rows, kinds)[:, 1:]
    return counts[counts > 0]


def wait_until_aligned(clock: StepClock, alignment: Mapping[str, jax.Array]) -> None:
    """Waits until the alignment is measured, and sets its mark."""
    jax.block_until_ready(alignment)
    clock.mark_once("aligned")
