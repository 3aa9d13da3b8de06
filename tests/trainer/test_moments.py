"""Runs with the moments in bfloat16 and in the host's memory."""

import dataclasses

import jax
import pytest
import tiny_run
import toy
from tiny_run import Died, dies_at, state_at

from prerl_jax import ppo
from prerl_jax.config import AlignmentSpec, CriticSpec
from prerl_jax.trainer.setup import set_up
from prerl_jax.trainer.start import run

# CPUs do not reuse donated memory of this kind.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Some donated buffers were not usable")]


def config(**changes):
    """Two steps of PPO, whose critic's moments are those of the policy's spec."""
    tiny = tiny_run.config()
    optimizer = dataclasses.replace(tiny.optimizer, **changes)
    alone = {"alignment": AlignmentSpec(), "critic": CriticSpec(optimizer), "phases": ppo(steps=2)}
    return dataclasses.replace(tiny, optimizer=optimizer, **alone)


def moments(state):
    return [leaf for leaf in jax.tree.leaves((state.opt_state, state.critic.opt_state)) if leaf.ndim]


def kinds(config):
    """Where the moments of a run are."""
    return {leaf.sharding.memory_kind for leaf in moments(set_up(config).abstract_state())}


def test_moments_in_the_hosts_memory_change_no_bit(tmp_path):
    """On several devices, where they are sharded."""
    found = {}
    for placement in ("host", "device"):
        there, workdir = config(placement=placement), tmp_path / placement
        run(there, workdir, console=tiny_run.quiet())
        found[placement] = kinds(there), state_at(workdir, set_up(there), 2)
    assert (found["host"][0], found["device"][0]) == ({"pinned_host"}, {"device"})
    toy.assert_same_bits(found["host"][1], found["device"][1])


def test_a_run_resumes_with_its_moments_as_they_were(tmp_path):
    both = config(moments="bfloat16", placement="host")
    run(both, tmp_path / "whole", console=tiny_run.quiet())
    with pytest.raises(Died), dies_at(both, 1):
        run(both, tmp_path / "died", console=tiny_run.quiet())
    run(both, tmp_path / "died", console=tiny_run.quiet())
    whole, died = (state_at(tmp_path / name, set_up(both), 2) for name in ("whole", "died"))
    assert {str(leaf.dtype) for leaf in moments(whole)} == {"bfloat16"}
    assert kinds(both) == {"pinned_host"}
    toy.assert_same_bits(died, whole)
