"""Host work off the critical path: one thread that makes calls in the order in which they were handed to it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

WAITING = 8
"""Calls that may wait; handing over another one waits for the oldest, so that a slow disk does not fill the memory."""


class Background:
    """Calls that nobody waits for. They must not start anything on a device, and take what they read with them.

    What one of them raises, `check` and `wait` raise in the thread that calls them: once. The calls after it are still
    made.
    """

    def __init__(self, name: str):
        self._thread = ThreadPoolExecutor(1, name)
        self._calls: deque[Future] = deque()

    def __enter__(self) -> Background:
        return self

    def __exit__(self, kind: type | None, *error: object) -> None:
        """All calls are made; what one of them raised is raised unless something else is on its way already."""
        try:
            if kind is None:
                self.wait()
        finally:
            self._thread.shutdown()

    def submit(self, function: Callable, *args: Any) -> None:
        """Hands over a call. Raises nothing of the earlier ones: see `check`."""
        if len(self._calls) >= WAITING and not self._calls[-WAITING].done():
            self._calls[-WAITING].exception()  # waits
        self._calls.append(self._thread.submit(function, *args))

    def check(self) -> None:
        """Raises what a call that is over has raised."""
        while self._calls and self._calls[0].done():
            self._calls.popleft().result()

    def wait(self) -> None:
        """Returns when all calls are made; raises what one of them has raised."""
        while self._calls:
            self._calls.popleft().result()
