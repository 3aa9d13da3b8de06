"""What runs in the processes of a worker: a keeper, and the process that verifies.

The keeper is started by a `VerifierPool`. It imports nothing of the user's and starts no thread, so it can fork a child
in milliseconds. The child imports the verifier and verifies. If the child misses a deadline or dies, the keeper kills
all that the child has started, forks another child, and tells the pool. If the pool is closed, or the trainer dies, the
keeper kills the child and ends.

Linux gives the keeper every process that the child has started, also one that has left the child's session
(PR_SET_CHILD_SUBREAPER). Elsewhere the keeper kills the process group of the child, which such a process has left.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import importlib
import multiprocessing
import multiprocessing.connection
import os
import pickle
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from prerl_jax.verify.batch import Verifier, VerifierError, judgements_of

START_UP = 300.0
"""Seconds in which a child must have imported the verifier."""
_LINUX = sys.platform == "linux"
_SET_PARENT_DEATH_SIGNAL, _SET_CHILD_SUBREAPER = 1, 36
"""Options of Linux's prctl."""
_DYING = 1.0
"""Seconds for a child that has closed its connection to end by itself, so that its exit status can be told."""
_KILLING = 10.0
"""Seconds until killed processes are given up: one that waits for a broken disk cannot be ended."""

Connection = multiprocessing.connection.Connection
Reply = tuple[str, Any]
"""("ready", None), ("judged", list[Judgement]), ("late", None), ("died", how) or ("failed", why)."""


@dataclasses.dataclass(frozen=True)
class WorkerSpec:
    """What a worker needs to know.

    Attributes:
        verifier: the pickled verifier.
        imports: modules that the keeper imports, for a quick start of each child.
        memory: GiB that the child may allocate.
        any_reward: whether numbers outside [0, 1] are accepted.
    """

    verifier: bytes
    imports: tuple[str, ...]
    memory: float
    any_reward: bool


class Request(NamedTuple):
    """A batch of responses to verify: (problems, responses), pickled, and the seconds for all of them."""

    to_verify: bytes
    timeout: float


class _LateError(Exception):
    """The deadline has passed."""


class _ClosedError(Exception):
    """The pool is closed, or the trainer is gone."""


def keep(pool: Connection, spec: WorkerSpec) -> None:
    """The keeper's main function: sends "ready", then a `Reply` to each `Request`.

    It ends after a reply "failed", or if the other end of `pool` is closed.
    """
    os.setsid()  # Ctrl-C reaches the trainer alone
    if _LINUX:
        _prctl(_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGALRM, _raise_late)
    for module in spec.imports:
        with contextlib.suppress(ImportError):  # the child will say so
            importlib.import_module(module)
    request: Request | None = None
    said_ready = False
    with contextlib.suppress(EOFError, ConnectionError, _ClosedError):  # the pool is closed, or the trainer is gone
        while True:
            child = _Child(pool, spec)
            try:
                reply = child.reply(None, START_UP)
                if reply[0] != "ready" or not said_ready:
                    pool.send(reply)
                    said_ready = True
                if reply[0] != "ready":
                    return
                request = _serve(pool, child, request)
            finally:
                child.kill()


def _serve(pool: Connection, child: _Child, request: Request | None) -> Request | None:
    """Answers requests until the child has ended. Returns the request that came after its end, if there is one.

    Args:
        pool: where requests come from.
        child: verifies.
        request: the first request, which another child has left; None if there is none.
    """
    while True:
        if request is None:
            request = pool.recv()
            if child.ended():  # while it waited, so not because of this request
                return request
        reply = child.reply(request.to_verify, request.timeout)
        request = None
        if reply[0] != "judged":
            child.kill()
        pool.send(reply)
        if reply[0] != "judged":
            return None


