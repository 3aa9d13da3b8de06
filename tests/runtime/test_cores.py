"""Shares of the processor's cores."""

import os
import subprocess
import sys

import pytest

from prerl_jax.runtime.cores import available_cores, pin, shares


@pytest.mark.parametrize(
    ("cores", "jobs", "expected"),
    [
        ([0, 1, 2, 3], 1, [{0, 1, 2, 3}]),
        ([0, 1, 2, 3], 2, [{0, 2}, {1, 3}]),
        ([4, 6, 7], 2, [{4, 7}, {6}]),
        ([0, 1], 3, [{0}, {1}, {0}]),
    ],
)
def test_shares_of_the_cores(cores, jobs, expected):
    assert shares(cores, jobs) == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin processes")
def test_a_pinned_process_runs_on_its_cores():
    core = available_cores()[-1]
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    pin(process.pid, {core})
    assert os.sched_getaffinity(process.pid) == {core}
    process.communicate(b"\n")
    pin(process.pid, {core})  # has ended: no error
