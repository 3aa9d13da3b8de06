"""Moments begin anew when a phase that asks for it is entered, however a run came there."""

import types

import pytest

from prerl_jax import Phase
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
    assembly = types.SimpleNamespace(phases=PHASES, optimizer=lambda phase: phase.name)
    run = types.SimpleNamespace(assembly=assembly, state=done)
    monkeypatch.setattr(loop_module, "reset_optimizer", lambda state, tx: found.append((state, tx)) or state)
    monkeypatch.setattr(Loop, "_ask", lambda self, number, phase: types.SimpleNamespace(late=None))
    monkeypatch.setattr(Loop, "_sample", lambda self, step: None)
    monkeypatch.setattr(loop_module, "update", lambda run, step: setattr(run, "state", run.state + 1))
    loop = Loop(run)
    for number in range(done + 1, 6):
        loop.step(number)
    assert found == resets
