"""FLOPs of the matrix products of a compiled program; a multiplication and an addition count as two."""

from __future__ import annotations

import math
import re

import numpy as np

from prerl_jax.plan.hlo import Computation, Instruction, shapes

SPLASH = {"splash_mha_fwd": 2, "splash_mha_dq": 3, "splash_mha_dkv": 4}
"""By kernel of splash attention: the number of matrix products of a block."""


def product_flops(computation: Computation, instruction: Instruction) -> float:
    """FLOPs of a dot, or of the convolution that a TPU makes of it; 0 for any other instruction."""
    if instruction.opcode not in ("dot", "convolution"):
        return 0.0
    left, right = (computation.instructions[o].shapes[0].dims for o in instruction.operands[:2])
    out = instruction.shapes[0].dims
    if instruction.opcode == "dot":
        contracted = _field(instruction, r"lhs_contracting_dims=\{([\d,]*)\}").split(",")
        return 2.0 * math.prod(out) * math.prod(left[int(d)] for d in contracted if d)
    return _convolution_flops(instruction, left, right, out)


def is_wide(computation: Computation, instruction: Instruction) -> bool:
    """Whether this is a product of two float32 matrices."""
    if instruction.opcode not in ("dot", "convolution"):
        return False
    return all(computation.instructions[o].shapes[0].dtype == "f32" for o in instruction.operands[:2])


def splash_flops(instruction: Instruction) -> float:
    """FLOPs of a kernel of JAX's splash attention with a causal mask: of the blocks on and below the diagonal, over all
    query heads. The first output is as wide as a block. 0 for any other instruction."""
    products = next((n for kernel, n in SPLASH.items() if instruction.name.startswith(kernel)), 0)
    if not products:
        return 0.0
    operands = shapes(instruction.attributes.partition("operand_layout_constraints=")[2].partition("}}")[0])
    query = next(s.dims for s in operands if len(s.dims) >= 3 and s.dtype in ("bf16", "f32"))
    block = instruction.shapes[0].dims[-2]
    blocks = query[-2] // block
    return products * 2.0 * math.prod(query[:-2]) * query[-1] * block**2 * blocks * (blocks + 1) / 2


def _field(instruction: Instruction, pattern: str) -> str:
    found = re.search(pattern, instruction.attributes)
    if not found:
        raise ValueError(f"{instruction.name}, a {instruction.opcode}, lacks {pattern}: {instruction.attributes[:200]}")
    return found[1]


def _convolution_flops(
    instruction: Instruction, left: tuple[int, ...], right: tuple[int, ...], out: tuple[int, ...]
) -> float:
    labels = _field(instruction, r"dim_labels=(\w+->\w+|\w+_\w+->\w+)").replace("->", "_").split("_")
    spatial = sum(c.isdigit() for c in labels[2])
    window = re.search(r"window=\{([^}]*)\}", instruction.attributes)
    given = dict(re.findall(r"(\w+)=([\dx_\-]+)", window[1])) if window else {}
    fields = (
        given[name].split("x") if name in given else [default] * spatial
        for name, default in (("pad", "0_0"), ("stride", "1"), ("lhs_dilate", "1"), ("rhs_dilate", "1"))
    )
    flops = 2.0 * out[labels[2].index("b")] * out[labels[2].index("f")] * right[labels[1].index("i")]
    for n, (pad, *steps) in enumerate(zip(*fields, strict=True)):
        size, kernel, out_size = (x[names.index(str(n))] for x, names in zip((left, right, out), labels, strict=True))
        stride, dilation, kernel_dilation = map(int, steps)
        outs = np.arange(out_size) * stride - int(pad.split("_")[0])
        flops *= sum(_touching(outs + k * kernel_dilation, size, dilation) for k in range(kernel))
    return flops


def _touching(at: np.ndarray, size: int, dilation: int) -> int:
    """How many of these positions hold an input; with a dilation, zeros are between the inputs."""
    return int(np.count_nonzero((at % dilation == 0) & (at >= 0) & (at < size * dilation)))
