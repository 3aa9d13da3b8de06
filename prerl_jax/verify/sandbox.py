"""A sandbox for programs that a policy writes. docs/code.md says what it stops, and what it does not.

Linux isolates the program, through the programs of util-linux: `unshare` makes namespaces for users, processes, mounts,
network and IPC, `mount` and `pivot_root` make a root folder that holds the Python installation and nothing else. The
program's own process, `sandbox_inside`, then gives itself limits that it cannot raise and a filter of system calls.

    here: Sandbox.run
      unshare                the parent of the box; it is killed with this process, and the box is killed with it
        sh                   process 1 of the box; it waits for the program, and the whole box ends with it
          sandbox_inside.py  the program, as an unprivileged user in a user namespace of its own
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import os
import platform
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from prerl_jax.verify import sandbox_inside
from prerl_jax.verify.processor_time import starved, used_by, waited_for

Isolation = Literal["namespaces", "none"]
End = Literal["exit", "deadline", "output"]
Call = tuple[str, Sequence[Any]]
"""A function's name and its arguments, which JSON can write."""

MIB = 2**20
KERNEL = (5, 14)
"""The first Linux that counts the processes of each user namespace by itself."""
TOOLS = "/usr/sbin:/usr/bin:/sbin:/bin"
NEEDED = ("sh", "mkdir", "mount", "umount", "pivot_root", "setpriv", "env", "unshare")
BOX = """
set -ef
root=$1 disk=$2 user=$3 readable=$4; shift 4
echo 1000 > /proc/self/oom_score_adj
mount -t tmpfs -o mode=755,size=1m,nosuid,nodev outside "$root"
mkdir "$root/old" "$root/box" "$root/box/work"
for path in /bin /sbin /lib /lib64 /usr /proc; do
    if [ -d "$path" ]; then mkdir "$root$path"; mount -o rbind,ro "$path" "$root$path"; fi
done
IFS=:
for path in $readable; do
    if [ -d "$path" ]; then mkdir -p "$root/box$path"; else mkdir -p "$root/box${path%/*}"; : > "$root/box$path"; fi
    mount -o rbind,ro,nosuid "$path" "$root/box$path"
done
mount -t tmpfs -o "mode=777,size=$disk,nr_inodes=1000,nosuid,nodev,noexec" work "$root/box/work"
mount -o remount,bind,ro,nosuid,nodev "$root"
cd "$root"
pivot_root . old
umount -l /old
umount -l /proc
IFS=' '
setpriv $user --no-new-privs env -i unshare --user --root=/box --wd=/work "$@"
exit $?
"""
"""Process 1 of the box. The programs that it calls lie in a root of its own; the program sees /box alone. Nobody can
make a user namespace below a changed root, so the program cannot get one in which it has privileges."""


class SandboxError(RuntimeError):
    """The sandbox itself failed, or this machine has none. It says nothing about the program."""


class IsolationError(SandboxError, ValueError):
    """This machine cannot isolate programs, so no problem with tests can be verified."""


@dataclasses.dataclass(frozen=True)
class Run:
    """How a program ended.

    Attributes:
        output: what it wrote to its standard output; for calls, a line of JSON for each, empty where a call failed.
        end: "exit": by itself or by a limit on its CPU time or memory; "deadline" and "output": it was killed since it
            took too long, or wrote too much.
        status: its exit status, 128 + the signal if a signal ended it; None where it was killed.
    """

    output: bytes
    end: End
    status: int | None


