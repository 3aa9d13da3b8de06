"""Rows from JSON: one value a line, an array, or an object with a list in it."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from prerl_jax.data.rows import RestUnread, Row, bad_row
from prerl_jax.data.values import ABSENT, value_at

LONGEST_LINE = 2**26
"""Bytes. A longer line is an error in the data."""
LARGEST_FILE = 2**30
"""Bytes of a JSON file that is not read line by line."""


def json_lines(path: Path) -> Iterator[Row]:
    """The rows of a file with a JSON value on each line; blank lines are skipped."""
    with path.open("rb") as file:  # as bytes, only \n ends a line; JSON strings may hold Unicode line separators
        for number, line in enumerate(_lines(file), 1):
            if len(line) > LONGEST_LINE:
                yield f"line {number}", bad_row(f"the line has more than {LONGEST_LINE:,} bytes; remove or split it")
            elif line.strip():
                yield f"line {number}", functools.partial(_decoded, line)


def json_values(path: Path, rows: str) -> Iterator[Row]:
    """The rows of a file with one JSON value: an array, or an object with the list `rows`."""
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise ValueError(
            f"{path} has {size:,} bytes, and as one JSON value it must be read whole; write it as JSON lines or parquet"
        )
    text = path.read_bytes().decode("utf-8-sig", errors="surrogateescape")  # each row is checked below
    if text.lstrip().startswith("["):
        yield from _elements(text)
        return
    try:
        value = read_json(text)
    except ValueError as error:
        what = (
            f"one JSON value with the list {rows!r}, which `rows` names" if rows else "JSON lines, nor one JSON value"
        )
        raise ValueError(f"{path} is not {what}: {error}") from error
    found = value_at(value, rows) if rows else [value]
    if found is ABSENT or not isinstance(found, list):
        lists = sorted(key for key, inner in value.items() if isinstance(inner, list))
        raise ValueError(f"{path} has no list {rows!r}; its lists are {lists}: name one of them as `rows`")
    for index, row in enumerate(found):
        yield f"row {index}", functools.partial(_same, row)


def is_json(line: bytes) -> bool:
    """Whether a line is a JSON value."""
    try:
        _decoded(line)
    except ValueError:
        return False
    return True


def first_lines(path: Path) -> list[bytes]:
    """The first two lines that are not blank, as far as there are any; of a longer line its first bytes."""
    found = []
    with path.open("rb") as file:
        for line in _lines(file):
            if line.strip():
                found.append(line.removeprefix(b"\xef\xbb\xbf").strip())
            if len(found) == 2:
                break
    return found


def read_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is not JSON, is nested too deeply, holds a name twice in one object, or a character that is not
            Unicode text.
    """
    try:
        value = _DECODER.decode(text)
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply") from error
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise
        more = text[error.pos : error.pos + 40]
        raise ValueError(f"there is more after the JSON value: {more!r}. JSON lines have one value a line") from error
    _require_text(text)
    return value


def _decoded(line: bytes) -> Any:
    return read_json(line.decode("utf-8-sig"))


def _same(value: Any) -> Any:
    return value


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines; of a longer one than LONGEST_LINE its first LONGEST_LINE + 1 bytes."""
    while line := file.readline(LONGEST_LINE + 1):
        rest = line
        while len(rest) > LONGEST_LINE and not rest.endswith(b"\n"):
            rest = file.readline(LONGEST_LINE + 1)
        yield line


def _elements(text: str) -> Iterator[Row]:
    """The elements of a JSON array, read one by one, so that an error has a row."""
    at, line, index = text.index("[") + 1, 1, 0
    counted = 0
    while True:
        at = _SPACE.match(text, at).end()  # type: ignore[union-attr]
        if text.startswith("]", at):
            break
        line, counted = line + text.count("\n", counted, at), at
        where = f"row {index} (line {line})"
        try:
            _, end = _SCANNER.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            yield where, bad_row(RestUnread(_reason(error)))
            return
        yield where, functools.partial(read_json, text[at:end])
        at, index = _SPACE.match(text, end).end(), index + 1  # type: ignore[union-attr]
        if text.startswith(",", at):
            at += 1
        elif not text.startswith("]", at):
            yield f"row {index} (line {line})", bad_row(RestUnread("no comma before it"))
            return
    if text[at + 1 :].strip():
        yield f"row {index} (line {line})", bad_row(f"text after the end of the array: {text[at + 1 : at + 80]!r}")


def _reason(error: Exception) -> str:
    return "the JSON is nested too deeply" if isinstance(error, RecursionError) else str(error)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for index, (name, _) in enumerate(pairs) if name in dict(pairs[:index]))
        raise ValueError(f"the name {twice!r} stands twice in one object")
    return found


def _require_text(text: str) -> None:
    try:
        text.encode()
        if _SURROGATE.search(text):
            json.dumps(json.loads(text), ensure_ascii=False).encode()  # a pair is a character, a lone one is not
    except UnicodeEncodeError as error:
        raise ValueError(f"it is not UTF-8 text: {error}") from error


_DECODER = json.JSONDecoder(object_pairs_hook=_distinct)
_SCANNER = json.JSONDecoder()
_SPACE = re.compile(r"\s*")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
