"""A setup without data, of a run that tests know."""

import dataclasses

import jax
import pytest
import tiny_run

from prerl_jax.plan.abstract_setup import abstract_setup
from prerl_jax.runtime.mesh import MeshSpec


@pytest.fixture
def tiny():
    """A function: changes of the tiny run's config -> its setup on eight devices, without data."""

    def make(**changes):
        config = dataclasses.replace(tiny_run.config(), mesh=MeshSpec(data=1, fsdp=4, tensor=2), **changes)
        return abstract_setup(config, jax.devices(), 4)

    return make
