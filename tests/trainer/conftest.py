"""The tiny run of these tests: on one device, traced once, finished once."""

import dataclasses
import types

import jax
import pytest
import tiny_run

from prerl_jax.config import CheckpointSpec
from prerl_jax.config.io import render
from prerl_jax.trainer import start
from prerl_jax.trainer.programs import Programs
from prerl_jax.trainer.setup import set_up
from prerl_jax.trainer.start import run


@pytest.fixture(scope="session", autouse=True)
def shared_programs():
    """Runs with equal programs share them, so a resume in the same process compiles nothing again.

    So these tests do not notice a program that closes over something of the first run. The slow test of a resume in a
    new process does.
    """
    kept = {}

    def programs(setup):
        config = setup.config
        evaluation = dataclasses.replace(config.evaluation, every=0)
        same = dataclasses.replace(config, seed=0, checkpoints=CheckpointSpec(), evaluation=evaluation)
        found = kept.setdefault((render(same), setup.mesh), Programs(setup))
        found.setup = setup
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start, "Programs", programs)
        yield


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
def finished(tmp_path_factory, shared_programs):
    """A run that nothing disturbed: its workdir, the rows of its table and what it printed. Not to be written to."""
    workdir, console = tmp_path_factory.mktemp("finished"), tiny_run.quiet()
    with pytest.MonkeyPatch.context() as patch:
        tiny_run.on_one_device(patch)
        rows = run(tiny_run.config(), workdir, console=console)
    return types.SimpleNamespace(workdir=workdir, rows=rows, output=console.file.getvalue())
