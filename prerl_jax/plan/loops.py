"""How often loops of a compiled program run, read from the conditions and bodies of its loops.

A loop's condition compares a counter with a bound, and its body adds a step to the counter. Every value that matters is
then a number, or the value of one element of the loop's tuple before the iteration plus a number. What is neither is
unknown. Where several comparisons must hold, as in a loop that may end early, each known one gives a bound, and the
smallest of them counts: the most that the loop can run.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from prerl_jax.plan.hlo import Computation, Instruction, Module

SAME = ("copy", "bitcast", "convert", "reshape", "broadcast", "copy-done")
MIRRORED = {"LT": "GT", "LE": "GE", "GT": "LT", "GE": "LE", "NE": "NE"}


@dataclasses.dataclass(frozen=True)
class Value:
    """A number, or element `index` of the loop's tuple plus that number."""

    number: int
    index: int | None = None


Known = Mapping[str, Value | None]
"""Values of a computation's parameters that are not the loop's tuple, by name."""


def trips(module: Module, computation: Computation, loop: Instruction) -> int | None:
    """The most iterations of a `while` instruction in this computation; None where no bound can be read."""
    found = re.search(r'known_trip_count[^0-9]*"?(\d+)', loop.attributes)
    if found:
        return int(found[1])
    condition, body = (module.computations[loop.called[role][0]] for role in ("condition", "body"))
    start = computation.instructions.get(loop.operands[0])
    bounds = []
    for compare, known, inside in _compared(module, condition):
        sides = [_value(module, inside, name, known) for name in compare.operands]
        direction = re.search(r"direction=(\w+)", compare.attributes)
        bounds.append(_bound(module, computation, start, body, sides, direction[1] if direction else ""))
    return min((bound for bound in bounds if bound is not None), default=None)


def _compared(module: Module, condition: Computation) -> list[tuple[Instruction, Known, Computation]]:
    """The comparisons all of which must hold for another iteration, each with where it is."""
    found: list[tuple[Instruction, Known, Computation]] = []
    pending: list[tuple[Computation, str, Known]] = [(condition, condition.root, {})]
    while pending:
        inside, name, known = pending.pop()
        instruction = inside.instructions[name]
        if instruction.opcode == "compare":
            found.append((instruction, known, inside))
        elif instruction.opcode in ("and", *SAME):
            pending += [(inside, operand, known) for operand in instruction.operands]
        elif instruction.opcode == "fusion" and (called := module.inside(instruction)):
            pending.append((called, called.root, _arguments(module, inside, instruction, called, known)))
    return found


def _arguments(
    module: Module, outside: Computation, fusion: Instruction, inside: Computation, known: Known
) -> dict[str, Value | None]:
    """The values of a fusion's parameters."""
    pairs = zip(inside.parameters, fusion.operands, strict=True)
    return {parameter.name: _value(module, outside, name, known) for parameter, name in pairs}


def _value(module: Module, inside: Computation, name: str, known: Known) -> Value | None:
    """What a value of the loop's condition or body is before the iteration ends."""
    instruction = inside.instructions[name]
    if name in known:
        return known[name]
    if instruction.opcode == "constant":
        number = re.fullmatch(r"\{?\s*(-?\d+)\s*\}?", instruction.literal)
        return Value(int(number[1])) if number else None
    if instruction.opcode == "get-tuple-element":
        return _element(module, inside, instruction, known)
    if instruction.opcode in SAME:
        return _value(module, inside, instruction.operands[0], known)
    if instruction.opcode == "copy-start":
        return _value(module, inside, instruction.operands[0], known)
    if instruction.opcode in ("add", "subtract"):
        left, right = (_value(module, inside, operand, known) for operand in instruction.operands)
        return _sum(left, right, 1 if instruction.opcode == "add" else -1)
    if instruction.opcode == "fusion" and (called := module.inside(instruction)) and len(called.results) == 1:
        arguments = _arguments(module, inside, instruction, called, known)
        return _value(module, called, called.results[0], arguments)
    return None


def _element(module: Module, inside: Computation, element: Instruction, known: Known) -> Value | None:
    """An element of the loop's tuple, or of what a fusion or a tuple returns."""
    index, of = _index(element), inside.instructions[element.operands[0]]
    if of.opcode == "parameter":
        return Value(0, index)
    if of.opcode == "tuple":
        return _value(module, inside, of.operands[index], known)
    if of.opcode == "fusion" and (called := module.inside(of)):
        arguments = _arguments(module, inside, of, called, known)
        return _value(module, called, called.results[index], arguments)
    return None


def _index(element: Instruction) -> int:
    found = re.search(r"index=(\d+)", element.attributes)
    if not found:
        raise ValueError(f"{element.name} has no index: {element.attributes[:100]}")
    return int(found[1])


def _sum(left: Value | None, right: Value | None, sign: int) -> Value | None:
    if left is None or right is None or (right.index is not None and (left.index is not None or sign < 0)):
        return None
    return Value(left.number + sign * right.number, left.index if right.index is None else right.index)


def _bound(
    module: Module,
    outside: Computation,
    start: Instruction | None,
    body: Computation,
    sides: list[Value | None],
    direction: str,
) -> int | None:
    """The iterations until a comparison no longer holds; None if it is not that of a counter with a number."""
    moving = [_step(module, body, side) for side in sides]
    if direction not in MIRRORED or sorted(step == 0 for step in moving) != [False, True] or None in moving:
        return None
    first = [_before(module, outside, start, side) for side in sides]
    if moving[0] == 0:
        moving, first, direction = moving[::-1], first[::-1], MIRRORED[direction]
    counter, bound, step = first[0], first[1], moving[0]
    if counter is None or bound is None or step is None:
        return None
    distance = bound - counter + {"LE": 1, "GE": -1}.get(direction, 0)
    growing = direction in ("LT", "LE") or (direction == "NE" and step > 0)
    return max(0, -(-distance // step)) if growing == (step > 0) else None


def _step(module: Module, body: Computation, side: Value | None) -> int | None:
    """What an iteration adds to a side of a comparison; None if that is unknown."""
    if side is None or side.index is None:
        return None if side is None else 0
    root = body.instructions[body.root]
    if root.opcode != "tuple":
        return None
    after = _value(module, body, root.operands[side.index], {})
    return after.number if after is not None and after.index == side.index else None


def _before(module: Module, outside: Computation, start: Instruction | None, side: Value | None) -> int | None:
    """A side of a comparison before the first iteration; None if that is unknown."""
    if side is None or side.index is None:
        return None if side is None else side.number
    if start is None or start.opcode != "tuple":
        return None
    first = _value(module, outside, start.operands[side.index], {})
    return None if first is None or first.index is not None else first.number + side.number
