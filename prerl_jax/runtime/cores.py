"""The processor's cores, and how several processes share them."""

from __future__ import annotations

import contextlib
import os


def available_cores() -> list[int]:
    """The ids of the cores that this process may use, sorted."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def shares(cores: list[int], jobs: int) -> list[set[int]]:
    """The cores of each of `jobs` jobs, as evenly as possible. With more jobs than cores, several jobs share a core."""
    if jobs >= len(cores):
        return [{cores[job % len(cores)]} for job in range(jobs)]
    return [set(cores[job::jobs]) for job in range(jobs)]


def pin(pid: int, cores: set[int]) -> None:
    """Lets a process run on these cores only. Does nothing where the system cannot, or if the process has ended."""
    if hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(pid, cores)
