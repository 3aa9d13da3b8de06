"""When what of a step happened, how much work it was, and the `time/` metrics that follow.

    free ... begun ... sampled ... verified ... scored ... prepared ... aligned ... done

The device is free of what came before at `free`; sampling that was begun earlier than that waited in its queue. At
`prepared` it has been given the first update's batch, or the alignment before it. `done` is when the last update is
computed. So steps, but for evaluations between them, lie end to end on the clock. Compilation counts in the part that
it falls in, the alignment's own in `prepare`.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from prerl_jax.core.types import Batch, Rollouts
from prerl_jax.models.flops import sampling_flops, scoring_flops, training_flops, value_flops
from prerl_jax.models.layers import DecoderConfig
from prerl_jax.runtime.mesh import start_gather

STEP_PARTS = ("sample", "verify", "score", "prepare", "align", "train")
MARKS = ("begun", "sampled", "verified", "scored", "prepared", "aligned", "done")


class Times:
    """The marks of one step, in seconds of `time.perf_counter`.

    Attributes:
      marks: name -> when.
      idle: (from, to) pairs, apart from each other: when the device had nothing to do while rows were sampled.
    """

    def __init__(self):
        self.marks: dict[str, float] = {}
        self.idle: list[tuple[float, float]] = []
        self.mark("begun")

    def mark(self, *names: str) -> None:
        """The parts that are called so, and those before them, are over."""
        self.marks |= dict.fromkeys(names, time.perf_counter())

    def mark_once(self, name: str) -> None:
        """As `mark`, unless it has been marked; threads may race."""
        self.marks.setdefault(name, time.perf_counter())

    def metrics(self, free: float) -> dict[str, float]:
        """Seconds of the step and of its parts, and the share of it in which the device had nothing to do.

        Rows are verified while others are sampled: `time/verify` is what of it is left when all are.
        `time/wait` counts what lies between the last sample and the first batch on the device, scoring aside, what
        lies before sampling with the device free, and `idle`. The device is given all that a step trains on before it
        is asked for anything, and the next sampling before the step's metrics are read, so it waits nowhere else.
        """
        at = [self.marks[name] for name in MARKS]
        parts = dict(zip(STEP_PARTS, np.diff([max(at[0], free), *at[1:]]), strict=True))
        begun, sampled, verified, scored, prepared = at[:5]
        spans = [(free, begun), *self.idle, (sampled, verified), (scored, prepared)]
        waited = sum(max(0.0, end - max(start, free)) for start, end in spans)
        step = at[-1] - free
        parts |= {"step": step, "wait": waited / max(step, 1e-9)}
        return {f"time/{name}": float(value) for name, value in parts.items()}


class Trained(NamedTuple):
    """What counts of a packed batch, this process's rows of it."""

    lengths: np.ndarray
    """i64[n], tokens of every sequence."""
    tokens: int
    """Those with a weight."""
    valued: np.ndarray
    """i64[m], tokens of every sequence that the critic is trained on."""

    @classmethod
    def of(cls, batch: Batch) -> Trained:
        critic = np.zeros(0, np.int64) if batch.critic is None else segment_lengths(batch.critic.sequences.segments)
        return cls(segment_lengths(batch.sequences.segments), int((batch.weights != 0).sum()), critic)


class Work:
    """What a step computes, over all processes: tokens, and model FLOPs. Every process makes it, of its own rows.

    Making it does not wait for the device, or for another process; reading it does.
    """

    def __init__(
        self,
        config: DecoderConfig,
        mesh: Mesh,
        drawn: Sequence[Rollouts],
        updates: Sequence[Trained],
        group_size: int,
        scored: np.ndarray | Sequence[int] = (),
    ):
        """`updates` are what was trained on; `scored` has the tokens of every sequence whose log-probabilities were
        computed beforehand, once for each policy that it was done under."""
        prompts, responses = (
            np.concatenate([getattr(rollouts, mask).sum(axis=1) for rollouts in drawn])
            for mask in ("prompt_mask", "response_mask")
        )
        lengths, valued = (np.concatenate([getattr(t, name) for t in updates]) for name in ("lengths", "valued"))
        flops = sampling_flops(config, prompts, responses, group_size)
        flops += training_flops(config, lengths, sum(t.tokens for t in updates))
        flops += scoring_flops(config, np.asarray(scored, np.int64))
        if len(valued):  # all rows once, and what the critic is trained on with every update
            flops += value_flops(config, prompts + responses) + 3 * value_flops(config, valued)
        self._all = start_gather(mesh, np.array([responses.sum(), lengths.sum(), flops], np.float64))

    @functools.cached_property
    def sums(self) -> tuple[float, float, float]:
        """Tokens sampled, tokens trained on, and FLOPs."""
        return tuple(self._all().sum(axis=0).tolist())

    def metrics(self, times: Mapping[str, float], peak: float | None) -> dict[str, float]:
        """The step's FLOPs; tokens a second, sampled in the whole step, sampled while sampling and trained on while
        training; and MFU, where the peak is known.

        Alignment is a measurement: neither `train/flops` nor `time/mfu` counts it.
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
    """Tokens of every sequence in packed rows; segments i32[B, T], 0 is padding."""
    rows, kinds = len(segments), int(segments.max(initial=0)) + 1
    numbered = segments + kinds * np.arange(rows)[:, None]
    counts = np.bincount(numbered.ravel(), minlength=rows * kinds).reshape(rows, kinds)[:, 1:]
    return counts[counts > 0]
