"""The arrays of a step as shapes are those of a run."""

import dataclasses

import jax
import pytest
import tiny_run

from prerl_jax.trainer.abstract import abstract_inputs, abstract_rollouts, as_packed
from prerl_jax.trainer.batching import Batching, BatchKind
from prerl_jax.trainer.programs import Programs


def shapes(tree):
    return jax.tree.map(lambda x: (x.shape, str(x.dtype)), tree)


@pytest.mark.slow
def test_the_shapes_are_those_of_a_run(monkeypatch):
    """Half a minute: two steps of a run; what its programs get is what a plan compiles them for."""
    config, seen = tiny_run.config(), {}
    config = dataclasses.replace(config, alignment=dataclasses.replace(config.alignment, every=0))
    prepare, step = Batching.prepare, Programs.step

    def prepared(self, phase, rollouts, inputs, update=0):
        seen[phase.name, "rollouts"], seen[phase.name, "inputs"] = rollouts, inputs
        return prepare(self, phase, rollouts, inputs, update)

    def stepped(self, phase):
        def run(state, batch, *last):
            seen[phase.name, "batch"] = batch
            return step(self, phase)(state, batch, *last)

        return run

    monkeypatch.setattr(Batching, "prepare", prepared)
    monkeypatch.setattr(Programs, "step", stepped)
    run, _, _ = tiny_run.steps(config, 2, jax.devices()[:1])
    programs, phase = run.programs, run.programs.setup.phases[0]
    rollouts = abstract_rollouts(programs.setup)
    inputs = abstract_inputs(programs.setup, phase, programs.batching.shape)
    assert shapes(seen[phase.name, "rollouts"]) == shapes(rollouts)
    assert shapes(seen[phase.name, "inputs"]) == shapes(inputs)
    number = jax.ShapeDtypeStruct((), "int32")
    program = programs.batching.prepare_program(BatchKind.of(phase))
    unpacked, _ = jax.eval_shape(program, rollouts, number, inputs, number)
    assert shapes(seen[phase.name, "batch"]) == shapes(as_packed(programs.setup, phase, unpacked))
