"""What the tests of programs need of the machine."""

import os

import pytest

from prerl_jax.verify import IsolationError, Sandbox


@pytest.fixture(scope="session")
def isolation():
    """Skips a test on a machine that cannot isolate programs; with ISOLATION=required, as in .ci/run, fails it."""
    try:
        Sandbox().require()
    except IsolationError as error:
        if os.environ.get("ISOLATION") == "required":
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
