"""One thread for work on the host: it makes calls in the order in which they are submitted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

WAITING = 8
"""The most calls that may wait. `submit` blocks while there are more, so a slow disk does not fill the memory."""


class Background:
    """A thread that makes calls in the background, one after the other.

    A call must not start work on a device, and must be given everything that it reads. If a call raises an exception,
    the next `check` or `wait` raises it again, once, in the thread that calls them. Later calls are made all the same.

    Use it as a context manager: on exit it waits for all calls.

    Args:
        name: the name of the thread, as debuggers and logs show it.
    """

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, name)
        self._calls: deque[Future] = deque()

    def __enter__(self) -> Background:
        return self

    def __exit__(self, kind: type | None, *error: object) -> None:
        """Waits for all calls and ends the thread; raises a call's exception unless the block raised one itself."""
        try:
            if kind is None:
                self.wait()
        finally:
            self._thread.shutdown()

    def submit(self, function: Callable, *args: Any) -> Future:
        """Submits `function(*args)`; blocks while `WAITING` calls wait. It does not raise earlier calls' exceptions.

        Args:
            function: what the thread calls.
            *args: its arguments.

        Returns: the future of the call.
        """
        if len(self._calls) >= WAITING and not self._calls[-WAITING].done():
            self._calls[-WAITING].exception()  # waits
        self._calls.append(self._thread.submit(function, *args))
        return self._calls[-1]

    def check(self) -> None:
        """Raises the exception of the first finished call that failed; does not wait."""
        while self._calls and self._calls[0].done():
            self._calls.popleft().result()

    def wait(self) -> None:
        """Waits until all calls are made; raises the exception of the first that failed."""
        while self._calls:
            self._calls.popleft().result()
