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
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from prerl_jax.core.phases import Phase
from prerl_jax.plan.count import Cost
from prerl_jax.plan.native import captured_stderr
from prerl_jax.rollout.continuous import ContinuousBatchingEngine
from prerl_jax.rollout.engine import Engine
from prerl_jax.rollout.plan import BatchingPlan
from prerl_jax.rollout.static import StaticBatchingEngine
from prerl_jax.runtime.state import bytes_per_device
from prerl_jax.trainer.abstract import (
    abstract_inputs,
    abstract_key,
    abstract_prompts,
    abstract_reference,
    abstract_rollouts,
    as_packed,
)
from prerl_jax.trainer.batching import BatchKind
from prerl_jax.trainer.programs import Programs
from prerl_jax.trainer.setup import Setup

EVALUATION = "evaluation"
Held = Mapping[str, int]
"""Bytes on a device, by what they are."""
ENGINE_ROLES = {
    "decode_weights": ("copy", ("parameters",)),
    "prefill": ("prefill", ("decode weights",)),
    "decode_chunk": ("decode", ("decode weights", "cache")),
    "longer_ring": ("grow", ("cache",)),
    "fewer_slots": ("shrink", ("cache",)),
}
"""By the engine's name of a program: its role, and which of the held bytes are its inputs."""
OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"


@dataclasses.dataclass(frozen=True)
class Lengths:
    """Assumed mean tokens of a prompt and of a response."""

    prompt: int
    response: int


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program of a run.

    Attributes:
        name: its name, unique in the plan.
        phases: the names of the phases that run it; "evaluation" is one of them.
        role: its part in a run: copy, prefill, decode, grow, shrink, sample, score, values, prepare, train or align.
        compiled: the program, or what the compiler says where it does not fit a device.
        said: what the compiler writes beside it, such as warnings of its partitioner.
        held: what a run holds on a device while the program runs, by name.
        beside: those bytes of `held` that are no inputs of the program.
        tokens: the most that it draws for each slot, in a program that decodes; else 0.
        columns: the columns of the ring, of a chunk of decoding.
        attention: what the kernel of decoding does in all its runs, if it reads what is filled on average.
    """

    name: str
    phases: tuple[str, ...]
    role: str
    compiled: jax.stages.Compiled | str
    said: str
    held: Held
    beside: int
    tokens: int = 0
    columns: int = 0
    attention: Cost = Cost()


def compile_programs(programs: Programs, lengths: Lengths) -> Iterator[Program]:
    """Compiles the programs of a run, one after the other, in the order in which a run first needs them."""
    yield from _sampling_programs(programs, lengths)
    for role in (_values, _score, _prepare, _train):
        done: dict[Any, list[str]] = {}
        found = [(phase, work) for phase in programs.setup.phases for work in role(programs, phase)]
        for phase, work in found:
            done.setdefault(work.key, []).append(phase.name)
        for phase, work in found:
            if done[work.key][0] == phase.name:
                phases = tuple(done[work.key])
                yield work.compile(_name(programs.setup, work.role, phases, everyone=False), phases)
    if programs.setup.config.alignment.every:
        yield _align(programs).compile("align", tuple(phase.name for phase in programs.setup.phases))


def _name(setup: Setup, what: str, who: tuple[str, ...], everyone: bool = True) -> str:
    """The name of a program: with those who run it, unless these are all phases, and evaluation too if `everyone`."""
    phases = tuple(phase.name for phase in setup.phases)
    if who == ((*phases, EVALUATION) if everyone else phases):
        return what
    return f"{what} {'training' if who == phases else '+'.join(who)}"


def resident(setup: Setup) -> dict[str, int]:
    """The bytes on a device that a run holds from its first step to its last: the train state and the reference."""
    state = setup.abstract_state()
    held = {"parameters": bytes_per_device(state.params), "optimizer": bytes_per_device(state.opt_state)}
    if state.critic is not None:
        held["critic"] = bytes_per_device(dataclasses.asdict(state.critic))
    if any(phase.reference for phase in setup.phases):
        held["reference"] = bytes_per_device(abstract_reference(setup))
    return held


@dataclasses.dataclass(frozen=True)
class _Work:
    """A program that is not compiled yet: its identity, its role, how it is lowered, and which held bytes it reads."""

    key: Any
    role: str
    lower: Callable[[], jax.stages.Lowered]
    held: Held
    reads: tuple[str, ...]

    def compile(self, name: str, phases: tuple[str, ...]) -> Program:
        compiled, said = _compiled(lambda: self.lower().compile())
        beside = sum(size for name, size in self.held.items() if name not in self.reads)
        return Program(name, phases, self.role, compiled, said, self.held, beside)


def _compiled(compile_it: Callable[[], Any]) -> tuple[Any, str]:
    """(what is compiled, or the compiler's words where it does not fit; what was written to standard error)."""
    with captured_stderr() as said:
        try:
            found = compile_it()
        except jax.errors.JaxRuntimeError as error:
            if OUT_OF_MEMORY not in str(error):
                raise
            found = str(error)
    return found, said[0]


def _values(programs: Programs, phase: Phase) -> Iterator[_Work]:
    setup = programs.setup
    if phase.value_advantage is not None and (critic := setup.abstract_critic()) is not None:
        arguments = critic.params, abstract_rollouts(setup)
        program: Any = programs.values_program
        yield _Work(None, "values", lambda: program.lower(*arguments), resident(setup), ("critic",))


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
        resident(setup),
        tuple(names[name] for name in policies),
    )


