"""The tiny run of these tests: on one device, compiled once, finished once."""

import types

import jax
import pytest
import tiny_run
from jax.experimental.compilation_cache import compilation_cache

from prerl_jax.trainer.setup import set_up
from prerl_jax.trainer.start import run

CACHE = {"jax_persistent_cache_min_compile_time_secs": 0, "jax_persistent_cache_min_entry_size_bytes": -1}


@pytest.fixture(scope="session", autouse=True)
def compilations(tmp_path_factory):
    """What has been compiled is kept on disk for the session: every run makes its programs anew."""
    settings = {"jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")), **CACHE}
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


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
def finished(tmp_path_factory, compilations):
    """A run that nothing disturbed: its workdir, the rows of its table and what it printed. Not to be written to."""
    workdir, console = tmp_path_factory.mktemp("finished"), tiny_run.quiet()
    with pytest.MonkeyPatch.context() as patch:
        tiny_run.on_one_device(patch)
        rows = run(tiny_run.config(), workdir, console=console)
    return types.SimpleNamespace(workdir=workdir, rows=rows, output=console.file.getvalue())
