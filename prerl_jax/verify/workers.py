"""Verification in worker processes, with a hard deadline for every response.

A user's function may hang on a response of a policy: in an endless loop, in a regular expression with catastrophic
backtracking, or in C code that never returns to Python. So it runs in worker processes, one response at a time. A
worker that misses its deadline is killed with all the processes that it started, and is replaced; its response gets
reward 0 and is counted. An exception of the function, or a worker that dies by itself, ends the run: a reward that is
silently 0 would train the model on it.

Workers are spawned, not forked, since a fork of a process with JAX's threads may hang. They import the verifier's
module again and never use an accelerator. A deadline starts when a ready worker receives a response.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from prerl_jax.data.problems import Problem
from prerl_jax.verify.batch import TRUNCATED, Verifier, require_same_length, verify_all
from prerl_jax.verify.judgement import UNKNOWN, Judgement, Verified, judged

START_UP = 300.0
"""Seconds in which a worker must have imported the verifier."""
CLOSED = "this verifier has been closed."


class VerifierError(RuntimeError):
    """A verifier failed in its worker. The message has its traceback, or how its process ended."""


class InProcessVerifier:
    """Verifies in this process, without a deadline: for verifiers whose time is linear in the length of the response.

    A run calls it on a thread, one call at a time. A verifier that needs the main thread, such as by `signal.alarm`,
    needs a `VerifierPool`, whose workers call it there.
    """

    def __init__(self, verifier: Verifier):
        self._verifier, self._closed = verifier, False

    def __call__(self, problems: Sequence[Problem], responses: Sequence[str], truncated: Sequence[bool]) -> Verified:
        """The verdicts on B responses, see `verify_all`.

        Raises ValueError if it is closed, also in the middle of a call.
        """
        judgements = verify_all(self._verifier, problems, responses, truncated, self._check_open)
        return Verified(judgements, np.zeros(len(judgements), bool))

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(CLOSED)

    def close(self) -> None:
        """Ends a call on another thread after its current response."""
        self._closed = True


class _Worker:
    """One process and its work.

    Attributes:
      connection: the pipe to the process.
      process: the process.
      pid: its id.
      row: the response that it verifies; None for none.
      deadline: `time.monotonic` when it must have answered; None while it waits for work.
    """

    def __init__(self, verifier: Verifier, timeout: float):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._timeout = timeout
        self.row: int | None = None
        self.deadline: float | None = time.monotonic() + START_UP
        arguments = theirs, verifier, timeout
        self.process = context.Process(target=_serve, args=arguments, name="verifier", daemon=True)
        with _without_accelerator():
            self.process.start()
        theirs.close()
        assert self.process.pid is not None  # it has been started
        self.pid: int = self.process.pid

    def verify(self, row: int, problem: Problem, response: str) -> None:
        """Sends it a response. Raises OSError if the process has died."""
        self.connection.send((problem, response))
        self.row, self.deadline = row, time.monotonic() + self._timeout

    def kill(self) -> None:
        """Ends the process and all that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()
        self.connection.close()


