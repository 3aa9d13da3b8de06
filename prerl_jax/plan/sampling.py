"""The programs of a run's engines, which sample responses in training and in evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from prerl_jax.plan.count import Cost
from prerl_jax.plan.program import EVALUATION, Lengths, Program, attempted, title
from prerl_jax.rollout.continuous import ContinuousBatchingEngine
from prerl_jax.rollout.engine import Engine
from prerl_jax.rollout.layout import on_decode_mesh
from prerl_jax.rollout.plan import BatchingPlan
from prerl_jax.rollout.static import StaticBatchingEngine
from prerl_jax.runtime.state import bytes_per_device
from prerl_jax.trainer.abstract import abstract_key, abstract_prompts
from prerl_jax.trainer.engines import held_bytes
from prerl_jax.trainer.programs import Programs
from prerl_jax.trainer.setup import Setup

ENGINE_ROLES = {
    "decode_weights": ("copy", ("parameters",)),
    "prefill": ("prefill", ("decode weights",)),
    "decode_chunk": ("decode", ("decode weights", "cache")),
    "longer_ring": ("grow", ("cache",)),
    "fewer_slots": ("shrink", ("cache",)),
}
"""By the engine's name of a program: its role, and which of the held bytes are its inputs."""


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


def sampling_programs(programs: Programs, lengths: Lengths) -> Iterator[Program]:
    """Compiles the programs of the engines of all phases and of evaluation. Those of an engine of another class are not
    known."""
    setup = programs.setup
    for who, engine, prompts in engines(programs):
        if isinstance(engine, ContinuousBatchingEngine):
            yield from _continuous(setup, who, engine, prompts, lengths)
        elif isinstance(engine, StaticBatchingEngine):
            yield _static(setup, who, engine, prompts)


def _static(setup: Setup, who: tuple[str, ...], engine: StaticBatchingEngine, prompts: int) -> Program:
    sampler: Any = engine.sampler
    arguments = setup.model.abstract_params(), abstract_prompts(setup, prompts), abstract_key(setup)
    compiled, said = attempted(lambda: sampler.lower(*arguments).compile())
    held, columns = held_bytes(setup), setup.config.sampling.max_new_tokens
    beside = sum(held.values()) - held["parameters"]
    return Program(title(setup, "sample", who), who, "sample", compiled, said, held, beside, columns, columns)


def program_names(plan: BatchingPlan, copied: bool) -> list[str]:
    """The names that `ContinuousBatchingEngine.compile` yields, in its order; `copied`: whether it copies weights."""
    rings = [f"decode_chunk/{plan.rings[0]}"]
    for columns in plan.rings[1:]:
        rings += [f"longer_ring/{columns}", f"decode_chunk/{columns}"]
    return [*["decode_weights"] * copied, "prefill", *rings, *(f"fewer_slots/{count}" for count in plan.shrink)]


def _continuous(
    setup: Setup, who: tuple[str, ...], engine: ContinuousBatchingEngine, prompts: int, lengths: Lengths
) -> Iterator[Program]:
    """The programs of continuous batching, up to the first that does not fit: its results are the next one's inputs."""
    plan = engine.plan(prompts * engine.group_size, setup.config.data.max_prompt_tokens)
    made = engine.compile(setup.model.abstract_params(), abstract_prompts(setup, prompts), abstract_key(setup))
    held, copied = held_bytes(setup), engine.programs(plan).lay_out is not None
    if not copied:  # the weights are a result of prefill
        held["decode weights"] = bytes_per_device(setup.model.abstract_params(setup.model.compute_dtype))
    for name in program_names(plan, copied):
        compiled, said = attempted(lambda: next(made)[1])
        kind, _, number = name.partition("/")
        role, reads = ENGINE_ROLES[kind]
        if role == "prefill" and not copied:
            reads = ("parameters", "decode weights")
        if role == "decode" and not isinstance(compiled, str):
            held["cache"] = compiled.memory_analysis().argument_size_in_bytes - held["decode weights"]
        read = sum(held.get(what, 0) for what in reads)
        if role == "grow" and not isinstance(compiled, str):  # the ring alone, without the prompts
            read = min(read, compiled.memory_analysis().argument_size_in_bytes)
        beside = sum(held.values()) - read
        found = Program(title(setup, name, who), who, role, compiled, said, dict(held), beside)
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
    model = on_decode_mesh(setup.model, plan.mesh)
    shape, dtype, half = model.config, setup.config.sampling.cache_dtype, -(-lengths.response // 2)
    read = model.cache_bytes(prompts if plan.shared else plan.slots, lengths.prompt, dtype)
    read += model.cache_bytes(plan.slots, half, dtype)
    pairs = plan.slots * (lengths.prompt + half) / setup.mesh.size
    return Cost(4.0 * shape.num_layers * shape.num_heads * shape.head_dim * pairs, read) * plan.chunk
