"""Verification of sampled responses, in the background, while the device still decodes other responses.

A thread takes all rows that have completed since it last looked and verifies them together. A second thread measures
their texts after that, while the first one goes on. When sampling is over, most verdicts are known. The verdict on a
row depends on that row alone, so the result does not depend on the order in which rows complete.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from prerl_jax.data.problems import Problem
from prerl_jax.runtime.profile import annotate
from prerl_jax.runtime.row_share import ALONE, RowShare
from prerl_jax.verify import UNKNOWN, Verified

Verify = Callable[[Sequence[Problem], Sequence[str], Sequence[bool]], Verified]
"""(problems, responses as text, truncated) -> judgements and timeouts; see `verify.open_verifier`."""
Decode = Callable[[list[list[int]]], list[str]]
"""Token ids of several responses -> their texts."""
Measure = Callable[[Sequence[str]], np.ndarray]
"""B responses as text -> N numbers for each, f32[B, N]."""


@dataclasses.dataclass(frozen=True)
class Verdicts:
    """The results for B responses, in the order of the rows.

    Attributes:
      texts: the responses as text.
      truncated: bool[B], True where the response reached the length limit without a stop token.
      verified: what the verifier says of each response.
      measured: f32[B, N], the results of the `measure` function.
    """

    texts: list[str]
    truncated: np.ndarray
    verified: Verified
    measured: np.ndarray


def _nothing(texts: Sequence[str]) -> np.ndarray:
    return np.zeros((len(texts), 0), np.float32)


def _not_asked(problems: Sequence[Problem], texts: Sequence[str], truncated: Sequence[bool]) -> Verified:
    """What a process says of responses that another process of its row group verifies."""
    return Verified([UNKNOWN] * len(texts), np.zeros(len(texts), bool))


class Verification:
    """Verifies the responses to `problems` as they complete. A context manager: on exit, it cancels pending calls.

    Args:
      problems: the problem of every row.
      verify: verifies responses. It is called on a background thread, one call at a time.
      decode: turns token ids into text.
      stop_tokens: the tokens that end a response.
      measure: further numbers for each response. It is called on a thread of its own, for which no verdict waits.
      share: whose rows they are. Only the first process of a row group verifies and measures; see
        `sampling.await_verdicts`.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        verify: Verify,
        decode: Decode,
        stop_tokens: tuple[int, ...],
        measure: Measure = _nothing,
        share: RowShare = ALONE,
    ):
        rows = len(problems)
        verify, measure = (verify, measure) if share.leads else (_not_asked, _nothing)
        self._problems, self._verify, self._decode, self._measure = problems, verify, decode, measure
        self._stop_tokens, self.share = stop_tokens, share
        self._judgements = [UNKNOWN] * rows
        self._deaths: list[str] = []
        self._verdicts = Verdicts(
            texts=[""] * rows,
            truncated=np.zeros(rows, bool),
            verified=Verified(self._judgements, np.zeros(rows, bool)),
            measured=np.zeros((rows, measure([]).shape[1]), np.float32),
        )
        self._lock = threading.Lock()
        self._completed: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._calls: list[Future] = []
        self._thread = ThreadPoolExecutor(1, "verification")
        self._measured: list[Future] = []
        self._measuring = ThreadPoolExecutor(1, "measurement")

    def __enter__(self) -> Verification:
        return self

    def __exit__(self, *error: object) -> None:
        self.cancel()

    def add(self, rows: np.ndarray, responses: np.ndarray, lengths: np.ndarray) -> None:
        """Queues completed rows for verification, see `rollout.engine.OnComplete`. Add each row once."""
        with self._lock:
            self._completed.append((rows, responses, lengths))
        self._calls.append(self._thread.submit(self._verify_completed))

    def result(self) -> Verdicts:
        """Waits for the verdicts on all rows that were added, and for what is measured of them, and ends the threads.

        Raises the first error that a call of `verify` or `measure` has raised.
        """
        try:
            for call in self._calls:
                call.result()
            for call in self._measured:
                call.result()
            self._thread.shutdown()
            self._measuring.shutdown()
        finally:
            self.cancel()
        verified = dataclasses.replace(self._verdicts.verified, deaths=tuple(self._deaths))
        return dataclasses.replace(self._verdicts, verified=verified)

    def cancel(self) -> None:
        """Ends the threads without waiting for the calls that they are in. No further call begins."""
        for thread in (self._thread, self._measuring):
            thread.shutdown(wait=False, cancel_futures=True)

    def _verify_completed(self) -> None:
        with self._lock:
            completed, self._completed = self._completed, []
        # Nothing to do if an earlier call has verified these rows, or has failed.
        if not completed or any(call.done() and call.exception() for call in tuple(self._calls)):
            return
        with annotate("verify"):
            rows, responses, lengths = (np.concatenate(parts) for parts in zip(*completed, strict=True))
            found = self._verdicts
            texts = as_texts(responses, lengths, self._decode)
            truncated = is_truncated(responses, lengths, self._stop_tokens)
            verified = self._verify([self._problems[row] for row in rows], texts, truncated.tolist())
        if found.measured.size:
            self._measured.append(self._measuring.submit(self._measure_rows, rows, texts))
        for row, text, judgement in zip(rows, texts, verified.judgements, strict=True):
            found.texts[row], self._judgements[row] = text, judgement
        self._deaths += verified.deaths
        found.truncated[rows], found.verified.timed_out[rows] = truncated, verified.timed_out

    def _measure_rows(self, rows: np.ndarray, texts: list[str]) -> None:
        with annotate("measure"):
            self._verdicts.measured[rows] = self._measure(texts)


def is_truncated(responses: np.ndarray, lengths: np.ndarray, stop_tokens: tuple[int, ...]) -> np.ndarray:
    """bool[B]: whether each response i32[B, R] reached the length limit R without a stop token. Numpy.

    Args:
      responses: i32[B, R], right-padded.
      lengths: i64[B], the number of tokens of each response.
      stop_tokens: the tokens that end a response.
    """
    return (lengths == responses.shape[1]) & ~np.isin(responses[:, -1], stop_tokens)


def as_texts(responses: np.ndarray, lengths: np.ndarray, decode: Decode) -> list[str]:
    """The texts of responses i32[B, R] with these lengths i64[B]."""
    return decode([row[:length].tolist() for row, length in zip(responses, lengths, strict=True)])
