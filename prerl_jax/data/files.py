"""Opens a file of rows, whatever its layout: the content says which one it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from prerl_jax.data.json_rows import first_lines, is_json, json_lines, json_values
from prerl_jax.data.rows import Rows
from prerl_jax.data.table_rows import csv_rows, parquet_rows
from prerl_jax.models.location import PACKAGE, resolve

_OTHER_KINDS = (
    (b"\x1f\x8b", "is compressed; unpack it with gunzip"),
    (b"\x28\xb5\x2f\xfd", "is compressed; unpack it with unzstd"),
    (b"\xfd7zXZ\x00", "is compressed; unpack it with unxz"),
    (tuple(b"BZh%d1AY&SY" % level for level in range(1, 10)), "is compressed; unpack it with bunzip2"),
    (b"PK\x03\x04", "is a zip archive, or an Excel table; unpack it, or save it as csv"),
    (b"ARROW1", "is an Arrow file; write it as parquet"),
    (b"version https://git-lfs", "is a pointer of Git LFS; fetch the file itself with `git lfs pull`"),
    (b"\xff\xfe", "is UTF-16 text; write it as UTF-8"),
    (b"\xfe\xff", "is UTF-16 text; write it as UTF-8"),
    (b"<", "is a web page, or XML; download the data file itself"),
)
_PARQUET = b"PAR1"
_OPEN = (b"[", b"{", b",", b":")
"""The end of a line inside a JSON value."""
_JSON = re.compile(rb"""(?:\{\s*(?:["}]|\Z)|\[\s*(?:[\[{\]]|\Z))""")


def existing(path: str) -> Path:
    """The local file of a path, or of "package:NAME/relative".

    Raises:
        FileNotFoundError: there is none, or it is a folder.
    """
    found = resolve(path) if path.startswith(PACKAGE) else Path(path).expanduser()
    if found.is_dir():
        raise FileNotFoundError(f"{path!r} is a folder; name its files, as a tuple of paths")
    if not found.is_file():
        raise FileNotFoundError(f"no data file at {path!r} (looked for {found.absolute()}){_instead(path)}")
    return found


def _instead(path: str) -> str:
    """What to do about a path that is none; "" where it may be one."""
    if "://" in path:
        return ". It is an address: download the file, and give its path"
    if any(sign in path for sign in "*?["):
        return ". Patterns are not looked up: give the names of the files as a tuple"
    if re.fullmatch(r"[\w.-]+/[\w-]+", path):
        return f'. For a data set of the hub write HubProblems("{path}")'
    return ""


def open_rows(path: Path, names: Sequence[str], rows: str) -> Rows:
    """The rows of a file.

    Args:
        path: a file of JSON lines, a JSON array, a JSON object with a list, parquet, or csv.
        names: the columns to read, where the layout allows to read only some; () for all.
        rows: the name of the list inside a JSON object; "" for a file of another layout.

    Raises:
        ValueError: the file is empty, or of another kind, or damaged.
    """
    if _head(path).startswith(_PARQUET) or path.suffix == ".parquet":
        return parquet_rows(path, names)
    lines = first_lines(path)
    if lines[0].startswith((b"{'", b"[{'")):
        raise ValueError(f"{path} has objects as Python prints them, and not JSON; write them with json.dumps")
    if not _is_json_file(lines):
        return csv_rows(path)
    return Rows(json_values(path, rows) if rows or _is_one_value(*lines) else json_lines(path))


def open_lines(path: Path) -> Rows:
    """The rows of a file of JSON lines.

    Raises:
        ValueError: the file is empty, or of another kind.
    """
    parquet = _head(path).startswith(_PARQUET)
    lines = first_lines(path)
    if parquet or not _is_json_file(lines):
        raise ValueError(f"{path} is {'parquet' if parquet else 'no JSON'}; FileProblems reads parquet, JSON and csv")
    opens = lines[0].startswith(b"[") or lines[0].endswith(_OPEN)
    if opens and _is_one_value(*lines):
        kind = "a JSON array" if lines[0].startswith(b"[") else "one JSON value over several lines"
        raise ValueError(f"{path} is {kind}, not JSON lines; FileProblems(path) reads it")
    return Rows(json_lines(path))


def _is_json_file(lines: Sequence[bytes]) -> bool:
    """Whether these first lines are JSON: an object or a list of them begins, or the first line is a list of texts."""
    return any(_JSON.match(line) for line in lines) or (lines[0].startswith(b'["') and is_json(lines[0]))


def _head(path: Path) -> bytes:
    """The first bytes. Raises ValueError where there are none, or they are those of a kind that is not read."""
    with path.open("rb") as file:
        head = file.read(4096)
    if not head.strip():
        raise ValueError(f"{path} is empty, it has no valid problem")
    for start, what in _OTHER_KINDS:
        if head.lstrip().startswith(start):
            raise ValueError(f"{path} {what}")
    return head


def _is_one_value(first: bytes, *second: bytes) -> bool:
    """Whether the first lines of a JSON file are parts of one value."""
    if not second:
        return first.startswith(b"[")
    return not is_json(first) and (first.endswith(_OPEN) or not is_json(second[0]))