class _Child:
    """A process that verifies.

    Attributes:
        pid: its id.
        status: how it ended, as `os.waitpid` says; None while it runs.
    """

    def __init__(self, pool: Connection, spec: WorkerSpec):
        self._pool = pool
        self._connection, theirs = multiprocessing.Pipe()
        self.status: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            try:
                pool.close()
                self._connection.close()
                _verify(theirs, spec)
            finally:
                os._exit(1)
        theirs.close()

    def reply(self, to_verify: bytes | None, timeout: float) -> Reply:
        """The child's reply to a request, or its first message for None. Raises _ClosedError if the pool is closed."""
        try:
            with _deadline(timeout):
                if to_verify is not None:
                    self._connection.send_bytes(to_verify)
                self._wait()
                reply: Reply = pickle.loads(self._connection.recv_bytes())
                return reply
        except _LateError:
            return "late", None
        except (EOFError, ConnectionError):
            return "died", self._how() + ("" if to_verify else ", before it had imported its verifier")

    def _wait(self) -> None:
        """Waits for a message of the child. Raises _ClosedError if the pool is closed, or the trainer is gone."""
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        poll.register(self._pool, 0)  # its end only: the next request may wait in it
        if self._pool.fileno() in dict(poll.poll()):
            raise _ClosedError

    def ended(self) -> bool:
        """Whether it has ended. Also takes leave of processes that it has left behind and that have ended."""
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == self.pid:
                    self.status = found[1]
        return self.status is not None

    def _how(self) -> str:
        until = time.monotonic() + _DYING
        while not self.ended() and time.monotonic() < until:
            time.sleep(0.001)
        if self.status is None:
            return "closed its connection"
        code = os.waitstatus_to_exitcode(self.status)
        return f"ended with exit code {code}" if code >= 0 else f"was ended by signal {-code}"

    def kill(self) -> None:
        """Ends it, and all that it has started."""
        self._connection.close()
        until = time.monotonic() + _KILLING
        while time.monotonic() < until:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            for pid in _descendants(os.getpid()):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            self.ended()
            if not _has_children():
                return
            time.sleep(0.001)


def _verify(keeper: Connection, spec: WorkerSpec) -> None:
    """The child's main function."""
    me = os.getpid()
    verifier: Verifier | None = None
    reply: Reply = "ready", None
    while reply[0] in ("ready", "judged"):
        try:
            if verifier is None:
                _prepare(spec.memory)
                verifier = pickle.loads(spec.verifier)
            else:
                problems, responses = pickle.loads(keeper.recv_bytes())
                reply = "judged", judgements_of(verifier, problems, responses, spec.any_reward)
        except MemoryError:
            reply = "died", f"ran out of its {spec.memory:g} GiB of memory"
        except VerifierError as error:
            reply = "failed", str(error)
        except Exception:
            reply = "failed", f"a worker could not import its verifier, or read a response:\n{traceback.format_exc()}"
        if os.getpid() != me:  # a fork that the verifier has made came back here
            return
        keeper.send_bytes(pickle.dumps(reply))


def _prepare(memory: float) -> None:
    """A session of its own, no input, no output, no core dump; on Linux, a limit on memory."""
    os.setsid()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(nothing, standard)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not _LINUX:
        return
    _prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    with contextlib.suppress(OSError):  # some containers forbid it
        Path("/proc/self/oom_score_adj").write_text("1000")  # a full machine ends this process first
    status = Path("/proc/self/status").read_text()
    used = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData:"))
    limit, hard = used + int(memory * 2**30), resource.getrlimit(resource.RLIMIT_DATA)[1]
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


@contextlib.contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Raises _LateError in the block after so many seconds."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _raise_late(*_: object) -> None:
    raise _LateError


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _has_children() -> bool:
    """Whether this process has children, which may have ended."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _descendants(ancestor: int) -> list[int]:
    """The children of a process, their children, and so on; nothing where there is no /proc."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(path.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    found = list(children.get(ancestor, []))
    for pid in found:  # the list grows
        found += children.get(pid, [])
    return found
