"""One run at a time in a workdir: two would write into the same lines and checkpoints."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps a folder, made where it is not there, for this process; however that ends, the folder is free again.

    A file system without locks of folders, as NFS is, keeps nobody out.

    Raises:
        ValueError: another process keeps it, or there can be no such folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise ValueError(f"cannot use {folder} as a workdir: {error}.") from error
    try:
        _lock(handle, folder)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ValueError(
            f"another run is writing into {folder}. Wait until it ends, or end it, or use another --workdir."
        ) from error
    except OSError:  # there are no such locks here
        pass
