"""The processor time of programs that run: what they used, and what they waited for."""

from __future__ import annotations

import os
from pathlib import Path

BUSY = 0.25
"""A program that used less than this share of its CPU time, and waited for most of it, had no fair chance."""


def starved(cpu: float, wall: float, waited: float, used: float) -> bool:
    """Whether a machine was too busy for a program, all times in seconds.

    A program whose own processes took the processor from it is not starved: `used` is the CPU time of all of them.
    """
    return wall - waited < cpu and used < BUSY * cpu


def waited_for(pid: int) -> float:
    """Seconds in which a process or its first child's first child, the program, was ready and got no processor."""
    waited = 0.0
    for _ in range(3):
        task = Path(f"/proc/{pid}/task/{pid}")
        try:
            waited += int((task / "schedstat").read_text().split()[1]) / 1e9
            pid = int((task / "children").read_text().split()[0])
        except (OSError, IndexError):  # it has no child, or has ended, or this is no Linux
            break
    return waited


def used_by(pid: int) -> float:
    """Seconds of CPU time that a process and all its descendants used, with those that they have waited for."""
    ticks, left = 0, [pid]
    while left:
        process = Path(f"/proc/{left.pop()}")
        try:
            ticks += sum(map(int, (process / "stat").read_text().rpartition(")")[2].split()[11:15]))
            for children in process.glob("task/*/children"):
                left += map(int, children.read_text().split())
        except OSError:  # it has ended
            continue
    return ticks / os.sysconf("SC_CLK_TCK")
