"""Bytes that collectives send between chips, by the ring algorithms.

With n devices in a group and an array of B bytes, a device sends (n-1)/n B to gather all of it, to reduce and scatter
all of it, or to exchange it with all others; twice that to reduce it for all; B to pass it on. (Patarasuk and Yuan,
"Bandwidth optimal all-reduce algorithms for clusters of workstations", 2009.)
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator

from prerl_jax.plan.hlo import Computation, Instruction, Module, Shape
from prerl_jax.plan.traffic import COLLECTIVES, carries_on, result_parts


@dataclasses.dataclass(frozen=True)
class Exchange:
    """One collective.

    Attributes:
      kind: all-gather, all-reduce, reduce-scatter, all-to-all, collective-permute, ...
      arrays: the arrays as they are whole: gathered, before they are scattered, or passed on.
      group: devices that take part together.
      sent: bytes that a device sends.
      op_name: the JAX operation that it comes from.
      source: the line of Python that it comes from.
    """

    kind: str
    arrays: tuple[Shape, ...]
    group: int
    sent: float
    op_name: str
    source: str


def exchanges(module: Module, computation: Computation, instruction: Instruction) -> Iterator[Exchange]:
    """The collectives that one run of an instruction starts: itself, or those within a fusion."""
    yield from _exchanges(module, computation, instruction, is_fused=False)


def _exchanges(module: Module, inside: Computation, instruction: Instruction, *, is_fused: bool) -> Iterator[Exchange]:
    kind = instruction.opcode.removesuffix("-start")
    if kind in COLLECTIVES and not carries_on(inside, instruction):
        # libtpu writes a reduce-scatter as a fusion of an all-reduce and a slice of its result
        is_sliced = all(user.opcode == "dynamic-slice" for user in inside.users[instruction.name])
        is_scattered = kind == "all-reduce" and is_fused and is_sliced and inside.root != instruction.name
        yield _exchange(module, inside, instruction, "reduce-scatter" if is_scattered else kind)
    called = module.inside(instruction) if kind in ("fusion", "async") else None
    for inner in called.instructions.values() if called else ():
        for found in _exchanges(module, called or inside, inner, is_fused=kind == "fusion"):
            op_name, source = found.op_name or instruction.op_name, found.source or module.source(instruction)
            yield dataclasses.replace(found, op_name=op_name, source=source)


def _exchange(module: Module, inside: Computation, instruction: Instruction, kind: str) -> Exchange:
    results = tuple(shape for part in result_parts(instruction) for shape in part)
    given = tuple(shape for o in instruction.operands for shape in inside.instructions[o].shapes)
    arrays = {"reduce-scatter": given, "ragged-all-to-all": given[:1]}.get(kind, results)
    group = group_size(instruction.attributes, module.devices)
    size = sum(shape.bytes for shape in arrays)
    if kind == "collective-permute":
        sent = size if _moves(instruction) else 0.0
    elif kind == "collective-broadcast":
        sent = size if group > 1 else 0.0
    else:
        sent = (2 if kind == "all-reduce" else 1) * size * (group - 1) / group
    return Exchange(kind, arrays, group, sent, instruction.op_name, module.source(instruction))


def _moves(instruction: Instruction) -> bool:
    pairs = re.findall(r"\{(\d+),\s*(\d+)\}", instruction.attributes.partition("source_target_pairs=")[2])
    return any(source != target for source, target in pairs)


def group_size(attributes: str, devices: int) -> int:
    """Devices of a group of `replica_groups`: all devices where no groups are listed.

    The forms are {{0,1},{2,3}}, [4,8]<=[32] with or without T(1,0), and mesh['x'=4,'y'=8] {'y'}.

    Raises:
      ValueError: the groups are written in another form.
    """
    found = re.search(r"\breplica_groups=(.*)", attributes)
    if not found:
        return devices
    groups = found[1]
    if listed := re.match(r"\{\{([\d,\s]*)\}", groups):
        return len(listed[1].split(","))
    if groups.startswith("{}"):
        return devices
    if tiled := re.match(r"\[\d+,(\d+)\]", groups):
        return int(tiled[1])
    if mesh := re.match(r"@?mesh\[([^\]]*)\][^{]*\{([^}]*)\}", groups):
        sizes = {name: int(size) for name, size in re.findall(r"['\"]([^'\"]*)['\"]=(\d+)", mesh[1])}
        axes = re.findall(r"['\"]([^'\"]*)['\"](?::\(\d+\)(\d+))?", mesh[2])
        return math.prod(int(part) if part else sizes[name] for name, part in axes)
    raise ValueError(f"replica_groups of an unknown form: {groups[:120]}")