class VerifierPool:
    """Verifies in worker processes with a deadline. Several threads may call it; their calls take turns.

    Args:
      verifier: verifies one response; it must be picklable.
      workers: processes, 1 or more.
      timeout: seconds for one response, above 0.

    Raises ValueError for no worker, no time, or a verifier that cannot be pickled.
    """

    def __init__(self, verifier: Verifier, workers: int, timeout: float):
        if workers < 1 or not timeout > 0:
            raise ValueError(f"VerifierPool needs 1 worker or more and a timeout above 0, got {workers} and {timeout}.")
        self._verifier, self._timeout = verifier, timeout
        self._turn, self._changing = threading.Lock(), threading.Lock()
        self._workers: list[_Worker] = []
        try:
            for _ in range(workers):
                self._workers.append(_Worker(verifier, timeout))
        except (AttributeError, TypeError, ValueError, ImportError) as error:  # what pickle raises
            self.close()
            raise ValueError(
                f"{verifier} cannot be sent to another process ({error}); make it a frozen dataclass of plain values "
                "in a module that Python can import, or set data.verify_workers=0."
            ) from error

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers; empty once it is closed."""
        return [worker.pid for worker in self._workers]

    def __call__(self, problems: Sequence[Problem], responses: Sequence[str], truncated: Sequence[bool]) -> Verified:
        """The verdicts on B responses. A truncated one gets 0 whatever it contains, and is not verified.

        Raises:
          ValueError: lengths differ, or the pool is closed.
          VerifierError: the verifier raised an exception, returned no number in [0, 1], or ended its process. The pool
            is closed then.
        """
        require_same_length(problems, responses, truncated)
        with self._turn:
            self._check_open()
            try:
                return self._verify(problems, responses, truncated)
            except BaseException:
                self.close()
                raise

    def _verify(self, problems: Sequence[Problem], responses: Sequence[str], truncated: Sequence[bool]) -> Verified:
        judgements = [TRUNCATED if cut else UNKNOWN for cut in truncated]
        timed_out = np.zeros(len(problems), bool)
        waiting = deque(row for row in range(len(problems)) if not truncated[row])
        while waiting or any(worker.row is not None for worker in self._workers):
            self._check_open()
            for index, worker in enumerate(self._workers):
                if worker.deadline is None and waiting:
                    row = waiting.popleft()
                    try:
                        worker.verify(row, problems[row], responses[row])
                    except OSError:  # it died while it waited: not because of this response
                        waiting.appendleft(row)
                        self._replace(index)
            for worker in self._answered():
                answered, judgement = worker.row, self._answer(worker, problems)
                worker.row = worker.deadline = None
                if answered is not None:
                    judgements[answered] = judgement
            for index, worker in enumerate(self._workers):
                if worker.deadline is not None and time.monotonic() >= worker.deadline:
                    if worker.row is None:
                        raise VerifierError(f"a worker has not imported {self._verifier} after {START_UP:.0f} s.")
                    timed_out[worker.row] = True
                    self._replace(index)
        self._check_open()
        return Verified(judgements, timed_out)

    def _check_open(self) -> None:
        if not self._workers:
            raise ValueError(CLOSED)

    def _answered(self) -> list[_Worker]:
        """The workers that have answered or died. Waits until there is one, or until the next deadline."""
        busy = {worker.connection: worker for worker in self._workers if worker.deadline is not None}
        left = min(deadline for worker in busy.values() if (deadline := worker.deadline) is not None) - time.monotonic()
        ready = multiprocessing.connection.wait(list(busy), timeout=max(0.0, left))
        return [worker for connection, worker in busy.items() if connection in ready]

    def _answer(self, worker: _Worker, problems: Sequence[Problem]) -> Judgement:
        """The judgement that a worker sent; UNKNOWN for its first message, which says that it is ready."""
        where = "at its start" if worker.row is None else f"on {problems[worker.row]}"
        try:
            kind, value = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join(10)
            code = worker.process.exitcode
            raise VerifierError(f"a process of {self._verifier} ended {where}, with exit code {code}.") from None
        if kind == "raised":
            raise VerifierError(f"{self._verifier} failed {where}:\n{value}")
        return value

    def _replace(self, index: int) -> None:
        with self._changing:
            self._check_open()
            self._workers[index].kill()
            self._workers[index] = _Worker(self._verifier, self._timeout)

    def close(self) -> None:
        """Ends the workers. A call on another thread ends with an error."""
        with self._changing:
            while self._workers:
                self._workers.pop().kill()


@contextlib.contextmanager
def open_verifier(
    verifier: Verifier, workers: int = 0, timeout: float = 10.0
) -> Iterator[VerifierPool | InProcessVerifier]:
    """A verifier of batches, closed at the end: (problems, responses, truncated) -> `Verified`.

    Args:
      verifier: verifies one response.
      workers: processes; 0 verifies in this process, without a deadline.
      timeout: seconds that a worker has for one response.
    """
    verify = VerifierPool(verifier, workers, timeout) if workers else InProcessVerifier(verifier)
    try:
        yield verify
    finally:
        verify.close()


@contextlib.contextmanager
def _without_accelerator() -> Iterator[None]:
    """Processes started here import JAX for the CPU, since an accelerator belongs to one process."""
    before = os.environ.get("JAX_PLATFORMS")
    os.environ["JAX_PLATFORMS"] = "cpu"
    try:
        yield
    finally:
        if before is None:
            del os.environ["JAX_PLATFORMS"]
        else:
            os.environ["JAX_PLATFORMS"] = before


def _serve(connection: Any, verifier: Verifier, timeout: float) -> None:
    """A worker's main function: answers until the pool is gone."""
    os.setsid()  # it can be killed with what it starts, and Ctrl-C reaches the trainer alone
    connection.send(("ready", UNKNOWN))
    while True:
        try:
            problem, response = connection.recv()
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_REAL, 2 * timeout + 10)  # ends the worker if the trainer is killed meanwhile
        answer: tuple[str, Judgement | str]
        try:
            answer = "judged", judged(verifier(problem, response), verifier, problem)
        except Exception:
            answer = "raised", traceback.format_exc()
        signal.setitimer(signal.ITIMER_REAL, 0)
        connection.send(answer)
