"""Reads the text of a compiled program, XLA's optimised HLO, into computations and their instructions.

`compiled.as_text()` gives the text. A program is a set of computations. One of them, the entry, is run. It calls
others: the bodies of loops, the branches of conditionals, and the insides of fusions. The text is read as the compilers
for TPUs, GPUs and CPUs write it. Of a layout are kept the order of the dimensions, the tile and the memory space.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Mapping

from prerl_jax.plan.frames import frames

HBM, HOST = 0, 5
"""Memory spaces: layouts do not name HBM; 5 is the host's memory. Others are on the chip, as 1 is (VMEM)."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """The shape of an array.

    Attributes:
      dtype: as HLO writes it: bf16, f32, s32, pred, ...
      dims: the sizes of its dimensions.
      order: the dimensions from the one whose elements lie next to each other to the outermost.
      tile: the sizes to which the innermost dimensions are padded, the outer one first; () without padding.
      bits: bits of one element.
      space: its memory space, see `HBM`.
    """

    dtype: str
    dims: tuple[int, ...]
    order: tuple[int, ...]
    tile: tuple[int, ...]
    bits: int
    space: int

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        """Bytes in memory, with the padding of its tiles; a scalar is not padded."""
        held = [self.dims[d] for d in reversed(self.order)] if self.order else list(self.dims)
        for back, tile in enumerate(reversed(self.tile), 1):
            if back <= len(held):
                held[-back] = -(-held[-back] // tile) * tile
        return -(-math.prod(held) * self.bits // 8)

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.dims))}]"


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
      name: its name, unique in the program.
      opcode: what it does: dot, fusion, while, ...
      parts: its results: one for each element of the tuple that it returns, or one for its array. Each part is the
        shapes of its arrays, as an element may be a tuple again.
      operands: names of the instructions of its computation that it reads.
      literal: what stands in the parentheses of a parameter (its number) or a constant (its value); else "".
      attributes: all that follows the parentheses.
    """

    name: str
    opcode: str
    parts: tuple[tuple[Shape, ...], ...]
    operands: tuple[str, ...]
    literal: str
    attributes: str

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The shapes of all arrays that it returns."""
        return tuple(shape for part in self.parts for shape in part)

    @functools.cached_property
    def called(self) -> Mapping[str, tuple[str, ...]]:
        """The computations that it calls, by role: calls, to_apply, condition, body, branch_computations, ..."""
        found = {role: (name,) for role, name in re.findall(r"\b(\w+)=%([\w.\-]+)", self.attributes)}
        lists = re.findall(r"\b(\w+)=\{(%[^}]*)\}", self.attributes)
        return found | {role: tuple(re.findall(r"%([\w.\-]+)", names)) for role, names in lists}

    @property
    def target(self) -> str:
        """The target of a custom call, or ""."""
        return self._quoted("custom_call_target")

    @property
    def op_name(self) -> str:
        """The JAX operation that it comes from, as jit(f)/while/body/dot_general, or ""."""
        return self._quoted("op_name")

    @property
    def frame(self) -> int | None:
        """The number of its frame in `Module.frames`."""
        found = re.search(r"stack_frame_id=(\d+)", self.attributes)
        return int(found[1]) if found else None

    def _quoted(self, key: str) -> str:
        found = re.search(rf'\b{key}="([^"]*)"', self.attributes)
        return found[1] if found else ""


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions by name, in order. The value of `root` is the computation's result."""

    name: str
    instructions: Mapping[str, Instruction]
    root: str

    @functools.cached_property
    def parameters(self) -> tuple[Instruction, ...]:
        """Its parameters, in order."""
        found = (i for i in self.instructions.values() if i.opcode == "parameter")
        return tuple(sorted(found, key=lambda i: int(i.literal)))

    @functools.cached_property
    def users(self) -> Mapping[str, tuple[Instruction, ...]]:
        """The instructions that read a value, by its name."""
        found: dict[str, list[Instruction]] = {name: [] for name in self.instructions}
        for instruction in self.instructions.values():
            for name in dict.fromkeys(instruction.operands):
                found.setdefault(name, []).append(instruction)
        return {name: tuple(users) for name, users in found.items()}

    @property
    def results(self) -> tuple[str, ...]:
        """The names of the values that it returns: the elements of its root where that is a tuple."""
        root = self.instructions[self.root]
        return root.operands if root.opcode == "tuple" else (self.root,)


@dataclasses.dataclass(frozen=True)
class Module:
    """A program.

    Attributes:
      entry: the name of the computation that is run.
      computations: all computations by name.
      devices: how many devices run it together.
      frames: the lines of Python that instructions come from, as "file.py:12 function", by `Instruction.frame`.
    """

    entry: str
    computations: Mapping[str, Computation]
    devices: int
    frames: Mapping[int, str]

    def inside(self, instruction: Instruction) -> Computation | None:
        """The computation inside of a fusion or of an asynchronous operation, or None."""
        names = instruction.called.get("calls")
        return self.computations[names[0]] if names else None

    def source(self, instruction: Instruction) -> str:
        """The line of Python that it comes from, or ""."""
        return "" if instruction.frame is None else self.frames.get(instruction.frame, "")


