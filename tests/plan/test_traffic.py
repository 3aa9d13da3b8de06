"""Bytes through HBM of single instructions, counted by hand. A row is f32[128], 512 bytes, and a buffer has 64 rows."""

import pytest

from prerl_jax.plan.hlo import parse
from prerl_jax.plan.traffic import hbm_bytes, host_bytes

ROW, BUFFER = 128 * 4, 64 * 128 * 4
INSIDE = {
    "slices": """
%slices (b: f32[64,128], i: s32[]) -> f32[1,128] {
  %b = f32[64,128]{1,0} parameter(0)
  %i = s32[]{:S(6)} parameter(1)
  %zero = s32[] constant(0)
  %flat = f32[64,128]{1,0} bitcast(%b)
  %row = f32[1,128]{1,0} dynamic-slice(%flat, %i, %zero), dynamic_slice_sizes={1,128}
  ROOT %minus = f32[1,128]{1,0} negate(%row)
}
""",
    "updates": """
%updates (b: f32[64,128], r: f32[1,128], i: s32[]) -> f32[64,128] {
  %b = f32[64,128]{1,0} parameter(0)
  %r = f32[1,128]{1,0} parameter(1)
  %i = s32[]{:S(6)} parameter(2)
  %zero = s32[] constant(0)
  %minus = f32[1,128]{1,0} negate(%r)
  %put = f32[64,128]{1,0} dynamic-update-slice(%b, %minus, %i, %zero)
  ROOT %same = f32[64,128]{1,0} bitcast(%put)
}
""",
    "updates_and_reads": """
%updates_and_reads (b: f32[64,128], r: f32[1,128], i: s32[]) -> (f32[64,128], f32[64]) {
  %b = f32[64,128]{1,0} parameter(0)
  %r = f32[1,128]{1,0} parameter(1)
  %i = s32[]{:S(6)} parameter(2)
  %zero = s32[] constant(0)
  %put = f32[64,128]{1,0} dynamic-update-slice(%b, %r, %i, %zero)
  %sums = f32[64]{0} reduce(%put, %zero), dimensions={1}, to_apply=%add
  ROOT %two = (f32[64,128]{1,0}, f32[64]{0}) tuple(%put, %sums)
}
""",
    "updates_zeros": """
%updates_zeros (b: f32[64,128], r: f32[1,128], i: s32[]) -> f32[64,128] {
  %b = f32[64,128]{1,0} parameter(0)
  %r = f32[1,128]{1,0} parameter(1)
  %i = s32[]{:S(6)} parameter(2)
  %zero = f32[] constant(0)
  %zeros = f32[64,128]{1,0} broadcast(%zero), dimensions={}
  ROOT %put = f32[64,128]{1,0} dynamic-update-slice(%zeros, %r, %i, %i)
}
""",
    "product_of_a_slice": """
%product_of_a_slice (b: f32[64,128], i: s32[]) -> f32[1,1] {
  %b = f32[64,128]{1,0} parameter(0)
  %i = s32[]{:S(6)} parameter(1)
  %row = f32[1,128]{1,0} fusion(%b, %i), kind=kLoop, calls=%slices
  ROOT %product = f32[1,1]{1,0} dot(%row, %row), lhs_contracting_dims={1}, rhs_contracting_dims={1}
}
""",
    "sums": """
%sums (b: f32[64,128]) -> f32[1,128] {
  %b = f32[64,128]{1,0} parameter(0)
  %zero = f32[] constant(0)
  ROOT %sum = f32[1,128]{1,0} reduce(%b, %zero), dimensions={0}, to_apply=%add
}
""",
    "product_of_sums": """
%product_of_sums (b: f32[64,128]) -> f32[1,1] {
  %b = f32[64,128]{1,0} parameter(0)
  %row = f32[1,128]{1,0} fusion(%b), kind=kLoop, calls=%sums
  ROOT %product = f32[1,1]{1,0} dot(%row, %row), lhs_contracting_dims={1}, rhs_contracting_dims={1}
}
""",
    "flat": """
%flat (b: f32[64,128]) -> f32[8192] {
  %b = f32[64,128]{1,0} parameter(0)
  ROOT %flattened = f32[8192]{0} bitcast(%b)
}
""",
    "slice_of_flat": """
%slice_of_flat (b: f32[64,128]) -> f32[128] {
  %b = f32[64,128]{1,0} parameter(0)
  %flattened = f32[8192]{0} fusion(%b), kind=kLoop, calls=%flat
  ROOT %part = f32[128]{0} slice(%flattened), slice={[0:128]}
}
""",
    "carried": """
%carried (shard: f32[8,128], whole: f32[64,128], flag: u32[]) -> (f32[8,128], f32[64,128], f32[64,128], u32[]) {
  %shard = f32[8,128]{1,0} parameter(0)
  %whole = f32[64,128]{1,0} parameter(1)
  %flag = u32[]{:S(2)} parameter(2)
  %g = f32[64,128]{1,0} all-gather(%shard), replica_groups={}, backend_config={"async_collective_fusion_config":{}}
  ROOT %t = (f32[8,128]{1,0}, f32[64,128]{1,0}, f32[64,128]{1,0}, u32[]{:S(2)}) tuple(%shard, %whole, %g, %flag)
}
""",
    "started": """
%started (shard: f32[8,128]) -> (f32[8,128], f32[64,128], u32[]) {
  %shard = f32[8,128]{1,0} parameter(0)
  %g = f32[64,128]{1,0} all-gather(%shard), replica_groups={}, backend_config={"async_collective_fusion_config":{}}
  ROOT %c = (f32[8,128]{1,0}, f32[64,128]{1,0}, u32[]{:S(2)}) custom-call(%g), custom_call_target="AsyncCollectiveStart"
}
""",
}
MAIN = """
ENTRY %main (b: f32[64,128], r: f32[1,128], i: s32[]) -> f32[] {{
  %buffer = f32[64,128]{{1,0}} parameter(0)
  %near = f32[64,128]{{1,0:S(1)}} parameter(1)
  %row = f32[1,128]{{1,0}} parameter(2)
  %shard = f32[8,128]{{1,0}} parameter(3)
  %at = s32[]{{:S(6)}} parameter(4)
  %rows = s32[2]{{0:S(1)}} parameter(5)
  %two = f32[2,128]{{1,0}} parameter(6)
  %flag = u32[]{{:S(2)}} parameter(7)
  %far = f32[64,128]{{1,0:S(5)}} parameter(8)
  ROOT %it = {instruction}
}}
"""
WHOLE, ONE = "f32[64,128]{1,0}", "f32[1,128]{1,0}"


