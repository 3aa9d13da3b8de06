"""Reads a folder of JSON lines that grows: as one sequence of lines, with a position that a checkpoint can hold."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prerl_jax.data.columns import Dropped
from prerl_jax.data.json_rows import LONGEST_LINE
from prerl_jax.data.problems import Problem

Arrived = tuple[str, Callable[[], Problem | Dropped]]
"""(where a problem is; a function that reads it, which raises ValueError for a bad row)."""


class FolderReader:
    """Reads the lines of a folder's files, one after the other.

    Args:
        folder: the folder.
        parse: makes a problem of a line.

    Raises:
        FileNotFoundError: there is no such folder.
    """

    def __init__(self, folder: Path, parse: Callable[[bytes], Problem | Dropped]) -> None:
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {str(folder)!r} (looked for {folder.absolute()})")
        self._folder, self._parse = folder, parse
        self._files: dict[str, int] = {}  # bytes read, in the order of the names
        self._line, self._last = 0, b""

    def read(self) -> Arrived | None:
        """The next line that is not blank, as a problem; None if there is none now.

        Raises:
            ValueError: a file has changed where it may not, or one has appeared before the current one.
        """
        while True:
            line = self._next_line(complete=False)
            if line is None:
                later = self._later()
                if later is None:
                    return None
                line = self._next_line(complete=True)  # what was written before the later file
                if line is None:
                    self._files[later], self._line, self._last = 0, 0, b""
                    continue
            if line.strip():
                return f"{self._name}, line {self._line}", functools.partial(self._parse, line)

    def position(self) -> dict[str, Any]:
        """The bytes read of each file, the lines read of the last one, and the length and hash of its last line."""
        last = {"bytes": len(self._last), "hash": _hash(self._last)}
        return {"files": dict(self._files), "line": self._line, "last": last} if self._files else {}

    def move(self, position: dict[str, Any]) -> None:
        """Goes to a position; {} is the beginning.

        Raises:
            ValueError: the folder has other lines before that position.
        """
        self._files = dict(position.get("files", {}))
        self._line, self._last = position.get("line", 0), b""
        if self._files:
            self._last = self._bytes_before(position["last"]["bytes"])
            if _hash(self._last) != position["last"]["hash"]:
                raise ValueError(
                    f"{self._path} has another line {self._line} than the checkpoint: restore the file, or begin "
                    "another run with another --workdir"
                )

    @property
    def _name(self) -> str:
        """The file that is being read: the last one."""
        return next(reversed(self._files), "")

    @property
    def _path(self) -> Path:
        return self._folder / self._name

    def _next_line(self, complete: bool) -> bytes | None:
        """The next line of the current file; without its line feed only if the file is `complete`.

        Of a longer line than LONGEST_LINE it has the first LONGEST_LINE + 1 bytes.
        """
        if not self._files:
            return None
        start = self._files[self._name]
        self._require_unchanged(start)
        with self._path.open("rb") as file:
            file.seek(start)
            line = file.readline(LONGEST_LINE + 1)
            rest = line
            while len(rest) > LONGEST_LINE and not rest.endswith(b"\n"):
                rest = file.readline(LONGEST_LINE + 1)
            if not line or not (complete or rest.endswith(b"\n")):
                return None
            self._files[self._name] = file.tell()
        self._line, self._last = self._line + 1, line
        return line

    def _require_unchanged(self, read: int) -> None:
        if not self._path.is_file():
            raise ValueError(
                f"{self._path} is gone, and the run, or its checkpoint, is inside it: restore it. "
                "A file may be removed only once a checkpoint lies in a later one"
            )
        if self._path.stat().st_size < read:
            raise ValueError(
                f"{self._path} has {self._path.stat().st_size:,} bytes, and {read:,} were read: a file of a stream may "
                "only grow. Restore it, or write new problems into a file with a later name"
            )

    def _bytes_before(self, count: int) -> bytes:
        self._require_unchanged(self._files[self._name])
        with self._path.open("rb") as file:
            file.seek(max(0, self._files[self._name] - count))
            return file.read(count)

    def _later(self) -> str | None:
        """The file after the current one. Raises ValueError for a file that would never be read."""
        found = {path.name: path for path in self._folder.glob("*.jsonl") if path.is_file()}
        for name, path in found.items():
            if name < self._name and name not in self._files:
                raise ValueError(
                    f"{path} appeared after {self._name} was begun: files are read in the order of their names. Give "
                    "new files later names, such as the time"
                )
            if name < self._name and path.stat().st_size != self._files[name]:
                raise ValueError(
                    f"{path} has changed after it was read: it has {path.stat().st_size:,} bytes, and "
                    f"{self._files[name]:,} were read. Only the last file may grow"
                )
        return min((name for name in found if name > self._name), default=None)


def _hash(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()[:16]
