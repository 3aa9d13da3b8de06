"""The rows of an open file.

A row is handed on unread, as a function that reads it: one bad row does not end a file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

Row = tuple[str, Callable[[], Any]]
"""(where the row is, such as "line 3"; a function that reads it, which raises ValueError for a bad row)."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """An open file.

    Attributes:
        rows: the rows, in the file's order. Taking the next one raises ValueError where the file is damaged.
        columns: the columns of every row, as a row without values; None where each row has its own.
    """

    rows: Iterator[Row]
    columns: dict[str, Any] | None = None


def bad_row(reason: str) -> Callable[[], Any]:
    """A row that cannot be read, for this reason."""

    def read() -> Any:
        raise ValueError(reason)

    return read
