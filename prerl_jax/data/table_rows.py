"""Rows from tables: parquet, read in batches of the columns that are asked for, and csv."""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from prerl_jax.data.json_rows import LONGEST_LINE
from prerl_jax.data.rows import RestUnread, Row, Rows, bad_row
from prerl_jax.data.values import ABSENT, value_at

BATCH = 512
"""Rows of a parquet file that are in memory at once."""


def parquet_rows(path: Path, names: Sequence[str]) -> Rows:
    """The rows of a parquet file.

    Args:
        path: the file.
        names: the columns to read, with dots for those inside structs; () for all.

    Returns:
        The rows, as dicts of these columns.

    Raises:
        ValueError: the file is not parquet, or is damaged, or has two columns of one name.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path, buffer_size=2**20, pre_buffer=False)
        columns = {field.name: _inside(field.type) for field in file.schema_arrow}
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{path} is not a readable parquet file: {error}") from error
    if len(columns) < len(file.schema_arrow):
        raise ValueError(f"{path} has two columns of one name: {file.schema_arrow.names}")
    wanted = [_leaf(columns, name) for name in names if value_at(columns, name) is not ABSENT]
    return Rows(_parquet(path, file, wanted if names else None), columns)


def csv_rows(path: Path) -> Rows:
    """The rows of a csv or tsv file, as dicts of texts; an empty field is None.

    Raises:
        ValueError: the file has no header, or two columns of one name.
    """
    csv.field_size_limit(LONGEST_LINE)  # Python's own limit is below the longest prompt
    with _text(path) as file:
        delimiter = max(",\t;|", key=_QUOTED.sub("", file.readline(2**20)).count)
    try:
        header = _header(path, delimiter, spaced=False)
        spaced = any(name.startswith(" ") for name in header)
        header = [name.strip() for name in (_header(path, delimiter, spaced) if spaced else header)]
    except csv.Error as error:
        raise ValueError(f"{path}, read as csv, has no readable header: {error}") from error
    if _NO_TEXT.search("".join(header)):
        raise ValueError(
            f"{path} is not parquet, JSON, or csv in UTF-8: its first line is not text, it begins {header[0][:20]!a}. "
            "If it is compressed, unpack it; if it is text in another encoding, write it as UTF-8"
        )
    if not any(header) or len(set(header)) < len(header):
        raise ValueError(f"{path}, read as csv, needs a header of distinct names, it has {str(header)[:200]}")
    return Rows(_csv(path, delimiter, header, spaced), dict.fromkeys(header))


_QUOTED = re.compile('"[^"]*"')
_NO_TEXT = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\udc80-\udcff]")


def _inside(kind: Any) -> Any:
    """The columns inside a column: a dict for a struct, None for any other type."""
    import pyarrow.types

    return {field.name: _inside(field.type) for field in kind} if pyarrow.types.is_struct(kind) else None


def _leaf(columns: dict[str, Any], name: str) -> str:
    """The part of a name that is inside structs: what follows is inside a list or a text."""
    if name in columns:
        return name
    head, _, rest = name.partition(".")
    inner = columns[head]
    return f"{head}.{_leaf(inner, rest)}" if isinstance(inner, dict) else head


def _parquet(path: Path, file: Any, names: list[str] | None) -> Iterator[Row]:
    import pyarrow

    index = 0
    try:
        with file:
            for batch in file.iter_batches(BATCH, columns=names):
                for row in _read(batch):
                    yield f"row {index}", row
                    index += 1
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not a readable parquet file: damaged after {index:,} rows: {error}") from error


def _read(batch: Any) -> Iterator[Any]:
    """The rows of a batch, as functions."""
    import pyarrow

    try:
        rows = batch.to_pylist()
    except (pyarrow.ArrowException, ValueError, OverflowError):  # some value has no counterpart in Python
        return (functools.partial(_one, batch, index) for index in range(batch.num_rows))
    return (functools.partial(_same, row) for row in rows)


def _one(batch: Any, index: int) -> dict[str, Any]:
    import pyarrow

    row = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            row[name] = column[index].as_py()
        except (pyarrow.ArrowException, ValueError, OverflowError) as error:
            raise ValueError(
                f"the value of {name!r} cannot be read ({error}); if it is not needed, name the columns that are: "
                "FileProblems(path, Columns(prompt=..., answer=...))"
            ) from error
    return row


def _same(row: Any) -> Any:
    return row


def _text(path: Path) -> TextIO:
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


def _reader(file: TextIO, delimiter: str, spaced: bool) -> Any:
    """A reader of csv; `spaced` where spaces after delimiters belong to no field."""
    return csv.reader(file, delimiter=delimiter, strict=True, skipinitialspace=spaced)


def _header(path: Path, delimiter: str, spaced: bool) -> list[str]:
    with _text(path) as file:
        return next(_reader(file, delimiter, spaced), [])


def _csv(path: Path, delimiter: str, header: list[str], spaced: bool) -> Iterator[Row]:
    with _text(path) as file:
        reader = _reader(file, delimiter, spaced)
        next(reader)
        while True:
            where = f"line {reader.line_num + 1}"
            try:
                fields = next(reader, None)
            except csv.Error as error:
                yield where, bad_row(RestUnread(str(error)))
                return
            if fields is None:
                return
            if fields:
                yield where, functools.partial(_named, header, fields)


def _named(header: list[str], fields: list[str]) -> dict[str, str | None]:
    if len(fields) != len(header):
        raise ValueError(f"the row has {len(fields)} fields, the header {len(header)}")
    try:
        "".join(fields).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"it is not UTF-8 text: {error}") from error
    return {name: field or None for name, field in zip(header, fields, strict=True)}
