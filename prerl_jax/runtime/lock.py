"""Locks of files and folders: at most one process writes into a workdir."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


def try_lock(file: int | IO[Any]) -> bool:
    """Takes the exclusive lock of an open file or folder without waiting.

    The lock belongs to the open file, not to the process: a child process that inherits the file keeps the lock, and
    the lock ends when the last process has closed it, however that process ends. A file system without such locks (NFS
    may be one) excludes no process.

    Args:
        file: a file object or a file descriptor.

    Returns:
        False if another open file holds the lock, True otherwise.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # the file system has no such locks
        pass
    return True


@contextlib.contextmanager
def locked_workdir(folder: Path) -> Iterator[None]:
    """Locks a workdir for this process; creates the folder if it does not exist.

    Two runs in one workdir would write into the same metrics and checkpoints. The lock is released on exit, and also
    when the process is killed.

    Args:
        folder: the workdir.

    Raises:
        ValueError: another process has locked the folder, or the folder cannot be created or opened.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise ValueError(f"cannot use {folder} as a workdir: {error}.") from error
    try:
        if not try_lock(handle):
            raise ValueError(
                f"another run is writing into {folder}. Wait until it ends, or end it, or use another --workdir."
            )
        yield
    finally:
        os.close(handle)
