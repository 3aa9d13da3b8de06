"""FLOPs of matrix products, written as dots and as convolutions."""

import pytest

from prerl_jax.plan.hlo import parse
from prerl_jax.plan.products import is_wide, product_flops, splash_flops


def product(operation, left, right, out, attributes):
    module = parse(f"""
ENTRY %main (a: bf16[1], b: bf16[1]) -> bf16[1] {{
  %a = {left} parameter(0)
  %b = {right} parameter(1)
  ROOT %c = {out} {operation}(%a, %b), {attributes}
}}
""")
    main = module.computations["main"]
    return product_flops(main, main.instructions["c"]), is_wide(main, main.instructions["c"])


@pytest.mark.parametrize(
    ("left", "right", "out", "window", "labels", "flops"),
    [
        ("4,8", "8,16", "4,16", "", "bf_io->bf", 2 * 4 * 8 * 16),
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
    attributes = f"window={{{window}}}, dim_labels={labels}" if window else f"dim_labels={labels}"
    found = product("convolution", f"bf16[{left}]{{0}}", f"bf16[{right}]{{0}}", f"bf16[{out}]{{0}}", attributes)
    assert found == (flops, False)


@pytest.mark.parametrize(("dtype", "wide"), [("f32", True), ("bf16", False)])
def test_a_product_as_a_dot(dtype, wide):
    shapes = (f"{dtype}[3,5,7]{{2,1,0}}", f"{dtype}[3,7,2]{{2,1,0}}", "f32[3,5,2]{2,1,0}")
    batch = "lhs_batch_dims={0}, rhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_contracting_dims={1}"
    assert product("dot", *shapes, batch) == (2 * 3 * 5 * 7 * 2, wide)


def test_a_product_that_lacks_its_dimensions():
    with pytest.raises(ValueError, match="c, a dot, lacks lhs_contracting_dims"):
        product("dot", "f32[3]{0}", "f32[3]{0}", "f32[]", "")


def test_splash_attention_counts_its_blocks_below_the_diagonal():
    module = parse("""
ENTRY %main (q: bf16[4,64,16]) -> bf16[4,64,16] {
  %q = bf16[4,64,16]{2,1,0} parameter(0)
  ROOT %splash_mha_fwd_residuals.1 = (f32[16,128]{1,0}, bf16[4,64,16]{2,1,0}) custom-call(%q, %q, %q), custom_call_target="tpu_custom_call", operand_layout_constraints={s8[1,4,4]{2,1,0}, bf16[4,64,16]{2,1,0}, bf16[2,64,16]{2,1,0}}
}
""")  # noqa: E501
    (kernel,) = (i for i in module.computations["main"].instructions.values() if i.opcode == "custom-call")
    assert splash_flops(kernel) == 2 * (2 * 4 * 16) * 16 * 16 * (4 * 5 / 2), "two products, 10 blocks of 16 by 16"
