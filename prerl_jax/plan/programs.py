"""All programs of a run, compiled ahead of time as a run compiles them, and what a device holds beside each.

    sample   the engine's programs: the weights as decoding has them, prefill, chunks of decoding, longer rings, fewer
             slots
    score    old and reference log-probabilities, where a phase needs them; the critic's values
    prepare  rollouts to batches
    train    the update
    align    the gradients in both spaces, where alignment is measured

Phases that share a program in a run share it here. A program that does not fit the memory of a device is no error: its
place is taken by what the compiler says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from prerl_jax.core.phases import Phase
from prerl_jax.plan.program import Held, Lengths, Program, attempted, title
from prerl_jax.plan.sampling import sampling_programs
from prerl_jax.trainer.abstract import abstract_inputs, abstract_reference, abstract_rollouts, as_packed
from prerl_jax.trainer.batching import BatchKind
from prerl_jax.trainer.engines import held_bytes
from prerl_jax.trainer.programs import Programs


def compile_programs(programs: Programs, lengths: Lengths) -> Iterator[Program]:
    """Compiles the programs of a run, one after the other, in the order in which a run first needs them."""
    yield from sampling_programs(programs, lengths)
    for role in (_values, _score, _prepare, _train):
        done: dict[Any, list[str]] = {}
        found = [(phase, work) for phase in programs.setup.phases for work in role(programs, phase)]
        for phase, work in found:
            done.setdefault(work.key, []).append(phase.name)
        for phase, work in found:
            if done[work.key][0] == phase.name:
                phases = tuple(done[work.key])
                yield work.compile(title(programs.setup, work.role, phases, everyone=False), phases)
    if programs.setup.config.alignment.every:
        yield _align(programs).compile("align", tuple(phase.name for phase in programs.setup.phases))


@dataclasses.dataclass(frozen=True)
class _Work:
    """A program that is not compiled yet: its identity, its role, how it is lowered, and which held bytes it reads."""

    key: Any
    role: str
    lower: Callable[[], jax.stages.Lowered]
    held: Held
    reads: tuple[str, ...]

    def compile(self, name: str, phases: tuple[str, ...]) -> Program:
        compiled, said = attempted(lambda: self.lower().compile())
        beside = sum(size for name, size in self.held.items() if name not in self.reads)
        return Program(name, phases, self.role, compiled, said, self.held, beside)


def _values(programs: Programs, phase: Phase) -> Iterator[_Work]:
    setup = programs.setup
    if phase.value_advantage is not None and (critic := setup.abstract_critic()) is not None:
        arguments = critic.params, abstract_rollouts(setup)
        program: Any = programs.values_program
        yield _Work(None, "values", lambda: program.lower(*arguments), held_bytes(setup), ("critic",))


def _score(programs: Programs, phase: Phase) -> Iterator[_Work]:
    setup, needed = programs.setup, phase.logprobs_needed_before_update
    if not needed and phase.reference is None:
        return
    both = {"old_logprobs": setup.model.abstract_params(), "ref_logprobs": abstract_reference(setup)}
    policies = {name: both[name] for name in needed or ("ref_logprobs",)}
    names = {"old_logprobs": "parameters", "ref_logprobs": "reference"}
    batch = dataclasses.replace(_batch(programs, phase), old_logprobs=None, ref_logprobs=None, critic=None)
    program: Any = programs.batching.score_program(phase.temperature)
    yield _Work(
        (phase.temperature, tuple(policies)),
        "score",
        lambda: program.lower(batch, policies),
        held_bytes(setup),
        tuple(names[name] for name in policies),
    )


def _prepare(programs: Programs, phase: Phase) -> Iterator[_Work]:
    kind, arguments = BatchKind.of(phase), _prepare_arguments(programs, phase)
    program: Any = programs.batching.prepare_program(kind)
    yield _Work(kind, "prepare", lambda: program.lower(*arguments), held_bytes(programs.setup), ())


def _train(programs: Programs, phase: Phase) -> Iterator[_Work]:
    setup, batch = programs.setup, _batch(programs, phase)
    last = () if phase.updates == 1 else (jax.ShapeDtypeStruct((), bool),)
    step: Any = programs.step(phase)
    yield _Work(
        (id(step), jax.tree.structure(batch), len(last)),
        "train",
        lambda: step.lower(setup.abstract_state(phase), batch, *last),
        held_bytes(setup),
        ("parameters", "optimizer", "critic", "critic's moments"),
    )


def _align(programs: Programs) -> _Work:
    setup = programs.setup
    program: Any = programs.align(setup.phases[0].temperature)
    arguments = setup.model.abstract_params(), abstract_rollouts(setup)
    return _Work(None, "align", lambda: program.lower(*arguments), held_bytes(setup), ("parameters",))


def _prepare_arguments(programs: Programs, phase: Phase) -> tuple[Any, ...]:
    setup, number = programs.setup, jax.ShapeDtypeStruct((), jnp.int32)
    return abstract_rollouts(setup), number, abstract_inputs(setup, phase, programs.batching.shape), number


def _batch(programs: Programs, phase: Phase) -> Any:
    """The packed batch of a phase's update, on the mesh."""
    program = programs.batching.prepare_program(BatchKind.of(phase))
    unpacked, _ = jax.eval_shape(program, *_prepare_arguments(programs, phase))
    return as_packed(programs.setup, phase, unpacked)
