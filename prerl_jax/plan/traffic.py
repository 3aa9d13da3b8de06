"""Bytes that an instruction of a compiled program reads and writes in HBM, and in the host's memory.

What an instruction does inside, it does on the chip: a fusion reads its operands and writes its results, once. Of these
count only the bytes that are touched, in one memory: HBM, or the host's, not those on the chip. Of an operand that
is sliced, or from which rows are gathered, the slices are read. An operand that is updated in place, by a
dynamic-update-slice or a scatter, is written where the update lies, and only that. XLA updates in place wherever the
operand of an update is an operand of the fusion: where it cannot, it has made a copy before, which is counted as one.

An asynchronous operation counts where it starts. A collective that other fusions carry on, so that it overlaps with
them (libtpu's async collective fusions), also counts where it starts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from prerl_jax.plan.hlo import HBM, HOST, Computation, Instruction, Module, Shape

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
SLICES = ("dynamic-slice", "slice", "gather")
MOVED = ("bitcast", "reshape", "transpose", "convert", "copy", "reverse")
"""Operations that give each element of their operand once: of a slice of their result, a slice of it is read."""
FREE = (
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call", "conditional"),
    *("after-all", "add-dependency", "opt-barrier", "optimization-barrier", "domain", "partition-id", "replica-id"),
)
NOTHING_MOVES = ("AllocateBuffer", "ConcatBitcast", "AsyncCollectiveDone")
"""Targets of custom calls that only name memory."""
ON_HOST = "HostExecute"
"""The target of custom calls that the host computes."""


def hbm_bytes(module: Module, computation: Computation, instruction: Instruction) -> int:
    """Bytes that one run of an instruction reads and writes in a device's HBM.

    Loops, conditionals and calls cost nothing themselves; see `count` for what they run.
    """
    return _moved(module, computation, instruction, HBM)


def host_bytes(module: Module, computation: Computation, instruction: Instruction) -> int:
    """Bytes that one run of an instruction moves between a device and the host: what it reads and writes in the host's
    memory; what the host reads and writes in HBM, if the host computes it."""
    return _moved(module, computation, instruction, HBM if instruction.target == ON_HOST else HOST)


def _moved(module: Module, computation: Computation, instruction: Instruction, space: int) -> int:
    """Bytes that one run of an instruction reads and writes in a memory space."""
    opcode = instruction.opcode
    if opcode in FREE or opcode.endswith(("-done", "-update")) or instruction.target in NOTHING_MOVES:
        return 0
    fused = module.inside(instruction)
    inside = fused or _alone(computation, instruction)
    names = instruction.operands if fused else dict.fromkeys(instruction.operands)
    read = sum(
        _in(space, shape, _read(module, inside, parameter.name, False))
        for parameter, name in zip(inside.parameters, names, strict=True)
        for shape in computation.instructions[name].shapes[:1]
    )
    return read + sum(_in(space, shape, elements) for shape, elements in _results(module, inside, instruction))


def result_parts(instruction: Instruction) -> tuple[tuple[Shape, ...], ...]:
    """The parts of its results; of an operation that starts, those that it will have when it is done."""
    opcode, parts = instruction.opcode, instruction.parts
    if not opcode.endswith("-start") or opcode == "all-reduce-start" or len(parts) < 2:
        return parts
    found = parts[0] if opcode == "copy-start" else parts[1]
    return tuple((shape,) for shape in found)


def carries_on(computation: Computation, instruction: Instruction) -> bool:
    """Whether this collective has started in a fusion before, and is only carried on in this one."""
    if instruction.opcode not in COLLECTIVES or "async_collective_fusion_config" not in instruction.attributes:
        return False
    return all(user.target != "AsyncCollectiveStart" for user in computation.users[instruction.name])


def _alone(computation: Computation, instruction: Instruction) -> Computation:
    """An instruction that is in no fusion, as if it were alone in one."""
    names = tuple(dict.fromkeys(instruction.operands))
    held = {n: dataclasses.replace(computation.instructions[n], opcode="parameter", operands=()) for n in names}
    held = {n: dataclasses.replace(p, literal=str(at)) for at, (n, p) in enumerate(held.items())}
    return Computation("", held | {instruction.name: instruction}, instruction.name)


def _in(space: int, shape: Shape, elements: float) -> int:
    """The bytes of this many elements of an array: its share of them, with the padding; 0 in another memory space."""
    return round(shape.bytes * min(elements / shape.size, 1)) if shape.size and shape.space == space else 0


def _size(instruction: Instruction) -> int:
    return sum(shape.size for part in result_parts(instruction) for shape in part)


def _results(module: Module, inside: Computation, instruction: Instruction) -> Iterator[tuple[Shape, float]]:
    """Each array that an instruction returns, with the elements of it that are written."""
    parts, names = result_parts(instruction), inside.results
    if inside.instructions[inside.root].target == "AsyncCollectiveStart":
        parts = parts[1:2]  # the others are the operand and flags
    if len(names) < len(parts):  # one operation gives them all
        names = (inside.root,) * len(parts)
    for name, part in zip(names, parts, strict=False):
        yield from ((shape, _written(module, inside, name)) for shape in part)


def _read(module: Module, inside: Computation, name: str, updated: bool) -> float:
    """Elements of a value in a fusion that are read; `updated` is whether it is the array after an update in place."""
    whole, read = _size(inside.instructions[name]), 0.0
    handed_on = inside.instructions[name].opcode == "parameter"
    if name in inside.results and not updated and not handed_on:
        return whole
    for user in inside.users[name]:
        first, opcode = user.operands.index(name) == 0, user.opcode.removesuffix("-start")
        if opcode in SLICES and first:
            read += _size(user)
        elif opcode == "dynamic-update-slice" and first:
            read += _read(module, inside, user.name, True)
        elif user.opcode == "scatter" and first:
            read += _size(inside.instructions[user.operands[-1]]) + _read(module, inside, user.name, True)
        elif user.opcode in MOVED:
            read += _read(module, inside, user.name, updated and user.opcode == "bitcast")
        elif user.opcode == "fusion" and (called := module.inside(user)):
            read += _read_by_fusion(module, inside, user, called, name, updated)
        elif user.opcode == "tuple" or user.target in NOTHING_MOVES or carries_on(inside, user):
            continue
        else:
            return whole
    return min(read, whole)


def _read_by_fusion(
    module: Module, inside: Computation, user: Instruction, called: Computation, name: str, updated: bool
) -> float:
    """Elements of a value that a fusion within a fusion reads."""
    read = 0.0
    for parameter, operand in zip(called.parameters, user.operands, strict=True):
        if operand == name:
            within, value = (inside, user) if _only_moved(called, parameter.name) else (called, parameter)
            read += _read(module, within, value.name, updated)
    return read


def _only_moved(called: Computation, parameter: str) -> bool:
    """Whether the result of a computation is its parameter, in another shape."""
    name = called.root
    while called.instructions[name].opcode in MOVED:
        name = called.instructions[name].operands[0]
    return name == parameter


def _written(module: Module, inside: Computation, name: str) -> float:
    """Elements that are written for one result of a fusion."""
    instruction = inside.instructions[name]
    if instruction.opcode == "parameter":
        return 0
    if instruction.opcode == "bitcast":
        return _written(module, inside, instruction.operands[0])
    if instruction.opcode == "dynamic-update-slice":
        base, update = instruction.operands[:2]
        return _size(inside.instructions[update]) + _base_written(module, inside, base)
    if instruction.opcode == "scatter":
        arrays = len(instruction.parts)
        updates = sum(_size(inside.instructions[o]) for o in instruction.operands[-arrays:]) / arrays
        return updates + _base_written(module, inside, instruction.operands[0])
    if instruction.opcode == "fusion" and (called := module.inside(instruction)) and len(called.results) == 1:
        if _only_moved(called, called.parameters[0].name) if called.parameters else False:
            return _written(module, inside, instruction.operands[0])
        return _written(module, called, called.root)
    if carries_on(inside, instruction) or instruction.target == "AsyncCollectiveDone":
        return 0
    return _size(instruction)


def _base_written(module: Module, inside: Computation, name: str) -> float:
    """Elements that are written to make the array which an update changes."""
    instruction = inside.instructions[name]
    if instruction.opcode == "parameter" or instruction.target == "AllocateBuffer":
        return 0
    return _written(module, inside, name)
