"""What the sandbox runs inside: limits itself, and then runs the policy's program in the same process.

It uses the standard library only, since nothing else is there. It knows no expected result, so it does not matter that
the program can read and change all of it.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import site
import struct
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

STARTED = b"\0started\n"
"""The first output, written before the program begins. Without it, the sandbox failed."""

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""The kernel's AUDIT_ARCH number of each processor."""
REFUSED = {
    "socket": (41, 198),  # some families of networks, such as vsock, have no namespace
    "keyctl": (250, 219),  # the keys of this user have none
    "add_key": (248, 217),
    "request_key": (249, 218),
    "memfd_create": (319, 279),  # memory that no limit counts
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "setpriority": (141, 140),  # a program that lets others go first would look like one on a busy machine
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setattr": (314, 274),
    "ptrace": (101, 117),  # large parts of the kernel that no solution needs
    "syslog": (103, 116),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
}
"""System calls that the program may not make: their numbers on each of the `ARCHITECTURES`."""
SIGACTION = (13, 134)
"""The call that it may not make for SIGCHLD: the CPU time of children whose end is ignored is counted nowhere."""


def refuse_system_calls() -> None:
    """Installs a filter for this process and all that it starts: the `REFUSED` calls and `SIGACTION` fail with EPERM.

    Raises OSError if the kernel refuses the filter.
    """
    import ctypes

    machine = platform.machine()
    column = list(ARCHITECTURES).index(machine)
    refused = [numbers[column] for numbers in REFUSED.values()]
    load, equal, at_least, give = 0x20, 0x15, 0x35, 0x06
    program = [
        (load, 0, 0, 4),  # the architecture of the call
        (equal, 1, 0, ARCHITECTURES[machine]),
        (give, 0, 0, 0x80000000),  # another one: kill the process
        (load, 0, 0, 0),  # the number of the call
        (at_least, len(refused) + 4, 0, 0x40000000),  # the x32 calls, which have numbers of their own
        *((equal, len(refused) - index + 3, 0, number) for index, number in enumerate(refused)),
        (equal, 0, 2, SIGACTION[column]),
        (load, 0, 0, 16),  # the first argument of the call
        (equal, 1, 0, signal.SIGCHLD),
        (give, 0, 0, 0x7FFF0000),  # allow
        (give, 0, 0, 0x00050001),  # EPERM
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    filter_ = ctypes.create_string_buffer(struct.pack("HP", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(22, 2, filter_, 0, 0):  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
        raise OSError(ctypes.get_errno(), "the kernel refuses a seccomp filter")


def limit(limits: Mapping[str, int]) -> None:
    """Sets limits, by their names in `resource`, for good."""
    import resource

    for name, value in limits.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))


def give_input(text: str) -> None:
    """Makes the text the standard input."""
    with open("stdin", "w", encoding="utf-8", newline="") as file:
        file.write(text)
    descriptor = os.open("stdin", os.O_RDONLY)
    os.unlink("stdin")
    os.dup2(descriptor, 0)
    os.close(descriptor)


def execute(program: str, name: str) -> types.ModuleType:
    """Runs a program as a module of this name."""
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(program, f"{name}.py", "exec"), module.__dict__)
    return module


def find(module: types.ModuleType, name: str) -> Callable[..., Any]:
    """The function of this name, or the method "Class.method" of a new instance."""
    owner, _, method = name.rpartition(".")
    return getattr(getattr(module, owner)() if owner else module, method)


def answer(module: types.ModuleType, calls: Sequence[tuple[str, Sequence[Any]]], replies: int) -> None:
    """Writes one line for each call: its result in JSON, or nothing where it raises."""
    with open(replies, "w", encoding="ascii") as file:
        for name, arguments in calls:
            try:
                reply = json.dumps(find(module, name)(*arguments))
            except Exception:
                reply = ""
            file.write(reply + "\n")
            file.flush()


def main() -> None:
    """Reads what to run from the standard input, and runs it."""
    site.setquit()  # exit() and quit(), which Python's option -S leaves out
    with open(0, "rb", closefd=False) as file:
        request = json.loads(file.read())
    calls = request["calls"]
    nothing = os.open(os.devnull, os.O_RDWR)
    if calls is None:
        give_input(request["stdin"])
    else:
        os.dup2(nothing, 0)
    limit(request["limits"])
    if request["filter"]:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # what started the sandbox may ignore it
        refuse_system_calls()
    os.write(1, STARTED)
    os.dup2(nothing, 2)
    if calls is None:
        os.close(nothing)
        execute(request["program"], "__main__")
    else:
        replies = os.dup(1)
        os.dup2(nothing, 1)
        os.close(nothing)
        answer(execute(request["program"], "solution"), calls, replies)


if __name__ == "__main__":
    main()
