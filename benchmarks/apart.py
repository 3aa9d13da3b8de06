"""A contender in a process of its own, with the C library's own settings: what its users get.

The parent writes a line and waits for one: calls can still be timed in turns with others.
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
    """One call is one call in the process `python ARGUMENTS`, which is to `serve`; it ends with the context.

    Raises RuntimeError where the process ends by itself.
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
    """Calls once for every line that comes in, and says so."""
    for _ in sys.stdin:
        jax.block_until_ready(call())
        print(f"\n{DONE}", flush=True)
