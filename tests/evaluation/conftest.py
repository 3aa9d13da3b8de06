"""Evaluations of these tests run on one device."""

import pytest
import tiny_run


@pytest.fixture(autouse=True)
def one_device():
    """A setup that does not name its devices gets the first of the eight."""
    with pytest.MonkeyPatch.context() as patch:  # not the test's own, which it may undo
        tiny_run.on_one_device(patch)
        yield