def counted(instruction, count=hbm_bytes):
    module = parse("".join(INSIDE.values()) + MAIN.format(instruction=instruction))
    main = module.computations["main"]
    return count(module, main, main.instructions["it"])


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        (f"{WHOLE} copy(%buffer)", 2 * BUFFER),
        ("f32[64,128]{1,0:S(1)} copy(%buffer)", BUFFER),
        (f"{WHOLE} add(%buffer, %near)", 2 * BUFFER),
        (f"{WHOLE} multiply(%buffer, %buffer)", 2 * BUFFER),
        (f"{WHOLE} broadcast(%near), dimensions={{0,1}}", BUFFER),
        (f"{WHOLE} iota(), iota_dimension=0", BUFFER),
        (f"{WHOLE} bitcast(%buffer)", 0),
        (f"{ONE} dynamic-slice(%buffer, %at, %at), dynamic_slice_sizes={{1,128}}", 2 * ROW),
        (f"{WHOLE} dynamic-update-slice(%buffer, %row, %at, %at)", 2 * ROW),
        ("f32[2,128]{1,0} gather(%buffer, %rows), slice_sizes={1,128}", 4 * ROW),
        (f"{WHOLE} scatter(%buffer, %rows, %two), to_apply=%add", 6 * ROW),
        (f"{ONE} fusion(%buffer, %at), kind=kLoop, calls=%slices", 2 * ROW),
        (f"{ONE} fusion(%near, %at), kind=kLoop, calls=%slices", ROW),
        ("f32[1,1]{1,0:S(1)} fusion(%buffer, %at), kind=kOutput, calls=%product_of_a_slice", ROW),
        ("f32[1,1]{1,0:S(1)} fusion(%buffer), kind=kOutput, calls=%product_of_sums", BUFFER),
        ("f32[128]{0} fusion(%buffer), kind=kLoop, calls=%slice_of_flat", 2 * ROW),
        (f"{WHOLE} fusion(%buffer, %row, %at), kind=kLoop, calls=%updates", 2 * ROW),
        (f"({WHOLE}, f32[64]{{0}}) fusion(%buffer, %row, %at), calls=%updates_and_reads", BUFFER + 2 * ROW + 64 * 4),
        (f"{WHOLE} fusion(%buffer, %row, %at), kind=kLoop, calls=%updates_zeros", BUFFER + ROW),
        ("(f32[8,128]{1,0}, f32[64,128]{1,0}, u32[]{:S(2)}) fusion(%shard), calls=%started", 8 * ROW + BUFFER),
        (
            f"(f32[8,128]{{1,0}}, {WHOLE}, {WHOLE}, u32[]{{:S(2)}}) fusion(%shard, %buffer, %flag), calls=%carried",
            0,
        ),
        (f"({WHOLE}, {WHOLE}, u32[]{{:S(2)}}) copy-start(%near)", BUFFER),
        (f"({WHOLE}, f32[64,128]{{1,0:S(1)}}, u32[]{{:S(2)}}) copy-start(%near)", BUFFER),
        (f"(({WHOLE}), f32[8,128]{{1,0:S(1)}}, s32[]{{:S(2)}}) slice-start(%buffer), slice={{[0:8]}}", 8 * ROW),
        (f"(f32[8,128]{{1,0}}, {WHOLE}) all-gather-start(%shard), replica_groups={{}}", 8 * ROW + BUFFER),
        (f"{WHOLE} copy-done(%near)", 0),
        (f'{WHOLE} custom-call(), custom_call_target="AllocateBuffer"', 0),
        (f'{ONE} custom-call(%buffer), custom_call_target="tpu_custom_call"', BUFFER + ROW),
    ],
)
def test_bytes_that_an_instruction_moves(instruction, expected):
    assert counted(instruction) == expected


HOST = "f32[64,128]{1,0:S(5)}"
CALL = 'custom_call_target="HostExecute"'


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        (f"{WHOLE} copy(%buffer)", 0),
        (f"{HOST} copy(%buffer)", BUFFER),
        (f"({HOST}, {WHOLE}, u32[]{{:S(2)}}) copy-start(%buffer)", BUFFER),
        (f"({WHOLE}, {HOST}, u32[]{{:S(2)}}) copy-start(%far)", BUFFER),
        (f"{ONE} dynamic-slice(%far, %at, %at), dynamic_slice_sizes={{1,128}}", ROW),
        (f"{HOST} dynamic-update-slice(%far, %row, %at, %at)", ROW),
        (f"(({WHOLE}, {HOST}), {HOST}, u32[]{{:S(2)}}) custom-call-start(%buffer, %far), {CALL}", BUFFER),
        (f"{WHOLE} custom-call(%far), {CALL}", BUFFER),
    ],
)
def test_bytes_to_and_from_the_host(instruction, expected):
    """What the host itself computes moves what it reads and writes on the device."""
    assert counted(instruction, host_bytes) == expected
