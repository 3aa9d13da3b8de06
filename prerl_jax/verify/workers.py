"""Verification in worker processes, with a hard deadline and a limit on memory.

A verifier may hang on a response of a policy: in an endless loop, in a regular expression with catastrophic
backtracking, or in C code that never returns to Python. It may take all the memory, or crash. So it runs in worker
processes, one response at a time, or one batch at a time. What happens to a response is one of three things.

- The worker answers in time: the verdict is right, wrong or unknown, as the verifier says.
- The worker misses its deadline, dies, or runs out of its memory: the verdict is unknown. The worker is killed with all
  that it has started and is replaced, and the others go on.
- The verifier raises an exception, or returns what is no judgement: the run ends. A reward that is silently 0 would
  train the model on it.

A worker is a keeper and its child, see `worker_process`. Keepers are spawned, not forked, since a fork of a process
with JAX's threads may hang. Workers never use an accelerator. What they print is thrown away, and their input is empty.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import pickle
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np

from prerl_jax.data.problems import Problem
from prerl_jax.verify.batch import Verifier, VerifierError, on, require_same_length, traits_of
from prerl_jax.verify.batches import batches, deadlines
from prerl_jax.verify.in_process import CLOSED
from prerl_jax.verify.judgement import UNKNOWN, Judgement, Verified, truncated_judgement
from prerl_jax.verify.worker_process import START_UP, Reply, Request, WorkerSpec, keep

GRACE = 360.0
"""Seconds after a deadline in which a keeper must have killed a child, started another one, and answered."""


class _Worker:
    """A worker, as the pool sees it.

    Attributes:
      connection: the pipe to its keeper.
      pid: the keeper's process id.
      ready: whether its child has imported the verifier.
      rows: the responses that it verifies; empty for none.
      deadline: `time.monotonic` when its keeper must have answered; None while it waits for work.
      lost: whether its keeper has died, or has missed the deadline.
    """

    def __init__(self, spec: WorkerSpec):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.ready, self.lost = False, False
        self.rows: list[int] = []
        self.deadline: float | None = time.monotonic() + START_UP
        self._process = context.Process(target=keep, args=(theirs, spec), name="verifier", daemon=True)
        with _without_accelerator():
            self._process.start()
        theirs.close()
        assert self._process.pid is not None  # it has been started
        self.pid: int = self._process.pid

    def verify(self, rows: list[int], problems: Sequence[Problem], responses: Sequence[str], timeout: float) -> None:
        """Sends it these responses, and the seconds for all of them. Raises OSError if the keeper has died."""
        to_verify = pickle.dumps(([problems[row] for row in rows], [responses[row] for row in rows]))
        self.connection.send(Request(to_verify, timeout))
        self.rows, self.deadline = rows, time.monotonic() + timeout + GRACE

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return float("inf") if self.deadline is None else self.deadline - time.monotonic()

    def reply(self) -> Reply:
        """What the keeper has sent. If it has died, or missed its deadline, the worker is lost."""
        try:
            if self.connection.poll():
                reply: Reply = self.connection.recv()
                return reply
        except (EOFError, OSError):
            self.lost = True
            self._process.join(10)
            return "died", f"ended with exit code {self._process.exitcode}"
        self.lost = True
        return "late", None

    def kill(self) -> None:
        """Ends it and all that it has started."""
        self.connection.close()  # the keeper sees it, and ends its child
        if self.ready:
            self._process.join(20)
        self._process.kill()
        self._process.join()


class VerifierPool:
    """Verifies in worker processes with a deadline. Several threads may call it; their calls take turns.

    Args:
      verifier: verifies responses; it must be picklable.
      workers: processes, 1 or more.
      timeout: seconds for one response, or for one batch of a `BatchVerifier`, above 0; see `deadlines`.
      memory: GiB of private memory that each process of a worker may allocate beyond what it has at its start, above 0.
        Only Linux enforces it (RLIMIT_DATA).
      any_reward: whether rewards outside [0, 1] are accepted from a verifier that states no verdict, see `judged`.
      truncated_reward: the reward of a truncated response.

    Raises ValueError for no worker, no time, no memory, or a verifier that cannot be pickled.
    """

    def __init__(
        self,
        verifier: Verifier,
        workers: int,
        timeout: float,
        *,
        memory: float = 4.0,
        any_reward: bool = False,
        truncated_reward: float = 0.0,
    ):
        if workers < 1 or not 0 < timeout < float("inf") or not 0 < memory < float("inf"):
            raise ValueError(
                "VerifierPool needs 1 worker or more, and a finite timeout and memory above 0; "
                f"got {workers}, {timeout} and {memory}."
            )
        try:
            pickled = pickle.dumps(verifier)
        except Exception as error:
            raise ValueError(
                f"{verifier} cannot be sent to another process ({error}); make it a frozen dataclass of plain values "
                "in a module that Python can import, or set data.verify_workers=0."
            ) from error
        self._verifier, self._timeout = verifier, timeout
        self._spec = WorkerSpec(pickled, traits_of(verifier).imports, memory, any_reward)
        self._truncated = truncated_judgement(truncated_reward)
        self._turn, self._changing = threading.Lock(), threading.Lock()
        self._workers = [_Worker(self._spec) for _ in range(workers)]

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers' keepers; empty once it is closed."""
        return [worker.pid for worker in self._workers]

    def __call__(self, problems: Sequence[Problem], responses: Sequence[str], truncated: Sequence[bool]) -> Verified:
        """The verdicts on B responses. A truncated one is wrong whatever it contains, and is not verified.

        Raises:
          ValueError: lengths differ, or the pool is closed.
          VerifierError: the verifier could not be imported, raised an exception, or returned what is no judgement. The
            pool is closed then.
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
        judgements = [self._truncated if cut else UNKNOWN for cut in truncated]
        to_verify = batches(self._verifier, problems, [row for row, cut in enumerate(truncated) if not cut])
        call = _Call(problems, responses, deque(to_verify), judgements, np.zeros(len(problems), bool))
        while call.waiting or any(worker.rows for worker in self._workers):
            self._check_open()
            self._send(call)
            for worker in _answered(self._workers):
                self._receive(worker, call)
        self._check_open()
        return Verified(call.judgements, call.timed_out, tuple(call.deaths))

    def _send(self, call: _Call) -> None:
        """Gives work to the workers that wait for it."""
        for worker in list(self._workers):
            if worker.deadline is None and call.waiting:
                rows = call.waiting.popleft()
                timeout = self._timeout * deadlines(self._verifier, [call.problems[row] for row in rows])
                try:
                    worker.verify(rows, call.problems, call.responses, timeout)
                except OSError:  # it died while it waited: not because of these responses, unless it happens again
                    self._replace(worker)
                    if rows[0] not in call.sent_in_vain:
                        call.sent_in_vain.add(rows[0])
                        call.waiting.appendleft(rows)

    def _receive(self, worker: _Worker, call: _Call) -> None:
        """Takes a worker's reply, and replaces a worker whose keeper has died, or does not answer."""
        (kind, value), rows = worker.reply(), worker.rows
        if kind == "failed":
            raise VerifierError(value)
        if kind != "ready" and not worker.ready:
            how = value or f"has not imported its verifier after {START_UP:.0f} s"
            raise VerifierError(f"a worker of {self._verifier} {how}.")
        worker.ready, worker.rows, worker.deadline = True, [], None
        if kind == "judged":
            for row, judgement in zip(rows, value, strict=True):
                call.judgements[row] = judgement
        elif kind == "late":
            call.timed_out[rows] = True
        elif kind == "died":
            call.deaths.append(f"a worker {value}{on([call.problems[row] for row in rows])}")
        if worker.lost:
            self._replace(worker)

    def _check_open(self) -> None:
        if not self._workers:
            raise ValueError(CLOSED)

    def _replace(self, worker: _Worker) -> None:
        with self._changing:
            self._check_open()
            worker.kill()
            self._workers[self._workers.index(worker)] = _Worker(self._spec)

    def close(self) -> None:
        """Ends the workers. A call on another thread ends with an error."""
        with self._changing:
            workers, self._workers = self._workers, []
            for worker in workers:
                worker.connection.close()
            for worker in workers:
                worker.kill()


@dataclasses.dataclass
class _Call:
    """A call of the pool.

    Attributes:
      problems: B.
      responses: B.
      waiting: the batches of rows that no worker has got yet.
      judgements: B, as far as they are known.
      timed_out: bool[B].
      deaths: how workers ended.
      sent_in_vain: the first rows of batches that have been sent to a dead worker.
    """

    problems: Sequence[Problem]
    responses: Sequence[str]
    waiting: deque[list[int]]
    judgements: list[Judgement]
    timed_out: np.ndarray
    deaths: list[str] = dataclasses.field(default_factory=list)
    sent_in_vain: set[int] = dataclasses.field(default_factory=set)


def _answered(workers: Sequence[_Worker]) -> list[_Worker]:
    """The workers that have answered, died, or missed their deadlines. Waits until there is one."""
    busy = {worker.connection: worker for worker in workers if worker.deadline is not None}
    left = min(worker.left for worker in busy.values())
    ready = multiprocessing.connection.wait(list(busy), timeout=max(0.0, left))
    return [worker for connection, worker in busy.items() if connection in ready or worker.left <= 0]


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
