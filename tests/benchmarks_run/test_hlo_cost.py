"""FLOPs and bytes read from HLO: loops counted as often as they run, products written as dots and as convolutions."""

import pathlib
import sys

import jax
import jax.numpy as jnp
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "benchmarks"))

import hlo_cost

LOOP = """
%body (arg: (u32[], f32[8,16], f32[16,16])) -> (u32[], f32[8,16], f32[16,16]) {
  %arg = (u32[], f32[8,16]{1,0}, f32[16,16]{1,0}) parameter(0)
  %two = u32[] constant(2)
  %i = u32[] get-tuple-element(%arg), index=0
  %next = u32[] add(%i, %two)
  %x = f32[8,16]{1,0} get-tuple-element(%arg), index=1
  %w = f32[16,16]{1,0} get-tuple-element(%arg), index=2
  %y = f32[8,16]{1,0} dot(%x, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %out = (u32[], f32[8,16]{1,0}, f32[16,16]{1,0}) tuple(%next, %y, %w)
}

%condition (arg: (u32[], f32[8,16], f32[16,16])) -> pred[] {
  %arg = (u32[], f32[8,16]{1,0}, f32[16,16]{1,0}) parameter(0)
  %bound = u32[] constant(10)
  %i = u32[] get-tuple-element(%arg), index=0
  ROOT %less = pred[] compare(%i, %bound), direction=LT
}

ENTRY %main (start: (u32[], f32[8,16], f32[16,16])) -> f32[8,16] {
  %start = (u32[], f32[8,16]{1,0}, f32[16,16]{1,0}) parameter(0)
  %loop = (u32[], f32[8,16]{1,0}, f32[16,16]{1,0}) while(%start), condition=%condition, body=%body
  ROOT %y = f32[8,16]{1,0} get-tuple-element(%loop), index=1
}
"""


def test_a_loop_that_counts_by_two_runs_half_as_often():
    cost = hlo_cost.Module(LOOP).cost()
    assert cost.flops == cost.wide == 5 * 2 * 8 * 16 * 16
    assert cost.bytes == 5 * 4 * ((8 * 16 + 16 * 16 + 8 * 16) + 3), "what the product reads and writes, and the counter"


def convolution(left, right, out, window, labels):
    return hlo_cost.Module(f"""
ENTRY %main (a: bf16[1], b: bf16[1]) -> bf16[1] {{
  %a = bf16[{left}]{{0}} parameter(0)
  %b = bf16[{right}]{{0}} parameter(1)
  ROOT %c = bf16[{out}]{{0}} convolution(%a, %b), window={{{window}}}, dim_labels={labels}
}}
""").cost()


@pytest.mark.parametrize(
    ("left", "right", "out", "window", "labels", "flops"),
    [
        # x [9216, 2 * 80] against w [2 * 80, 32 * 128], as a TPU writes a projection on heads
        (
            "9216,2,80,1",
            "2,80,32,128",
            "9216,32,128,1",
            "size=32x2 pad=31_31x0_0 rhs_reversal=1x0",
            "b1f0_1i0o->b0f1",
            2 * 9216 * 160 * 4096,
        ),
        # a batch of 8 products [5, 7] x [7, 3]
        ("8,5,7", "8,7,3", "8,5,3", "size=8 stride=7 lhs_dilate=8", "0bf_0io->0bf", 2 * 8 * 5 * 7 * 3),
    ],
)
def test_a_product_as_a_convolution(left, right, out, window, labels, flops):
    cost = convolution(left, right, out, window, labels)
    assert (cost.flops, cost.wide) == (flops, 0)


def test_agrees_with_the_compiler_where_there_is_no_loop():
    x, weights = jnp.ones((4, 32, 64)), jnp.ones((6, 64, 64))

    def looped(x, weights):
        return jax.lax.scan(lambda x, w: (jnp.einsum("btd,de->bte", x, w), None), x, weights)[0]

    def unrolled(x, weights):
        for w in weights:
            x = jnp.einsum("btd,de->bte", x, w)
        return x

    found = [jax.jit(f).lower(x, weights).compile() for f in (looped, unrolled)]
    flops = [hlo_cost.Module(c.as_text()).cost().flops for c in found]
    assert flops == [6 * 2 * 4 * 32 * 64 * 64] * 2
    assert flops[1] == pytest.approx(found[1].cost_analysis()["flops"], rel=0.01)
    assert found[0].cost_analysis()["flops"] < flops[0] / 2, "the compiler counts a loop's body once"