def _prepare(programs: Programs, phase: Phase) -> Iterator[_Work]:
    kind, arguments = BatchKind.of(phase), _prepare_arguments(programs, phase)
    program: Any = programs.batching.prepare_program(kind)
    yield _Work(kind, "prepare", lambda: program.lower(*arguments), resident(programs.setup), ())


def _train(programs: Programs, phase: Phase) -> Iterator[_Work]:
    setup, batch = programs.setup, _batch(programs, phase)
    last = () if phase.updates == 1 else (jax.ShapeDtypeStruct((), bool),)
    step: Any = programs.step(phase)
    yield _Work(
        (id(step), jax.tree.structure(batch), len(last)),
        "train",
        lambda: step.lower(setup.abstract_state(phase), batch, *last),
        resident(setup),
        ("parameters", "optimizer", "critic"),
    )


def _align(programs: Programs) -> _Work:
    setup = programs.setup
    program: Any = programs.align(setup.phases[0].temperature)
    arguments = setup.model.abstract_params(), abstract_rollouts(setup)
    return _Work(None, "align", lambda: program.lower(*arguments), resident(setup), ("parameters",))


def _prepare_arguments(programs: Programs, phase: Phase) -> tuple[Any, ...]:
    setup, number = programs.setup, jax.ShapeDtypeStruct((), jnp.int32)
    return abstract_rollouts(setup), number, abstract_inputs(setup, phase, programs.batching.shape), number


def _batch(programs: Programs, phase: Phase) -> Any:
    """The packed batch of a phase's update, on the mesh."""
    program = programs.batching.prepare_program(BatchKind.of(phase))
    unpacked, _ = jax.eval_shape(program, *_prepare_arguments(programs, phase))
    return as_packed(programs.setup, phase, unpacked)


def engines(programs: Programs) -> list[tuple[tuple[str, ...], Engine, int]]:
    """(who samples with it, the engine, the prompts of a call) of each engine that has programs of its own."""
    setup, sampling = programs.setup, programs.setup.config.sampling
    calls = [(phase.name, programs.engine(phase), sampling.prompts_per_step) for phase in setup.phases]
    calls.append((EVALUATION, programs.evaluation_engine, setup.evaluation_calls.prompts))
    found: dict[Any, tuple[list[str], Engine, int]] = {}
    for name, engine, prompts in calls:
        found.setdefault((_identity(engine), prompts), ([], engine, prompts))[0].append(name)
    return [(tuple(dict.fromkeys(names)), engine, prompts) for names, engine, prompts in found.values()]


