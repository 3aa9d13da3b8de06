"""The rows of an open file.

A row is handed on unread, as a function that reads it: one bad row does not end a file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

Row = tuple[str, Callable[[], Any]]
"""(where the row is, such as "line 3"; a function that reads it, which raises ValueError for a bad row)."""


class RestUnread(ValueError):
    """A file is damaged at a row, and what follows was not read."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}; the file is damaged or cut here, and the rest of it was not read")


@dataclasses.dataclass(frozen=True)
class Rows:
    """An open file.

    Attributes:
        rows: the rows, in the file's order. Taking the next one raises ValueError where the file is damaged.
        columns: the columns of every row, as a row without values; None where each row has its own.
    """

    rows: Iterator[Row]
    columns: dict[str, Any] | None = None


def bad_row(reason: str | ValueError) -> Callable[[], Any]:
    """A row that cannot be read, for this reason."""

    def read() -> Any:
        raise reason if isinstance(reason, ValueError) else ValueError(reason)

    return read