def parse(text: str) -> Module:
    """Reads a program.

    Args:
      text: optimised HLO, as `jax.jit(f).lower(...).compile().as_text()` gives it.

    Raises:
      ValueError: the text has no entry computation, or a line cannot be read.
    """
    computations, entry = {}, ""
    lines: list[str] = []
    name = ""
    for line in text.splitlines():
        header = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{\s*$", line)
        if header:
            name, lines = header[2], []
            entry = name if header[1] else entry
        elif name and re.match(r"\}(, execution_thread=.*)?\s*$", line):
            computations[name], name = _computation(name, lines), ""
        elif name and re.match(r"\s+(ROOT )?%", line):
            lines.append(line)
        elif name and lines:  # metadata of a kernel goes over several lines
            lines[-1] += line
    if not entry:
        raise ValueError(f"no ENTRY computation in {len(text)} characters: this is not the text of a compiled program.")
    return Module(entry, computations, _devices(text), frames(text))


def _computation(name: str, lines: list[str]) -> Computation:
    found = {i.name: i for i in map(_instruction, lines)}
    roots = [line for line in lines if line.lstrip().startswith("ROOT ")]
    if len(roots) != 1:
        raise ValueError(f"computation {name} has {len(roots)} lines that begin with ROOT, there must be one.")
    return Computation(name, found, _instruction(roots[0]).name)


def _instruction(line: str) -> Instruction:
    found = re.match(r"\s+(?:ROOT )?%([\w.\-]+) = (.*)$", line)
    if not found:
        raise ValueError(f"not an instruction: {line[:200]}")
    name, rest = found.groups()
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    kind, rest = rest[:end], rest[end:].lstrip()
    opcode, _, _ = rest.partition("(")
    close = _closing(rest, len(opcode))
    inside = rest[len(opcode) + 1 : close]
    is_literal = opcode in ("parameter", "constant")
    operands = () if is_literal else tuple(re.findall(r"%([\w.\-]+)", inside))
    return Instruction(name, opcode, _parts(kind), operands, inside if is_literal else "", rest[close + 1 :])


def _closing(text: str, start: int) -> int:
    """The index of the parenthesis that closes the one at `start`."""
    depth = 0
    for found in re.finditer(r"[()]", text[start:]):
        depth += 1 if found[0] == "(" else -1
        if depth == 0:
            return start + found.start()
    raise ValueError(f"a parenthesis that is not closed: {text[start : start + 200]}")


def _parts(kind: str) -> tuple[tuple[Shape, ...], ...]:
    """The parts of a type; the elements of a tuple are between commas that are in no other bracket."""
    if not kind.startswith("("):
        return (shapes(kind),)
    parts, depth, start = [], 0, 1
    for found in re.finditer(r"[(){}\[\],]", kind):
        if found[0] in ")}]":
            depth -= 1
        if depth == (0 if found[0] == ")" else 1) and found[0] in "),":
            parts.append(kind[start : found.start()])
            start = found.end()
        if found[0] in "({[":
            depth += 1
    return tuple(shapes(part) for part in parts if part.strip())


def shapes(text: str) -> tuple[Shape, ...]:
    """All shapes in a text, such as "f32[2,3]{1,0:T(8,128)S(1)}"."""
    return tuple(_shape(*found) for found in re.findall(r"\b([a-z]\w*)\[([\d,<=]*)\](?:\{([^}]*)\})?", text))


def _shape(dtype: str, dims: str, layout: str) -> Shape:
    order, _, rest = layout.partition(":")
    tile, space, packed = (re.search(rf"{letter}\(([\d,*]*)\)", rest) for letter in "TSE")
    return Shape(
        dtype,
        tuple(int(d) for d in re.findall(r"\d+", dims)),
        tuple(int(d) for d in re.findall(r"\d+", order)),
        tuple(int(d) for d in re.findall(r"\d+", tile[1])) if tile else (),
        int(packed[1]) if packed else _bits(dtype),
        int(space[1]) if space else HBM,
    )


def _bits(dtype: str) -> int:
    """Bits of an element; types of less than a byte are kept in one."""
    if dtype in ("token", "opaque"):
        return 0
    found = re.match(r"(?:bf|f|s|u|c)(\d+)", dtype)
    if dtype != "pred" and not found:
        raise ValueError(f"unknown type of elements: {dtype}.")
    return max(8, int(found[1])) if found else 8


def _devices(text: str) -> int:
    header = text[: text.find("\n")]
    counts = (re.search(rf"\b{key}=(\d+)", header) for key in ("num_partitions", "replica_count"))
    return math.prod(int(found[1]) for found in counts if found)