def _identity(engine: Any) -> Any:
    """Equal for engines that share their programs: a temperature above 0 is an input of the programs."""
    if not isinstance(engine, ContinuousBatchingEngine):
        return id(engine)
    config = dataclasses.replace(engine.config, temperature=float(engine.config.temperature > 0))
    return dataclasses.replace(engine, config=config)


def _sampling_programs(programs: Programs, lengths: Lengths) -> Iterator[Program]:
    setup = programs.setup
    for who, engine, prompts in engines(programs):
        if isinstance(engine, ContinuousBatchingEngine):
            yield from _continuous(setup, who, engine, prompts, lengths)
        elif isinstance(engine, StaticBatchingEngine):
            yield _static(setup, who, engine, prompts)


def _static(setup: Setup, who: tuple[str, ...], engine: StaticBatchingEngine, prompts: int) -> Program:
    sampler: Any = engine.sampler
    arguments = setup.model.abstract_params(), abstract_prompts(setup, prompts), abstract_key(setup)
    compiled, said = _compiled(lambda: sampler.lower(*arguments).compile())
    held, columns = resident(setup), setup.config.sampling.max_new_tokens
    beside = sum(held.values()) - held["parameters"]
    return Program(_name(setup, "sample", who), who, "sample", compiled, said, held, beside, columns, columns)


def program_names(plan: BatchingPlan) -> list[str]:
    """The names that `ContinuousBatchingEngine.compile` yields on a mesh, in its order."""
    rings = [f"decode_chunk/{plan.rings[0]}"]
    for columns in plan.rings[1:]:
        rings += [f"longer_ring/{columns}", f"decode_chunk/{columns}"]
    return ["decode_weights", "prefill", *rings, *(f"fewer_slots/{count}" for count in plan.shrink)]


def _continuous(
    setup: Setup, who: tuple[str, ...], engine: ContinuousBatchingEngine, prompts: int, lengths: Lengths
) -> Iterator[Program]:
    """The programs of continuous batching, up to the first that does not fit: its results are the next one's inputs."""
    plan = engine.plan(prompts * engine.group_size, setup.config.data.max_prompt_tokens)
    made = engine.compile(setup.model.abstract_params(), abstract_prompts(setup, prompts), abstract_key(setup))
    held = resident(setup)
    for name in program_names(plan):
        compiled, said = _compiled(lambda: next(made)[1])
        kind, _, number = name.partition("/")
        role, reads = ENGINE_ROLES[kind]
        if role == "decode" and not isinstance(compiled, str):
            held["cache"] = compiled.memory_analysis().argument_size_in_bytes - held["decode weights"]
        read = sum(held.get(what, 0) for what in reads)
        if role == "grow" and not isinstance(compiled, str):  # the ring alone, without the prompts
            read = min(read, compiled.memory_analysis().argument_size_in_bytes)
        beside, title = sum(held.values()) - read, _name(setup, name, who)
        found = Program(title, who, role, compiled, said, dict(held), beside)
        if role == "decode":
            attention = _attention(setup, plan, prompts, lengths)
            found = dataclasses.replace(found, tokens=plan.chunk, columns=int(number), attention=attention)
        yield found
        if isinstance(compiled, str):
            return
        if role == "copy":
            held["decode weights"] = compiled.memory_analysis().output_size_in_bytes


def _attention(setup: Setup, plan: BatchingPlan, prompts: int, lengths: Lengths) -> Cost:
    """Reading the prompts and, since slots are filled anew, half of a mean response of each slot, for every token."""
    model = setup.model if plan.mesh is None else setup.model.on_mesh(plan.mesh)
    shape, dtype, half = model.config, setup.config.sampling.cache_dtype, -(-lengths.response // 2)
    read = model.cache_bytes(prompts if plan.shared else plan.slots, lengths.prompt, dtype)
    read += model.cache_bytes(plan.slots, half, dtype)
    pairs = plan.slots * (lengths.prompt + half) / setup.mesh.size
    return Cost(4.0 * shape.num_layers * shape.num_heads * shape.head_dim * pairs, read) * plan.chunk
