"""Verification in processes of its own, with a deadline for every response that nothing can put off.

A user's function may hang on a response that a policy came up with: an endless loop, a regular expression that goes
back and forth, C code that never returns to Python. So it runs in worker processes, one response at a time; a worker
that is late is killed with all it started, and replaced. Its response gets 0, and is counted as late. What a function
raises, and a worker that dies by itself, end the run: a reward that is silently 0 would train the model on it.

Workers are spawned, not forked (a fork of a process with JAX's threads may hang), and import the verifier's module
anew; they never use an accelerator. A deadline begins when a worker that is ready is handed a response.
"""

from __future__ import annotations

import contextlib
import dataclasses
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
from prerl_jax.verify.batch import Verifier, checked, require_same_length, verify_all

START_UP = 300.0
"""Seconds that a worker may take to import the verifier."""
CLOSED = "this verification has been closed."


class VerifierError(RuntimeError):
    """A verifier failed in its worker; the message has its traceback, or how its process ended."""


@dataclasses.dataclass(frozen=True)
class Verified:
    """The verdicts on B responses."""

    rewards: np.ndarray
    """f32[B] in [0, 1]; 0 where truncated or late."""
    late: np.ndarray
    """bool[B]: verification was ended at its deadline."""


class InProcessVerifier:
    """Verification in this process, without a deadline: for verifiers that are linear in the response's length.

    A run calls it on a thread, one call at a time; a verifier that must be on the main one (`signal.alarm`) takes a
    `Pool`, where it is.
    """

    def __init__(self, verifier: Verifier):
        self._verifier, self._closed = verifier, False

    def __call__(self, problems: Sequence[Problem], responses: Sequence[str], truncated: Sequence[bool]) -> Verified:
        """The verdicts, as `verify_all`; ValueError when it is closed, in the middle of a call, too."""
        rewards = verify_all(self._verifier, problems, responses, truncated, self._check_open)
        return Verified(rewards, np.zeros(len(rewards), bool))

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(CLOSED)

    def close(self) -> None:
        """A call that is under way on another thread ends with the response that it is at."""
        self._closed = True


