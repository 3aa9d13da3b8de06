"""Verdicts on the rows of a step or an evaluation, asked for as rows end: while the device decodes the others.

One thread takes whatever rows have ended since it last looked and judges them together. When sampling is over, most
verdicts are there. A verdict depends on nothing but its row, so rewards are those of all rows judged at once, in the
order of the rows.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from prerl_jax.data.problems import Problem
from prerl_jax.evaluation.sampling import texts, truncated
from prerl_jax.runtime.profile import annotate
from prerl_jax.trainer.setup import Setup
from prerl_jax.verify import Verified

Verify = Callable[[Sequence[Problem], Sequence[str], Sequence[bool]], Verified]


@dataclasses.dataclass(frozen=True)
class Verdicts:
    """What is found of B responses, in the order of the rows."""

    responses: list[str]
    """As text."""
    cut: np.ndarray
    """bool[B]: the length limit was reached without a stop token."""
    verified: Verified
    measured: np.ndarray
    """f32[B, N], what else was asked for."""


class Verification:
    """The verdicts on many rows, `problems[i]` being row i's. Leaving it ends the thread, verdicts or not.

    Where it is left by an error, nobody waits for what the thread is doing: no call begins after it.

    Args:
      assembly: how responses become text, and which tokens end them.
      verify: judges responses; called on a thread of its own, one call at a time.
      problems: of all rows.
      measure: responses -> N numbers of each, f32[B, N]; called on that thread, too.
    """

    def __init__(
        self,
        setup: Setup,
        verify: Verify,
        problems: Sequence[Problem],
        measure: Callable[[Sequence[str]], np.ndarray] | None = None,
    ):
        count = len(problems)
        self._assembly, self._verify, self._problems = setup, verify, problems
        self._measure = measure or (lambda responses: np.zeros((len(responses), 0), np.float32))
        self._found = Verdicts(
            [""] * count,
            np.zeros(count, bool),
            Verified(np.zeros(count, np.float32), np.zeros(count, bool)),
            np.zeros((count, self._measure([]).shape[1]), np.float32),
        )
        self._lock = threading.Lock()
        self._ended: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._calls: list[Future] = []
        self._thread = ThreadPoolExecutor(1, "verification")

    def __enter__(self) -> Verification:
        return self

    def __exit__(self, kind: type | None, *error: object) -> None:
        self._thread.shutdown(wait=kind is None, cancel_futures=True)

    def add(self, rows: np.ndarray, responses: np.ndarray, lengths: np.ndarray) -> None:
        """Rows that have ended, each told once: an `OnComplete`."""
        with self._lock:
            self._ended.append((rows, responses, lengths))
        self._calls.append(self._thread.submit(self._judge))

    def verdicts(self) -> Verdicts:
        """Waits for all of them. Raises what judging the first rows that failed has raised."""
        for call in self._calls:
            call.result()
        return self._found

    def _judge(self) -> None:
        with self._lock:
            ended, self._ended = self._ended, []
        if not ended or any(call.done() and call.exception() for call in tuple(self._calls)):
            return  # an earlier call has judged these, or has failed: that is what is raised
        with annotate("verify"):
            rows, responses, lengths = (np.concatenate(parts) for parts in zip(*ended, strict=True))
            said = texts(responses, lengths, self._assembly.decode)
            cut = truncated(responses, lengths, self._assembly.stop_tokens)
            verified = self._verify([self._problems[row] for row in rows], said, cut)
            measured = self._measure(said)
        found = self._found
        found.measured[rows] = measured
        for row, text in zip(rows, said, strict=True):
            found.responses[row] = text
        found.cut[rows], found.verified.rewards[rows], found.verified.late[rows] = cut, verified.rewards, verified.late
