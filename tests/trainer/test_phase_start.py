"""Moments begin anew when a phase that asks for it is entered, however a run came there."""

import dataclasses

import pytest
import tiny_run
from tiny_run import begin

from prerl_jax import Phase
from prerl_jax.core.phases import locate
from prerl_jax.runtime.state import at_phase
from prerl_jax.trainer import loop
from prerl_jax.trainer.loop import train_step
from prerl_jax.trainer.position import Position

PHASES = (Phase("first", 2, reset_optimizer=True), Phase("second", 1), Phase("third", 2, reset_optimizer=True))


class Reset(Exception):
    """Ends a step in the middle."""


@pytest.mark.parametrize(
    ("done", "resets"),
    [
        (0, True),  # a new run, whose moments may be those of --init-from
        (1, False),
        (2, False),
        (3, True),  # resumed from the checkpoint of a phase's end, which has the moments from before
        (4, False),
    ],
)
def test_the_steps_before_which_moments_begin_anew(monkeypatch, done, resets):
    def refuse(*_):
        raise Reset

    config = dataclasses.replace(tiny_run.config(), phases=PHASES)
    run, state, _ = begin(config)
    index, phase_step = locate(PHASES, done)
    state = at_phase(state, run.setup.mesh, index, phase_step)
    found = []
    monkeypatch.setattr(loop, "reset_optimizer", lambda state, tx: found.append(tx) or state)
    monkeypatch.setattr(type(run.worker), "sample", refuse)
    with pytest.raises(Reset):
        train_step(run, state, Position(done, index, phase_step))
    assert bool(found) == resets
