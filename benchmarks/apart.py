"""Runs a contender in a process of its own, with the default settings of the C library, as its users do.

For each call the parent writes a line and waits for a line. So calls can be timed in turns with other contenders.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import jax

DONE = "called"


@contextlib.contextmanager
def apart(*arguments: str) -> Iterator[Callable[[], None]]:
    """Starts `python ARGUMENTS`, which must call `serve`, and yields a function that makes one call there.

    The process ends with the context. The function raises RuntimeError if the process has ended by itself.
    """
    process = subprocess.Popen(
        [sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ
    )

    def wait() -> None:
        for line in process.stdout:
            if line.strip() == DONE:
                return
        raise RuntimeError(f"`{' '.join(arguments)}` ended with status {process.wait()}.")

    def call() -> None:
        process.stdin.write("\n")
        process.stdin.flush()
        wait()

    try:
        yield call
    finally:
        process.stdin.close()
        process.kill()
        process.wait()


def serve(call: Callable[[], object]) -> None:
    """Makes one call for every line on standard input, and reports each on standard output."""
    for _ in sys.stdin:
        jax.block_until_ready(call())
        print(f"\n{DONE}", flush=True)
