"""A full or read-only disk when a checkpoint is due: the run says so and stops, and the last good one restores."""

import builtins
import errno
import os

import pytest
import tiny_run
import toy
from tiny_run import COMMAND, state_at, timeless

from prerl_jax import launch
from prerl_jax.runtime import metrics
from prerl_jax.trainer.start import run

# Orbax leaves coroutines behind when one of them fails.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def refuse(patch, owner, name, code, step):
    """Makes a function of `owner` fail on the checkpoint of `step` while it is being written."""
    real = getattr(owner, name)

    def refusing(*args, **kwargs):
        if any(f"checkpoints/{step}.orbax-checkpoint-tmp" in str(arg) for arg in args):
            raise OSError(code, os.strerror(code))
        return real(*args, **kwargs)

    patch.setattr(owner, name, refusing)


@pytest.mark.parametrize(
    ("owner", "name", "code"), [(builtins, "open", errno.ENOSPC), (os, "mkdir", errno.EROFS)], ids=["full", "read-only"]
)
@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_written(tmp_path, monkeypatch, capsys, finished, setup, owner, name, code):
    arguments = ["--config", COMMAND[-1], "--workdir", str(tmp_path)]
    refuse(monkeypatch, owner, name, code, step=3)
    assert launch.main(arguments) == 1
    error = capsys.readouterr().err
    monkeypatch.undo()
    assert error.splitlines()[-1].startswith("error: the checkpoint of step 3 could not be written")
    assert "step 2, is intact" in error
    assert "Traceback" not in error
    toy.assert_same_bits(state_at(tmp_path, setup), state_at(finished.workdir, setup, 2))
    run(tiny_run.config(), tmp_path, console=tiny_run.quiet())  # there is room again
    assert timeless(tmp_path) == timeless(finished.workdir)
    toy.assert_same_bits(state_at(tmp_path, setup), state_at(finished.workdir, setup))


@pytest.mark.slow
def test_metrics_that_cannot_be_written(tmp_path, monkeypatch, capsys, setup):
    """Lines are written before the checkpoint: if they fail, there is no checkpoint."""
    real = os.fsync

    def fsync(descriptor):
        if (tmp_path / "checkpoints" / "1").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(metrics.os, "fsync", fsync)
    assert launch.main(["--config", COMMAND[-1], "--workdir", str(tmp_path)]) == 1
    monkeypatch.undo()
    error = capsys.readouterr().err
    assert f"error: cannot write {tmp_path}" in error
    assert "Is the disk full" in error
    assert state_at(tmp_path, setup).step in (1, 2)  # whether 1 was there when the lines of 2 were written
