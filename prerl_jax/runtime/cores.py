"""The processor's cores, and how several processes share them."""

from __future__ import annotations

import contextlib
import os


def available_cores() -> list[int]:
    """The ids of the cores that this process may use, sorted."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def shares(cores: list[int], jobs: int) -> list[set[int]]:
    """Divides cores among jobs as evenly as possible. With more jobs than cores, several jobs share a core.

    Args:
        cores: the ids of the cores, at least one.
        jobs: how many jobs there are, at least 1.

    Returns:
        The cores of each job.
    """
    if jobs >= len(cores):
        return [{cores[job % len(cores)]} for job in range(jobs)]
    return [set(cores[job::jobs]) for job in range(jobs)]


def pin(pid: int, cores: set[int]) -> None:
    """Lets a process run on certain cores only. It does nothing if the system cannot, or if the process has ended.

    Args:
        pid: the id of the process.
        cores: the ids of the cores.
    """
    if hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(pid, cores)
