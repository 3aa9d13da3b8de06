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
    (b"\x1f\x8b", "is compressed with gzip; unpack it"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd; unpack it"),
    (b"PK\x03\x04", "is a zip archive; unpack it"),
    (b"ARROW1", "is an Arrow file; write it as parquet"),
    (b"version https://git-lfs", "is a pointer of Git LFS; fetch the file itself with `git lfs pull`"),
    (b"\xff\xfe", "is UTF-16 text; write it as UTF-8"),
    (b"\xfe\xff", "is UTF-16 text; write it as UTF-8"),
    (b"<", "is a web page, or XML; download the data file itself"),
)
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
        raise FileNotFoundError(f"no data file at {path!r} (looked for {found.absolute()})")
    return found


def open_rows(path: Path, names: Sequence[str], rows: str) -> Rows:
    """The rows of a file.

    Args:
        path: a file of JSON lines, a JSON array, a JSON object with a list, parquet, or csv.
        names: the columns to read, where the layout allows to read only some; () for all.
        rows: the name of the list inside a JSON object; "" for a file of another layout.

    Raises:
        ValueError: the file is empty, or of another kind, or damaged.
    """
    with path.open("rb") as file:
        head = file.read(4096)
    if not head.strip():
        raise ValueError(f"{path} is empty, it has no valid problem")
    for start, what in _OTHER_KINDS:
        if head.lstrip().startswith(start):
            raise ValueError(f"{path} {what}")
    if head.startswith(b"PAR1") or path.suffix == ".parquet":
        return parquet_rows(path, names)
    lines = first_lines(path)
    if not any(_JSON.match(line) for line in lines):
        return csv_rows(path)
    return Rows(json_values(path, rows) if rows or _is_one_value(*lines) else json_lines(path))


def _is_one_value(first: bytes, *second: bytes) -> bool:
    """Whether the first lines of a JSON file are parts of one value."""
    if not second:
        return first.startswith(b"[")
    return not is_json(first) and (first.endswith((b"[", b"{", b",", b":")) or not is_json(second[0]))
