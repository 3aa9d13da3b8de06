import os
import subprocess
import sys

import pytest

from prerl_jax.runtime.lock import locked_workdir, try_lock

HOLD = """
import sys
from pathlib import Path
from prerl_jax.runtime.lock import locked_workdir
with locked_workdir(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_one_process_writes_into_a_workdir(tmp_path):
    folder = tmp_path / "new" / "workdir"
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        refused = rf"another run is writing into {folder}.*another --workdir"
        with pytest.raises(ValueError, match=refused), locked_workdir(folder):
            pass
        other.kill()
        other.wait()
    with locked_workdir(folder), pytest.raises(ValueError, match="another run"), locked_workdir(folder):
        pass
    with locked_workdir(folder):  # free again
        pass


def test_a_workdir_that_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot use .*file as a workdir"), locked_workdir(tmp_path / "file"):
        pass


def test_a_lock_lasts_until_the_last_process_closes_the_file(tmp_path):
    path = tmp_path / "log"
    with path.open("a") as first:
        assert try_lock(first)
        assert try_lock(first)  # its own lock does not exclude it
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=first)
    handle = os.open(path, os.O_RDONLY)
    assert not try_lock(handle)
    child.communicate(b"\n")
    assert try_lock(handle)
    os.close(handle)
