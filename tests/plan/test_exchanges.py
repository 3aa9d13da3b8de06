"""Bytes between chips of every collective, by the ring algorithms; an array is f32[64,128], 32,768 bytes."""

import pytest

from prerl_jax.plan.exchanges import exchanges, group_size
from prerl_jax.plan.hlo import parse

B = 64 * 128 * 4
PROGRAM = """HloModule m, num_partitions=8

%all-reduce-scatter (x: f32[64,128], i: s32[]) -> f32[8,128] {{
  %x = f32[64,128]{{1,0}} parameter(0)
  %i = s32[] parameter(1)
  %sum = f32[64,128]{{1,0}} all-reduce(%x), replica_groups={{}}, to_apply=%add
  ROOT %part = f32[8,128]{{1,0}} dynamic-slice(%sum, %i, %i), dynamic_slice_sizes={{8,128}}
}}

%started (x.1: f32[8,128]) -> (f32[8,128], f32[64,128]) {{
  %x.1 = f32[8,128]{{1,0}} parameter(0)
  %g.1 = f32[64,128]{{1,0}} all-gather(%x.1), replica_groups={{}}, backend_config={{"async_collective_fusion_config":{{}}}}
  ROOT %c.1 = (f32[8,128]{{1,0}}, f32[64,128]{{1,0}}) custom-call(%g.1), custom_call_target="AsyncCollectiveStart"
}}

%carried (x.2: f32[8,128]) -> f32[64,128] {{
  %x.2 = f32[8,128]{{1,0}} parameter(0)
  ROOT %g.2 = f32[64,128]{{1,0}} all-gather(%x.2), replica_groups={{}}, backend_config={{"async_collective_fusion_config":{{}}}}
}}

%wrapped (x.3: f32[64,128]) -> f32[8,128] {{
  %x.3 = f32[64,128]{{1,0}} parameter(0)
  ROOT %s.3 = f32[8,128]{{1,0}} reduce-scatter(%x.3), replica_groups={{}}, dimensions={{0}}, to_apply=%add
}}

ENTRY %main (whole: f32[64,128], part: f32[8,128], at: s32[]) -> f32[] {{
  %whole = f32[64,128]{{1,0}} parameter(0)
  %part.1 = f32[8,128]{{1,0}} parameter(1)
  %at = s32[] parameter(2)
  ROOT %it = {instruction}
}}
"""  # noqa: E501
WHOLE, PART = "f32[64,128]{1,0}", "f32[8,128]{1,0}"
FOURS = "replica_groups={{0,1,2,3},{4,5,6,7}}"
RING = "source_target_pairs={{0,1},{1,0}}"


@pytest.mark.parametrize(
    ("instruction", "kind", "sent"),
    [
        (f"{WHOLE} all-gather(%part.1), replica_groups={{}}, dimensions={{0}}", "all-gather", B * 7 / 8),
        (f"{WHOLE} all-gather(%part.1), {FOURS}, dimensions={{0}}", "all-gather", B * 3 / 4),
        (f"({PART}, {WHOLE}) all-gather-start(%part.1), {FOURS}, dimensions={{0}}", "all-gather", B * 3 / 4),
        (f"{WHOLE} all-reduce(%whole), replica_groups=[2,4]<=[8], to_apply=%add", "all-reduce", 2 * B * 3 / 4),
        (f"{WHOLE} all-reduce-start(%whole), replica_groups=[8,1]<=[8], to_apply=%add", "all-reduce", 0),
        (f"({WHOLE}, {PART}) all-reduce(%whole, %part.1), replica_groups={{}}", "all-reduce", 2 * 7 / 8 * (B + B / 8)),
        (f"{PART} reduce-scatter(%whole), replica_groups={{}}, to_apply=%add", "reduce-scatter", B * 7 / 8),
        (f"{PART} fusion(%whole, %at), kind=kCustom, calls=%all-reduce-scatter", "reduce-scatter", B * 7 / 8),
        (f"(({WHOLE}), {PART}) async-start(%whole), calls=%wrapped", "reduce-scatter", B * 7 / 8),
        (f"{WHOLE} all-to-all(%whole), replica_groups={{}}, dimensions={{0}}", "all-to-all", B * 7 / 8),
        (f"(({WHOLE}), {WHOLE}) all-to-all-start(%whole), replica_groups={{}}", "all-to-all", B * 7 / 8),
        (f"{WHOLE} ragged-all-to-all(%whole, %part.1), replica_groups={{}}", "ragged-all-to-all", B * 7 / 8),
        (f"{WHOLE} collective-permute(%whole), {RING}", "collective-permute", B),
        (f"({WHOLE}, {WHOLE}, u32[], u32[]) collective-permute-start(%whole), {RING}", "collective-permute", B),
        (f"{WHOLE} collective-permute(%whole), source_target_pairs={{{{0,0}}}}", "collective-permute", 0),
        (f"{WHOLE} collective-broadcast(%whole), {FOURS}", "collective-broadcast", B),
        (f"({PART}, {WHOLE}) fusion(%part.1), kind=kCustom, calls=%started", "all-gather", B * 7 / 8),
    ],
)
def test_bytes_that_a_device_sends(instruction, kind, sent):
    module = parse(PROGRAM.format(instruction=instruction))
    main = module.computations["main"]
    (found,) = exchanges(module, main, main.instructions["it"])
    assert (found.kind, found.sent) == (kind, sent)


@pytest.mark.parametrize(
    "instruction",
    [
        f"{WHOLE} fusion(%part.1), kind=kCustom, calls=%carried",
        f"{WHOLE} all-gather-done(%whole)",
        f"{WHOLE} add(%whole, %whole)",
    ],
)
def test_what_starts_no_collective(instruction):
    module = parse(PROGRAM.format(instruction=instruction))
    main = module.computations["main"]
    assert not list(exchanges(module, main, main.instructions["it"]))


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("{{0,1},{2,3}}", 2),
        ("{}", 8),
        ("[2,4]<=[8]", 4),
        ("[4,2]<=[2,4]T(1,0)", 2),
        ("mesh['axis_0'=1,'axis_1'=8,'axis_2'=1] {'axis_1'}", 8),
        ("mesh['x'=2,'y'=4] {'x','y'}", 8),
        ("mesh['x'=2,'y'=4] {'y':(2)2}", 2),
        ('@mesh["x"=2,"y"=4] {"x"}', 2),
    ],
)
def test_devices_of_a_group(groups, size):
    assert group_size(f"channel_id=1, replica_groups={groups}, dimensions={{0}}", 8) == size


def test_groups_of_another_form():
    with pytest.raises(ValueError, match="replica_groups of an unknown form: <new>"):
        group_size("replica_groups=<new>", 8)
