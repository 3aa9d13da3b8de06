"""The text of compiled programs: shapes with tiles and memory spaces, instructions over several lines, frames."""

import pytest

from prerl_jax.plan.hlo import parse, shapes

PROGRAM = """HloModule jit_f, is_scheduled=true, num_partitions=4, replica_count=2

FileNames
1 "/somewhere/decoder.py"

FunctionNames
1 "step"

FileLocations
1 {file_name_id=1 function_name_id=1 line=17 end_line=17 column=0 end_column=0}

StackFrames
7 {file_location_id=1 parent_frame_id=7}


%inside (p: s32[1]) -> s32[1] {
  %p = s32[1]{0:T(128)} parameter(0)
  ROOT %eight = s32[1]{0:T(128)} constant({8})
}

ENTRY %main (x: bf16[4,8]) -> ((bf16[4,8]), bf16[2,8]) {
  %x = bf16[4,8]{1,0:T(8,128)(2,1)S(1)} parameter(0), metadata={op_name="x"}
  %kernel = bf16[4,8]{1,0} custom-call(%x, /*index=1*/%x), custom_call_target="a_kernel", frontend_attributes={kernel={
"size":"{\\"block\\": 8}"
}}, metadata={op_name="jit(f)/pallas_call" stack_frame_id=7}
  ROOT %slice-start = ((bf16[4,8]{1,0}), bf16[2,8]{1,0:S(1)}, s32[]{:S(2)}) slice-start(%kernel), slice={[0:2], [0:8]}
}
"""


@pytest.mark.parametrize(
    ("text", "size", "held", "space"),
    [
        ("f32[2,3]{1,0}", 6, 24, 0),
        ("bf16[]{:T(256)}", 1, 2, 0),
        ("bf16[10,200]{1,0:T(8,128)(2,1)}", 2000, 16 * 256 * 2, 0),
        ("bf16[200,10]{0,1:T(8,128)(2,1)S(1)}", 2000, 16 * 256 * 2, 1),
        ("f32[5,3,100]{2,1,0:T(8,128)}", 1500, 5 * 8 * 128 * 4, 0),
        ("pred[4]{0:T(512)(128)(4,1)}", 4, 512, 0),
        ("s4[8,2]{1,0:E(4)}", 16, 8, 0),
        ("s4[8,2]{1,0}", 16, 16, 0),
        ("f8e4m3fn[8]", 8, 8, 0),
        ("c64[3]", 3, 24, 0),
        ("token[]", 1, 0, 0),
        ("f32[<=5,2]{1,0}", 10, 40, 0),
        ("u32[]{:S(2)}", 1, 4, 2),
        ("f32[0,4]{1,0}", 0, 0, 0),
    ],
)
def test_a_shape(text, size, held, space):
    (shape,) = shapes(text)
    assert (shape.size, shape.bytes, shape.space) == (size, held, space)


def test_a_program():
    module = parse(PROGRAM)
    assert module.devices == 8
    main = module.computations[module.entry]
    assert list(main.instructions) == ["x", "kernel", "slice-start"]
    kernel, start = main.instructions["kernel"], main.instructions["slice-start"]
    assert kernel.operands == ("x", "x")
    assert (kernel.target, kernel.op_name) == ("a_kernel", "jit(f)/pallas_call")
    assert module.source(kernel) == "decoder.py:17 step"
    assert [[str(shape) for shape in part] for part in start.parts] == [["bf16[4,8]"], ["bf16[2,8]"], ["s32[]"]]
    assert main.users["kernel"] == (start,)
    assert module.computations["inside"].instructions["eight"].literal == "{8}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no ENTRY computation in 0 characters"),
        ("ENTRY %main (x: q7[1]) -> q7[1] {\n  ROOT %x = q7[1]{0} parameter(0)\n}\n", "unknown type of elements: q7"),
        ("ENTRY %main () -> f32[] {\n  %x = f32[] parameter(0)\n}\n", "computation main has 0 lines .* ROOT"),
    ],
)
def test_what_is_no_program(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)
