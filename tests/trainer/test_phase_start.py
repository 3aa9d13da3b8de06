"""Moments begin anew when a phase that asks for it is entered, however a run came there."""

import types

import pytest

from prerl_jax import Phase
from prerl_jax.core.phases import locate
from prerl_jax.trainer import loop as loop_module
from prerl_jax.trainer.loop import Loop

PHASES = (Phase("first", 2, reset_optimizer=True), Phase("second", 1), Phase("third", 2, reset_optimizer=True))


@pytest.mark.parametrize(
    ("done", "resets"),
    [
        (0, [(0, "first"), (3, "third")]),  # a new run, whose moments may be those of --init-from
        (1, [(3, "third")]),
        (3, [(3, "third")]),  # resumed from the checkpoint of a phase's end, which has the moments from before
        (4, []),
    ],
)
def test_the_steps_before_which_moments_begin_anew(monkeypatch, done, resets):
    found = []
    setup = types.SimpleNamespace(phases=PHASES, optimizer=lambda phase: phase.name)
    index, already = locate(PHASES, done)
    state = types.SimpleNamespace(step=done, phase=index, phase_step=already)
    run = types.SimpleNamespace(setup=setup, state=state)
    monkeypatch.setattr(loop_module, "reset_optimizer", lambda state, tx: found.append((loop.number, tx)) or state)
    monkeypatch.setattr(loop_module, "sample", lambda run, step, check: None)
    monkeypatch.setattr(loop_module, "update", lambda run, step, later: None)
    loop = Loop(run)
    while loop.index < len(PHASES):
        loop.step()
    assert found == resets
