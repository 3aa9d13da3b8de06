"""One compiled program of a run, and what a run holds on a device beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax

from prerl_jax.plan.count import Cost
from prerl_jax.plan.native import captured_stderr
from prerl_jax.trainer.setup import Setup

EVALUATION = "evaluation"
Held = Mapping[str, int]
"""Bytes on a device, by what they are."""
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


def title(setup: Setup, what: str, who: tuple[str, ...], everyone: bool = True) -> str:
    """The name of a program: with those who run it, unless these are all phases, and evaluation too if `everyone`."""
    phases = tuple(phase.name for phase in setup.phases)
    if who == ((*phases, EVALUATION) if everyone else phases):
        return what
    return f"{what} {'training' if who == phases else '+'.join(who)}"


def attempted(compile_it: Callable[[], Any]) -> tuple[Any, str]:
    """(what is compiled, or the compiler's words where it does not fit; what was written to standard error)."""
    with captured_stderr() as said:
        try:
            found = compile_it()
        except jax.errors.JaxRuntimeError as error:
            if OUT_OF_MEMORY not in str(error):
                raise
            found = str(error)
    return found, said[0]
