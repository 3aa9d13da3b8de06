"""Counts the work of a compiled program on one device: FLOPs, bytes through HBM, between chips, and to the host.

The compiler's own `cost_analysis` counts the body of a loop once, and no kernel. Here a loop counts as often as it can
run (`loops`), a conditional as the dearer of its branches, at every run, a matrix product two FLOPs for each
multiplication and addition (`products`). Bytes are counted by `traffic` and `exchanges`. What a Pallas kernel costs
cannot be read from the program: it is what the caller says, or what the kernel's own estimate says, or else its
operands and results once.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prerl_jax.plan.exchanges import Exchange, exchanges
from prerl_jax.plan.hlo import Computation, Instruction, Module, parse
from prerl_jax.plan.loops import trips
from prerl_jax.plan.products import is_wide, product_flops, splash_flops
from prerl_jax.plan.traffic import hbm_bytes, host_bytes


@dataclasses.dataclass(frozen=True)
class Cost:
    """The work of one device.

    Attributes:
      flops: FLOPs of matrix products and kernels.
      hbm: bytes read and written in HBM.
      sent: bytes sent to other chips.
      wide: FLOPs of products of two float32 matrices, outside of kernels.
      host: bytes moved to and from the host.
    """

    flops: float = 0.0
    hbm: float = 0.0
    sent: float = 0.0
    wide: float = 0.0
    host: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))

    def __mul__(self, times: float) -> Cost:
        return Cost(*(a * times for a in dataclasses.astuple(self)))


@dataclasses.dataclass(frozen=True)
class Line:
    """An instruction that costs something, with all its runs.

    Attributes:
      name: the instruction's name.
      opcode: what it does.
      op_name: the JAX operation that it comes from, or "".
      source: the line of Python that it comes from, as "file.py:12 function", or "".
      result: its results, as bf16[8,128].
      times: how often it runs.
      depth: in how many loops it is.
      cost: the cost of one run.
      exchanges: the collectives that one run starts.
    """

    name: str
    opcode: str
    op_name: str
    source: str
    result: str
    times: int
    depth: int
    cost: Cost
    exchanges: tuple[Exchange, ...]

    @property
    def total(self) -> Cost:
        """The cost of all runs."""
        return self.cost * self.times


@dataclasses.dataclass(frozen=True)
class Count:
    """The work of a program.

    Attributes:
      lines: its instructions that cost something.
      unbounded: names of loops that count once, because no bound of theirs could be read.
    """

    lines: tuple[Line, ...]
    unbounded: tuple[str, ...]

    @property
    def total(self) -> Cost:
        """The whole cost of a device."""
        return sum((line.total for line in self.lines), Cost())

    def dearest(self, by: Callable[[Cost], float], most: int = 20) -> tuple[Line, ...]:
        """The lines with the highest costs, the dearest first; `by` says of a cost what counts, as its `hbm`."""
        found = [line for line in self.lines if by(line.total)]
        return tuple(sorted(found, key=lambda line: -by(line.total))[:most])

    def collectives(self, depth: int = 0) -> tuple[tuple[Exchange, int], ...]:
        """The collectives in at least this many loops, each with how often it runs; those that send most first."""
        found = [(e, line.times) for line in self.lines if line.depth >= depth for e in line.exchanges]
        return tuple(sorted(found, key=lambda pair: -pair[0].sent * pair[1]))


def count(program: str | Module, kernels: Mapping[str, Cost] | None = None, steps: int = 0) -> Count:
    """Counts a program's work on one device.

    Args:
      program: optimised HLO, as `jax.jit(f).lower(...).compile().as_text()` gives it, or what `parse` made of it.
      kernels: what one run of a Pallas kernel costs, by the kernel's name (`name` of `pallas_call`).
      steps: a conditional in which some branches have a loop of so many runs counts as one of these.

    Raises:
      ValueError: the text is not that of a compiled program, or has a type or replica groups of an unknown form.
    """
    module = parse(program) if isinstance(program, str) else program
    counter = _Counter(module, kernels or {}, steps, {}, [])
    return Count(counter.lines(module.entry), tuple(dict.fromkeys(counter.unbounded)))


@dataclasses.dataclass(frozen=True)
class _Counter:
    """A program that is being counted.

    Attributes:
      module: the program.
      kernels: see `count`.
      steps: see `count`.
      found: the lines of the computations that were counted already.
      unbounded: the loops without a bound so far.
    """

    module: Module
    kernels: Mapping[str, Cost]
    steps: int
    found: dict[str, tuple[Line, ...]]
    unbounded: list[str]

    def lines(self, name: str) -> tuple[Line, ...]:
        """The lines of one run of a computation."""
        if name not in self.found:
            computation = self.module.computations[name]
            lines = (line for i in computation.instructions.values() for line in self._instruction(computation, i))
            self.found[name] = tuple(lines)
        return self.found[name]

    def _instruction(self, computation: Computation, instruction: Instruction) -> Iterator[Line]:
        if instruction.opcode == "while":
            yield from self._loop(computation, instruction)
        elif instruction.opcode == "conditional":
            branches = _branches(instruction)
            wanted = [name for name in branches if self.steps and self._has_steps(name)]
            yield from max(map(self.lines, wanted or branches), key=_weight, default=())
        elif instruction.opcode == "call":
            yield from self.lines(instruction.called["to_apply"][0])
        else:
            cost, sent = self._cost(computation, instruction)
            if cost != Cost() or sent:
                yield self._line(instruction, cost, sent)

    def _has_steps(self, name: str) -> bool:
        """Whether a computation has a loop of `steps` runs."""
        computation = self.module.computations[name]
        loops = (i for i in computation.instructions.values() if i.opcode == "while")
        return any(trips(self.module, computation, loop) == self.steps for loop in loops)

    def _loop(self, computation: Computation, loop: Instruction) -> Iterator[Line]:
        bound = trips(self.module, computation, loop)
        if bound is None:
            self.unbounded.append(loop.name)
        times = 1 if bound is None else bound
        for role, runs in (("body", times), ("condition", times + 1)):
            for line in self.lines(loop.called[role][0]):
                yield dataclasses.replace(line, times=line.times * runs, depth=line.depth + 1)

    def _cost(self, computation: Computation, instruction: Instruction) -> tuple[Cost, tuple[Exchange, ...]]:
        kernel = self._kernel(instruction)
        if kernel is not None:
            return kernel, ()
        found = tuple(exchanges(self.module, computation, instruction))
        flops, wide = self._flops(computation, instruction)
        hbm = hbm_bytes(self.module, computation, instruction)
        host = host_bytes(self.module, computation, instruction)
        return Cost(flops, hbm, sum(e.sent for e in found), wide, host), found

    def _flops(self, computation: Computation, instruction: Instruction) -> tuple[float, float]:
        """FLOPs of an instruction and of what is fused into it: (all, those of float32 matrices)."""
        flops = product_flops(computation, instruction)
        wide = flops if is_wide(computation, instruction) else 0.0
        flops += splash_flops(instruction)
        inside = self.module.inside(instruction)
        for inner in inside.instructions.values() if inside else ():
            more, more_wide = self._flops(inside or computation, inner)
            flops, wide = flops + more, wide + more_wide
        return flops, wide

    def _kernel(self, instruction: Instruction) -> Cost | None:
        """The cost of a Pallas kernel, if it is given or if the kernel estimates it."""
        if instruction.opcode != "custom-call":
            return None
        name = re.sub(r"(\.\d+)+$", "", instruction.name)
        if name in self.kernels:
            return self.kernels[name]
        estimate = instruction.attributes.partition('"cost_estimate":{')[2].partition("}")[0]
        given: dict[str, Any] = dict(re.findall(r'"(\w+)":"?([\d.e+]+)', estimate))
        if "bytes_accessed" not in given:
            return None
        return Cost(float(given.get("flops", 0)), float(given["bytes_accessed"]))

    def _line(self, instruction: Instruction, cost: Cost, sent: tuple[Exchange, ...]) -> Line:
        result = ", ".join(map(str, instruction.shapes))
        source = self.module.source(instruction)
        return Line(instruction.name, instruction.opcode, instruction.op_name, source, result, 1, 0, cost, sent)


def _branches(conditional: Instruction) -> tuple[str, ...]:
    called = conditional.called
    both = called.get("true_computation", ()) + called.get("false_computation", ())
    return called.get("branch_computations", both)


def _weight(lines: tuple[Line, ...]) -> tuple[float, float]:
    total = sum((line.total for line in lines), Cost())
    return total.hbm + total.sent + total.host, total.flops