class _Worker:
    """One process, and what it is doing."""

    def __init__(self, verifier: Verifier, timeout: float):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._timeout = timeout
        self.row: int | None = None
        """The response it has."""
        self.until: float | None = time.monotonic() + START_UP
        """When it must have answered; None while it waits for work."""
        arguments = theirs, verifier, timeout
        self.process = context.Process(target=_work, args=arguments, name="verifier", daemon=True)
        with _without_accelerator():
            self.process.start()
        theirs.close()

    def ask(self, row: int, problem: Problem, response: str) -> None:
        self.connection.send((problem, response))
        self.row, self.until = row, time.monotonic() + self._timeout

    def kill(self) -> None:
        """Ends the process and what it started, whatever they are doing."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()
        self.connection.close()


class Pool:
    """Verification in `workers` processes, `timeout` seconds a response. Threads may take turns in calling it.

    Raises:
        ValueError: fewer than one worker, no time, or a verifier that cannot be handed to another process.
    """

    def __init__(self, verifier: Verifier, workers: int, timeout: float):
        if workers < 1 or not timeout > 0:
            raise ValueError(f"a pool has 1 worker or more and a timeout above 0, got {workers} and {timeout}.")
        self._verifier, self._timeout = verifier, timeout
        self._turn, self._changing = threading.Lock(), threading.Lock()
        self._workers: list[_Worker] = []
        try:
            for _ in range(workers):
                self._workers.append(_Worker(verifier, timeout))
        except (AttributeError, TypeError, ValueError, ImportError) as error:  # what pickle raises
            self.close()
            raise ValueError(
                f"{verifier} cannot be handed to another process ({error}); make it a frozen dataclass of plain values "
                "in a module that Python can import, or set data.verify_workers=0."
            ) from error

    def __call__(self, problems: Sequence[Problem], responses: Sequence[str], truncated: Sequence[bool]) -> Verified:
        """The verdicts on B responses; a truncated one gets 0 whatever it contains, and is not verified.

        Raises:
            ValueError: lengths differ, or the pool is closed.
            VerifierError: the verifier raised something, gave no number in [0, 1], or ended its process. The pool is
                closed then.
        """
        require_same_length(problems, responses, truncated)
        with self._turn:
            if not self._workers:
                raise ValueError(CLOSED)
            try:
                return self._verify(problems, responses, truncated)
            except BaseException:
                self.close()
                raise

    def _verify(self, problems: Sequence[Problem], responses: Sequence[str], truncated: Sequence[bool]) -> Verified:
        verified = Verified(np.zeros(len(problems), np.float32), np.zeros(len(problems), bool))
        waiting = deque(row for row in range(len(problems)) if not truncated[row])
        while waiting or any(worker.row is not None for worker in self._workers):
            self._check_open()
            for index, worker in enumerate(self._workers):
                if worker.until is None and waiting:
                    row = waiting.popleft()
                    try:
                        worker.ask(row, problems[row], responses[row])
                    except OSError:  # it died while it waited: nothing of this verifier's
                        waiting.appendleft(row)
                        self._replace(index)
            for worker in self._answered():
                row, answer = worker.row, self._answer(worker, problems)
                worker.row = worker.until = None
                if row is not None:
                    verified.rewards[row] = answer
            for index, worker in enumerate(self._workers):
                if worker.until is not None and time.monotonic() >= worker.until:
                    if worker.row is None:
                        raise VerifierError(f"a worker has not imported {self._verifier} after {START_UP:.0f} s.")
                    verified.late[worker.row] = True
                    self._replace(index)
        self._check_open()
        return verified

    def _check_open(self) -> None:
        if not self._workers:
            raise ValueError(CLOSED)

    def _answered(self) -> list[_Worker]:
        """The workers that have answered or died, once there is one or a deadline is over."""
        busy = {worker.connection: worker for worker in self._workers if worker.until is not None}
        left = min(worker.until for worker in busy.values()) - time.monotonic()
        return [busy[connection] for connection in multiprocessing.connection.wait(busy, timeout=max(0.0, left))]

    def _answer(self, worker: _Worker, problems: Sequence[Problem]) -> float:
        about = "at its start" if worker.row is None else f"on {problems[worker.row]}"
        try:
            kind, value = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join(10)
            code = worker.process.exitcode
            raise VerifierError(f"a process of {self._verifier} ended {about}, with exit code {code}.") from None
        if kind == "raised":
            raise VerifierError(f"{self._verifier} failed {about}:\n{value}")
        return value

    def _replace(self, index: int) -> None:
        with self._changing:
            self._check_open()
            self._workers[index].kill()
            self._workers[index] = _Worker(self._verifier, self._timeout)

    def close(self) -> None:
        """Ends the workers, and with an error a call that is under way on another thread."""
        with self._changing:
            while self._workers:
                self._workers.pop().kill()


@contextlib.contextmanager
def open_verifier(verifier: Verifier, workers: int = 0, timeout: float = 10.0) -> Iterator[Pool | InProcessVerifier]:
    """(problems, responses, truncated) -> Verified, in this process for no workers, else in a `Pool`."""
    verify = Pool(verifier, workers, timeout) if workers else InProcessVerifier(verifier)
    try:
        yield verify
    finally:
        verify.close()


@contextlib.contextmanager
def _without_accelerator() -> Iterator[None]:
    """What is started here imports JAX for the CPU: an accelerator belongs to one process."""
    before = os.environ.get("JAX_PLATFORMS")
    os.environ["JAX_PLATFORMS"] = "cpu"
    try:
        yield
    finally:
        if before is None:
            del os.environ["JAX_PLATFORMS"]
        else:
            os.environ["JAX_PLATFORMS"] = before


def _work(connection: Any, verifier: Verifier, timeout: float) -> None:
    """The worker: answers until the pool is gone."""
    os.setsid()  # so that it can be killed with what it starts, and Ctrl-C is the trainer's alone
    connection.send(("ready", 0.0))
    while True:
        try:
            problem, response = connection.recv()
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_REAL, 2 * timeout + 10)  # ends it, should the trainer be killed meanwhile
        try:
            answer = "reward", checked(verifier(problem, response), verifier, problem)
        except Exception:
            answer = "raised", traceback.format_exc()
        signal.setitimer(signal.ITIMER_REAL, 0)
        connection.send(answer)
