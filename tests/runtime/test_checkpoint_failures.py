"""A full disk, a read-only folder or a kill: the last good checkpoint stays, and the error says so."""

import builtins
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from states import abstract, assert_same, make_state

from prerl_jax.runtime.checkpoints import Checkpoints
from prerl_jax.runtime.step_files import CheckpointError

# Orbax leaves coroutines behind when one of them fails.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

FOLDER = Path(__file__).parent


def refuse(monkeypatch, owner, name, code=errno.ENOSPC):
    """Makes a function of `owner` fail on whatever belongs to a checkpoint being written."""
    real = getattr(owner, name)

    def refusing(*args, **kwargs):
        if any(".orbax-checkpoint-tmp" in str(arg) for arg in args):
            raise OSError(code, os.strerror(code))
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, refusing)


def save_and_wait(checkpoints, step):
    checkpoints.save(step, make_state(step), {}, {}, False)
    checkpoints.wait()


@pytest.mark.parametrize(
    ("owner", "name", "code"),
    [
        (os, "mkdir", errno.EROFS),
        (os, "makedirs", errno.EROFS),
        (builtins, "open", errno.ENOSPC),
        (os, "rename", errno.ENOSPC),
    ],
    ids=["mkdir", "makedirs", "open", "rename"],
)
def test_an_oserror_is_raised_and_the_last_good_one_stays(tmp_path, monkeypatch, owner, name, code):
    """Folders are made before save returns, the rename is made in the background, files are written in both."""
    checkpoints = Checkpoints(tmp_path, keep_last=1, best=None)
    save_and_wait(checkpoints, 1)
    with monkeypatch.context() as patch:
        refuse(patch, owner, name, code)
        error = rf"step 2 .*{tmp_path}.*{os.strerror(code)}.*step 1, is intact"
        with pytest.raises(CheckpointError, match=error):
            save_and_wait(checkpoints, 2)
    assert checkpoints.steps() == [1]
    assert_same(checkpoints.restore(abstract(make_state())).state, make_state(1))
    checkpoints.save(2, make_state(2), {}, {}, False)
    checkpoints.close()
    again = Checkpoints(tmp_path, keep_last=1, best=None)
    assert again.steps() == [2]
    assert_same(again.restore(abstract(make_state())).state, make_state(2))
    again.close()


def test_an_error_in_the_background_is_raised_by_the_next_call(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep_last=1, best=None)
    with monkeypatch.context() as patch:
        refuse(patch, os, "rename")
        checkpoints.save(1, make_state(1), {}, {}, False)
        with pytest.raises(CheckpointError, match=r"step 1 .*there is no earlier one"):
            checkpoints.save(2, make_state(2), {}, {}, False)
        assert checkpoints.steps() == []
        checkpoints.save(2, make_state(2), {}, {}, False)
        with pytest.raises(CheckpointError, match=r"step 2 .*there is no earlier one"):
            checkpoints.close()
    assert checkpoints.steps() == []
    checkpoints.close()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot use"):
        Checkpoints(tmp_path / "file" / "checkpoints", keep_last=1, best=None)


def in_a_process(tmp_path, body):
    """Saves step 1, then runs `body` in a process of its own."""
    code = (
        "import os, resource, signal; from states import make_state\n"
        "from prerl_jax.runtime.checkpoints import Checkpoints, CheckpointError\n"
        f"checkpoints = Checkpoints({str(tmp_path)!r}, keep_last=1, best=None)\n"
        "checkpoints.save(1, make_state(1), {}, {}, False); checkpoints.wait()\n" + body
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(FOLDER), str(FOLDER.parents[1])])}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(
    "body",
    [
        "os.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "checkpoints.save(2, make_state(2), {}, {}, False); checkpoints.wait()",
        "checkpoints.save(2, make_state(2, width=1 << 18), {}, {}, False); os.kill(os.getpid(), signal.SIGKILL)",
    ],
    ids=["at-the-commit", "while-writing"],
)
def test_a_kill_in_the_middle_of_a_save(tmp_path, body):
    assert in_a_process(tmp_path, body).returncode == -signal.SIGKILL
    assert (tmp_path / "1").exists()
    assert not (tmp_path / "2").exists()
    again = Checkpoints(tmp_path, keep_last=1, best=None)
    assert again.steps() == [1]
    assert_same(again.restore(abstract(make_state())).state, make_state(1))
    again.save(2, make_state(2), {}, {}, False)
    again.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2"]


@pytest.mark.slow
def test_a_write_that_the_system_refuses(tmp_path):
    """A limit on file sizes stops the array files themselves, which no Python function writes."""
    body = (
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))\n"
        "try:\n"
        "    checkpoints.save(2, make_state(2, width=1 << 16), {}, {}, False); checkpoints.wait()\n"
        "except CheckpointError as error:\n"
        "    print('REFUSED', error)\n"
        "print(checkpoints.steps())\n"
    )
    result = in_a_process(tmp_path, body)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "REFUSED the checkpoint of step 2" in result.stdout
    assert result.stdout.endswith("[1]\n")
