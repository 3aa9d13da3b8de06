"""The cost of a compiled program on a device, from its optimised HLO text; loops count as often as they run.

`compiled.cost_analysis()` counts the body of a loop once, and does not count Pallas kernels. Here a matrix product
(dot, or the convolution that a TPU makes of it) counts 2 multiply-adds. A `while` counts its body times the bound in
its condition, the most that it can run. A splash attention kernel counts its blocks on and below the diagonal. Bytes
are what each top-level operation reads and writes outside of the chip's own memory; of a slice, only what is sliced.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

import numpy as np

WIDTHS = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "s64": 8, "u64": 8, "f64": 8}
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call", "conditional", "iota"}
SPLASH = {"splash_mha_fwd": 2, "splash_mha_dq": 3, "splash_mha_dkv": 4}
"""By kernel: the number of matrix products of a block."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """The work of one device.

    Attributes:
      flops: FLOPs of matrix products and kernels.
      bytes: bytes read and written in HBM.
      wide: FLOPs of products of two float32 matrices, outside of kernels.
    """

    flops: float = 0.0
    bytes: float = 0.0
    wide: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))

    def __mul__(self, times: float) -> Cost:
        return Cost(*(a * times for a in dataclasses.astuple(self)))


@dataclasses.dataclass(frozen=True)
class Shape:
    dtype: str
    dims: tuple[int, ...]
    on_chip: bool

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        return 0 if self.on_chip else self.size * WIDTHS.get(self.dtype, 4)


@dataclasses.dataclass(frozen=True)
class Instruction:
    name: str
    shapes: tuple[Shape, ...]
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    root: bool


class Module:
    """The computations of a module by name; `cost()` is that of the entry.

    A loop that may end early is compared with several bounds. Where it is not clear which bound is the counter's,
    bounds above `most` are ruled out.
    """

    def __init__(self, text: str, most: int | None = None):
        self.computations: dict[str, dict[str, Instruction]] = {}
        self.entry, current = "", None
        for line in text.splitlines():
            header = re.match(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$", line)
            if header:
                current = self.computations.setdefault(header[2], {})
                self.entry = header[2] if header[1] else self.entry
            elif current is not None and (found := _instruction(line)):
                current[found.name] = found
        self.of, self.most = functools.cache(self._of), math.inf if most is None else most

    def cost(self) -> Cost:
        return self.of(self.entry)

    def moved(self) -> float:
        """Bytes of the outputs of all collectives. One that is in several fusions, so that it overlaps, counts once."""
        found: dict[str, float] = {}
        pending = [(self.entry, 1)]
        while pending:
            name, times = pending.pop()
            for i in self.computations[name].values():
                called = _called(i)
                again = self.trips(i, called["condition"], called["body"]) if i.opcode == "while" else 1
                pending += [(c, times * again) for key, c in called.items() if key in ("calls", "body", "to_apply")]
                if i.opcode.removesuffix("-start") in COLLECTIVES:
                    size = max(s.size * WIDTHS.get(s.dtype, 4) for s in i.shapes)
                    channel = re.search(r"channel_id=(\d+)", i.attributes)
                    key = channel[1] if channel else i.name
                    found[key] = max(found.get(key, 0), size * times)
        return sum(found.values())

    def largest_wide(self) -> list[str]:
        """Names of the operations with float32 products, the largest first."""
        found = [
            (_product_flops(i, c), re.search(r'op_name="([^"]*)"', i.attributes))
            for c in self.computations.values()
            for i in c.values()
            if _is_wide(i, c)
        ]
        return [match[1] if match else "?" for _, match in sorted(found, key=lambda x: -x[0])]

    def _of(self, name: str) -> Cost:
        computation = self.computations[name]
        return sum((self._instruction(i, computation) for i in computation.values()), Cost())

    def _instruction(self, i: Instruction, computation: dict[str, Instruction]) -> Cost:
        called = _called(i)
        cost = Cost()
        if i.opcode in ("dot", "convolution"):
            flops = _product_flops(i, computation)
            cost += Cost(flops=flops, wide=flops if _is_wide(i, computation) else 0.0)
        if i.opcode == "while":
            return self.of(called["body"]) * self.trips(i, called["condition"], called["body"])
        if i.opcode == "conditional":
            branches = re.search(r"branch_computations=\{([^}]*)\}", i.attributes)
            names = re.findall(r"%([\w.\-]+)", branches[1]) if branches else list(called.values())
            return max((self.of(n) for n in names), key=lambda c: c.flops + c.bytes)
        if i.opcode == "custom-call":
            cost += Cost(flops=_splash_flops(i))
        if i.opcode == "fusion" or i.opcode.endswith("-start") or i.opcode == "call":
            inner = called.get("calls") or called.get("to_apply")
            if inner:
                inside = self.of(inner)
                cost += inside if i.opcode == "call" else dataclasses.replace(inside, bytes=0.0)
        return cost + Cost(bytes=self._traffic(i, computation, called.get("calls")))

    def trips(self, loop: Instruction, condition: str, body: str) -> int:
        """The most iterations of a loop: the bound that its counter is compared with, over the counter's step."""
        known = re.search(r'known_trip_count[^0-9]*"?(\d+)', loop.attributes)
        if known:
            return int(known[1])
        counted = list(self._counted(self.computations[condition], self.computations[body]))
        if counted:
            return min(counted)
        pending, bounds = [condition], []
        while pending:
            for i in self.computations[pending.pop()].values():
                pending += re.findall(r"calls=%([\w.\-]+)", i.attributes)
                if i.opcode == "constant" and i.shapes[0].dtype in ("s32", "u32"):
                    bounds.append(int(i.operands[0]))
        return max((bound for bound in bounds if bound <= self.most), default=1)

    def _counted(self, condition: dict[str, Instruction], body: dict[str, Instruction]) -> Iterator[int]:
        """The most increments of a counter that is compared with a constant; unrolled loops step by more than 1."""
        root = next(i for i in body.values() if i.root)
        for compared in (i for i in condition.values() if i.opcode == "compare" and root.opcode == "tuple"):
            sides = [condition[o] for o in compared.operands if o in condition]
            bounds = [int(s.operands[0]) for s in sides if s.opcode == "constant"]
            indices = [re.search(r"index=(\d+)", s.attributes) for s in sides if s.opcode == "get-tuple-element"]
            if len(bounds) == len(indices) == 1:
                grown = body.get(root.operands[int(indices[0][1])])
                if grown and grown.opcode == "add":
                    steps = [int(body[o].operands[0]) for o in grown.operands if body[o].opcode == "constant"]
                    yield from (bounds[0] // step for step in steps)

    def _traffic(self, i: Instruction, computation: dict[str, Instruction], fused: str | None) -> int:
        if i.opcode in FREE or i.opcode.endswith("-done"):
            return 0
        operands = [computation[name] for name in i.operands if name in computation]
        if i.opcode in ("dynamic-slice", "gather", "slice"):
            return 2 * sum(s.bytes for s in i.shapes)
        if i.opcode == "dynamic-update-slice":
            return 2 * sum(s.bytes for s in operands[1].shapes)
        inner = self.computations.get(fused or "", {})
        if not inner:
            return sum(s.bytes for o in (i, *operands) for s in o.shapes)
        parameters = {int(p.operands[0]): p for p in inner.values() if p.opcode == "parameter" and p.operands}
        read = sum(_read(o, parameters.get(n), inner) for n, o in enumerate(operands))
        root = next(r for r in inner.values() if r.root)
        parts = [inner[o] for o in root.operands] if root.opcode == "tuple" else [root]
        return read + sum(_written(part, inner) for part in parts)


def _called(i: Instruction) -> dict[str, str]:
    """The computations that an instruction calls, by their role."""
    return dict(re.findall(r"(\w+)=%([\w.\-]+)", i.attributes))


def _seen_as(name: str, inner: dict[str, Instruction]) -> list[tuple[Instruction, str]]:
    """The users of a value in a fusion, each with the name it uses; bitcasts are looked through."""
    users = [u for u in inner.values() if name in u.operands]
    return [x for u in users for x in (_seen_as(u.name, inner) if u.opcode == "bitcast" else [(u, name)])]


def _read(operand: Instruction, parameter: Instruction | None, inner: dict[str, Instruction]) -> int:
    """Bytes of an operand that a fusion reads: only the slices if it is only sliced, none if it is updated in place."""
    whole = sum(s.bytes for s in operand.shapes)
    users = _seen_as(parameter.name, inner) if parameter else []
    if not users or not whole:
        return whole
    read = 0
    for user, name in users:
        if user.opcode in ("dynamic-slice", "gather", "slice"):
            read += sum(s.size * WIDTHS.get(s.dtype, 4) for s in user.shapes)
        elif user.opcode != "dynamic-update-slice" or user.operands[0] != name:
            return whole
    return min(whole, read)


def _written(part: Instruction, inner: dict[str, Instruction]) -> int:
    """Bytes that a fusion writes for one of its results: only the update if the result is updated in place."""
    while part.opcode == "bitcast":
        part = inner[part.operands[0]]
    if part.opcode == "dynamic-update-slice":
        return sum(s.size * WIDTHS.get(s.dtype, 4) for s in inner[part.operands[1]].shapes)
    return sum(s.bytes for s in part.shapes)


def _instruction(line: str) -> Instruction | None:
    found = re.match(r"^\s+(ROOT )?%([\w.\-]+) = (.*)$", line)
    if not found:
        return None
    rest = found[3]
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    kind, rest = rest[:end], rest[end:].lstrip()
    opcode, _, _ = rest.partition("(")
    close = _closing(rest, len(opcode))
    inside = rest[len(opcode) + 1 : close]
    operands = (inside,) if opcode in ("parameter", "constant") else tuple(re.findall(r"%([\w.\-]+)", inside))
    return Instruction(found[2], _shapes(kind), opcode, operands, rest[close + 1 :], bool(found[1]))


def _closing(text: str, start: int) -> int:
    """The index of the parenthesis that closes the one at `start`."""
    depth = 0
    for position in range(start, len(text)):
        depth += (text[position] == "(") - (text[position] == ")")
        if depth == 0:
            return position
    raise ValueError(f"unbalanced: {text[start : start + 80]}")


def _shapes(text: str) -> tuple[Shape, ...]:
    pattern = r"([a-z]+\d*\w*)\[([\d,]*)\](\{[^}]*\})?"
    return tuple(
        Shape(dtype, tuple(int(d) for d in dims.split(",") if d), "S(1)" in layout)
        for dtype, dims, layout in re.findall(pattern, text)
    )


def _is_wide(i: Instruction, computation: dict[str, Instruction]) -> bool:
    return i.opcode in ("dot", "convolution") and all(computation[o].shapes[0].dtype == "f32" for o in i.operands[:2])


def _product_flops(i: Instruction, computation: dict[str, Instruction]) -> float:
    left, right = (computation[o].shapes[0].dims for o in i.operands[:2])
    out = i.shapes[0].dims
    if i.opcode == "dot":
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", i.attributes)
        return 2.0 * math.prod(out) * math.prod(left[int(d)] for d in contracted[1].split(",") if d)
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", i.attributes)
    window = dict(re.findall(r"(\w+)=([\dx_\-]+)", (re.search(r"window=\{([^}]*)\}", i.attributes) or [0, ""])[1]))
    spatial = sum(c.isdigit() for c in labels[1])

    def field(name: str, default: str) -> list[str]:
        return window[name].split("x") if name in window else [default] * spatial

    flops = 2.0 * out[labels[3].index("b")] * out[labels[3].index("f")] * right[labels[2].index("i")]
    fields = (field(n, d) for n, d in (("pad", "0_0"), ("stride", "1"), ("lhs_dilate", "1"), ("rhs_dilate", "1")))
    for n, (pad, stride, left_dilation, right_dilation) in enumerate(zip(*fields, strict=True)):
        sizes = (x[names.index(str(n))] for x, names in zip((left, right, out), labels.groups(), strict=True))
        steps = (int(pad.split("_")[0]), int(stride), int(left_dilation), int(right_dilation))
        flops *= _positions(*sizes, *steps)
    return flops


def _positions(size: int, kernel: int, out: int, pad: int, stride: int, dilation: int, kernel_dilation: int) -> int:
    """The number of (output, kernel) positions that touch an input; a product's batch is written as such a window."""
    outs = np.arange(out) * stride - pad
    at = (outs + k * kernel_dilation for k in range(kernel))
    return int(sum(np.count_nonzero((a % dilation == 0) & (a >= 0) & (a < size * dilation)) for a in at))


def _splash_flops(i: Instruction) -> float:
    """FLOPs of the blocks on and below the diagonal, over all query heads; the first output is as wide as a block."""
    kind = next((k for k in SPLASH if i.name.startswith(k)), None)
    if kind is None:
        return 0.0
    operands = _shapes(i.attributes.partition("operand_layout_constraints=")[2])
    query = next(s.dims for s in operands if len(s.dims) >= 3 and s.dtype in ("bf16", "f32"))
    block = i.shapes[0].dims[-2]
    blocks = query[-2] // block
    return SPLASH[kind] * 2.0 * math.prod(query[:-2]) * query[-1] * block**2 * blocks * (blocks + 1) / 2