@dataclasses.dataclass(frozen=True)
class Sandbox:
    """Runs Python programs that nobody has read, with limits.

    All memory that a program can hold is about `processes * memory` + `disk`.

    Attributes:
        cpu: seconds of CPU time for each process of the program, 1 or more.
        wall: seconds from its start to its end, at least `2 * cpu`: a program that sleeps uses no CPU time.
        memory: GiB of address space for each process of the program, above 0.
        processes: processes and threads that the program may have at once, its own included.
        disk: MiB that its working folder and one file may hold. The folder is empty at first, and lost at the end.
        output: MiB that it may write to its standard output.
        isolation: "namespaces"; or "none", for programs that you trust as you trust your own: the limits on CPU time,
            memory, files and output, no environment and no descriptors, but it sees the files, processes and network
            that you see, and can start processes that outlive it.

    Raises ValueError for a limit that is out of range, or another isolation.
    """

    cpu: int = 4
    wall: float = 8.0
    memory: float = 1.0
    processes: int = 8
    disk: int = 16
    output: int = 1
    isolation: Isolation = "namespaces"

    def __post_init__(self) -> None:
        for name in ("cpu", "processes", "disk", "output"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"Sandbox.{name} must be a whole number, 1 or more, got {value!r}.")
        if not 2 * self.cpu <= self.wall < math.inf:
            raise ValueError(f"Sandbox.wall must be at least 2 * Sandbox.cpu = {2 * self.cpu} s, got {self.wall} s.")
        if not 0 < self.memory < math.inf:
            raise ValueError(f"Sandbox.memory must be a number above 0, got {self.memory} GiB.")
        if self.isolation not in get_args(Isolation):
            raise ValueError(f"Sandbox.isolation must be one of {get_args(Isolation)}, got {self.isolation!r}.")

    def require(self) -> None:
        """Makes sure that this machine can isolate a program, by isolating one; once in each process.

        Raises IsolationError, with the reason, if it cannot.
        """
        reason = _unavailable(self)
        if reason:
            raise IsolationError(
                f"this machine cannot isolate programs: {reason}. Run on Linux where this user may make namespaces "
                "(docs/code.md says how), or, for programs that you trust as you trust your own, choose "
                'Sandbox(isolation="none").'
            )

    def run(self, program: str, stdin: str = "", calls: Sequence[Call] | None = None) -> Run:
        """Runs a program, or calls its functions.

        Args:
            program: Python code.
            stdin: its standard input.
            calls: None runs it as `__main__`. Calls run it as a module, and then each function in this order; a name
                "Class.method" makes an instance, without arguments, for each call. What it prints is dropped.

        Raises SandboxError if the sandbox itself failed.
        """
        isolated = self.isolation == "namespaces"
        request = json.dumps(
            {"program": program, "stdin": stdin, "calls": calls, "limits": self._limits(), "filter": isolated}
        )
        try:
            with (
                tempfile.TemporaryDirectory(prefix="sandbox-", ignore_cleanup_errors=True) as folder,
                tempfile.TemporaryFile() as sent,
                tempfile.TemporaryFile() as errors,
            ):
                sent.write(request.encode())
                sent.seek(0)
                ended = self._supervise(folder, sent, errors)
                errors.seek(0)
                complaint = errors.read(4000).decode(errors="replace").strip()
        except OSError as error:
            raise SandboxError(f"cannot start a program: {error}") from error
        if not ended.output.startswith(sandbox_inside.STARTED):
            raise SandboxError(complaint or f"no program began: {ended}")
        return dataclasses.replace(ended, output=ended.output.removeprefix(sandbox_inside.STARTED))

    def _limits(self) -> dict[str, int]:
        """Names of the module `resource`, and what the program sets them to."""
        memory = int(self.memory * 2**30)
        limits = {"CPU": self.cpu, "FSIZE": self.disk * MIB, "NOFILE": 32, "CORE": 0}
        if sys.platform == "linux":  # macOS refuses a limit on the address space
            limits |= {"AS": memory, "MSGQUEUE": 0, "MEMLOCK": 0}
        if self.isolation == "namespaces":  # elsewhere all processes of the user count
            limits["NPROC"] = self.processes
        return limits

    def _command(self, folder: str) -> list[str]:
        inside = [_python(), "-I", "-S", "-X", "utf8", "-c", Path(sandbox_inside.__file__).read_text("utf-8")]
        if self.isolation == "none":
            return inside
        as_root = os.geteuid() == 0
        user = "--reuid=65534 --regid=65534 --clear-groups" if as_root else ""
        readable = ":".join(path for path in _readable() if os.path.exists(path))
        return [
            *([] if as_root else ["unshare", "--user", "--map-root-user"]),
            *("setpriv", "--pdeathsig", "KILL"),
            *("unshare", "--mount", "--pid", "--net", "--ipc", "--fork", "--kill-child"),
            *("sh", "-c", BOX, "sh", folder, f"{self.disk}m", user, readable, *inside),
        ]

    def _supervise(self, folder: str, sent: Any, errors: Any) -> Run:
        """Runs the command until it ends, takes too long or writes too much. Nothing of it is left."""
        process = subprocess.Popen(
            self._command(folder),
            stdin=sent,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={"PATH": TOOLS},
            cwd=folder,
            start_new_session=True,
        )
        deadline = time.monotonic() + self.wall
        assert process.stdout is not None  # it is a pipe
        try:
            output, end = _read(process.stdout.fileno(), self.output * MIB, deadline)
            if end == "exit":
                try:
                    status = process.wait(max(0.0, deadline - time.monotonic()))
                    return Run(output, "exit", status if status >= 0 else 128 - status)
                except subprocess.TimeoutExpired:  # it has closed its output
                    end = "deadline"
            if end == "deadline" and starved(self.cpu, self.wall, waited_for(process.pid), used_by(process.pid)):
                raise SandboxError(
                    f"the machine is too busy: a program got no processor for so long that {self.cpu} s of its "
                    f"{self.wall} s were not left. Verify with fewer workers, or allow more time by Sandbox.wall."
                )
            return Run(output, end, None)
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # none is left
                os.killpg(process.pid, signal.SIGKILL)
            process.stdout.close()
            process.wait()


def _read(descriptor: int, limit: int, deadline: float) -> tuple[bytes, End]:
    """What can be read until its end, a deadline or more than `limit` bytes."""
    output = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            chunk = os.read(descriptor, 2**16)
            if not chunk:
                return bytes(output), "exit"
            output += chunk
            if len(output) > limit:
                return bytes(output), "output"
            if time.monotonic() >= deadline:
                break
    return bytes(output), "deadline"


def _python() -> str:
    """The executable of the Python installation, whatever virtual environment this process is in."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def _readable() -> list[str]:
    """What the program can read: the Python installation and the system's libraries."""
    own = [_python(), *(os.path.join(sys.base_prefix, name) for name in ("lib", "lib64"))]
    system = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/dev/null", "/dev/urandom"]
    return list(dict.fromkeys(own + system))


@functools.cache
def _unavailable(sandbox: Sandbox) -> str:
    """Why this sandbox cannot run a program here; "" if it can."""
    if sandbox.isolation == "namespaces":
        if sys.platform != "linux":
            return f"it runs {sys.platform}, not Linux"
        if platform.machine() not in sandbox_inside.ARCHITECTURES:
            return f"its processor is {platform.machine()}, not one of {sorted(sandbox_inside.ARCHITECTURES)}"
        release = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
        if release < KERNEL:
            return f"its Linux is {os.uname().release}, older than 5.14"
        missing = [name for name in NEEDED if shutil.which(name, path=TOOLS) is None]
        if missing:
            return f"the programs {missing} are not installed (most are in util-linux)"
    try:
        run = sandbox.run("print('ready')")
    except SandboxError as error:
        return str(error)
    return "" if run == Run(b"ready\n", "exit", 0) else f"a program that prints one word ended as {run}"
