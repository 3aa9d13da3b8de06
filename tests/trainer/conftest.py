"""The tiny run of these tests: on one device, compiled once, finished once."""

import types

import jax
import pytest
import tiny_run

from prerl_jax.trainer.setup import set_up
from prerl_jax.trainer.start import run


@pytest.fixture(autouse=True)
def one_device():
    """A run that does not name its devices gets the first of the eight."""
    with pytest.MonkeyPatch.context() as patch:  # not the test's own, which it may undo
        tiny_run.on_one_device(patch)
        yield


@pytest.fixture(scope="session")
def setup():
    return set_up(tiny_run.config(), jax.devices()[:1])


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A run that nothing disturbed: its workdir, the rows of its table and what it printed. Not to be written to."""
    workdir, console = tmp_path_factory.mktemp("finished"), tiny_run.quiet()
    with pytest.MonkeyPatch.context() as patch:
        tiny_run.on_one_device(patch)
        rows = run(tiny_run.config(), workdir, console=console)
    return types.SimpleNamespace(workdir=workdir, rows=rows, output=console.file.getvalue())
