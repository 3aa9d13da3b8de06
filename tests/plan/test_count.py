"""Whole programs: loops count as often as they run, conditionals as their dearer branch, kernels as the caller says."""

import re

import jax
import jax.numpy as jnp
import pytest

from prerl_jax.plan.count import Cost, count

LOOP = """HloModule m, num_partitions=4

%body (arg: (u32[], f32[8,16], f32[16,16])) -> (u32[], f32[8,16], f32[16,16]) {
  %arg = (u32[], f32[8,16]{1,0}, f32[16,16]{1,0}) parameter(0)
  %two = u32[] constant(2)
  %i = u32[] get-tuple-element(%arg), index=0
  %next = u32[] add(%i, %two)
  %x = f32[8,16]{1,0} get-tuple-element(%arg), index=1
  %w = f32[16,16]{1,0} get-tuple-element(%arg), index=2
  %part = f32[4,16]{1,0:S(1)} slice(%w), slice={[0:4], [0:16]}
  %all = f32[16,16]{1,0:S(1)} all-gather(%part), replica_groups={}, dimensions={0}, metadata={op_name="jit(f)/gather"}
  %y = f32[8,16]{1,0} dot(%x, %all), lhs_contracting_dims={1}, rhs_contracting_dims={0}, metadata={op_name="jit(f)/dot"}
  ROOT %out = (u32[], f32[8,16]{1,0}, f32[16,16]{1,0}) tuple(%next, %y, %w)
}

%condition (arg.1: (u32[], f32[8,16], f32[16,16])) -> pred[] {
  %arg.1 = (u32[], f32[8,16]{1,0}, f32[16,16]{1,0}) parameter(0)
  %bound = u32[] constant(10)
  %j = u32[] get-tuple-element(%arg.1), index=0
  ROOT %less = pred[]{:S(6)} compare(%j, %bound), direction=LT
}

ENTRY %main (given.x: f32[8,16], given.w: f32[16,16]) -> f32[8,16] {
  %given.x = f32[8,16]{1,0} parameter(0)
  %given.w = f32[16,16]{1,0} parameter(1)
  %first = u32[] constant(0)
  %start = (u32[], f32[8,16]{1,0}, f32[16,16]{1,0}) tuple(%first, %given.x, %given.w)
  %loop = (u32[], f32[8,16]{1,0}, f32[16,16]{1,0}) while(%start), condition=%condition, body=%body
  %done = f32[8,16]{1,0} get-tuple-element(%loop), index=1
  ROOT %sum = f32[8,16]{1,0} all-reduce(%done), replica_groups={{0,1},{2,3}}, to_apply=%add
}
"""
X, W = 8 * 16 * 4, 16 * 16 * 4


def test_a_loop_that_counts_by_two_runs_half_as_often():
    found = count(LOOP)
    assert found.total.flops == found.total.wide == 5 * 2 * 8 * 16 * 16
    assert found.total.sent == 5 * W * 3 / 4 + X, "the weights are gathered 5 times, and the result is reduced once"
    counters = 5 * 3 * 4 + 6 * 2 * 4
    assert found.total.hbm == 5 * (W / 4 + 2 * X) + 2 * X + counters
    assert found.unbounded == ()


def test_a_loop_within_a_loop():
    body = LOOP.replace("ENTRY %main", "%once")
    outer = """
%again (p: (u32[], f32[8,16], f32[16,16])) -> (u32[], f32[8,16], f32[16,16]) {
  %p = (u32[], f32[8,16]{1,0}, f32[16,16]{1,0}) parameter(0)
  %one = u32[] constant(1)
  %k = u32[] get-tuple-element(%p), index=0
  %more = u32[] add(%k, %one)
  %v = f32[8,16]{1,0} get-tuple-element(%p), index=1
  %u = f32[16,16]{1,0} get-tuple-element(%p), index=2
  %result = f32[8,16]{1,0} call(%v, %u), to_apply=%once
  ROOT %state = (u32[], f32[8,16]{1,0}, f32[16,16]{1,0}) tuple(%more, %result, %u)
}

ENTRY %main (r: f32[8,16], s: f32[16,16]) -> (u32[], f32[8,16], f32[16,16]) {
  %r = f32[8,16]{1,0} parameter(0)
  %s = f32[16,16]{1,0} parameter(1)
  %zero = u32[] constant(0)
  %q = (u32[], f32[8,16]{1,0}, f32[16,16]{1,0}) tuple(%zero, %r, %s)
  ROOT %w.2 = (u32[], f32[8,16]{1,0}, f32[16,16]{1,0}) while(%q), condition=%condition, body=%again
}
"""
    found = count(body + outer)
    assert found.total.flops == 10 * 5 * 2 * 8 * 16 * 16
    assert found.total.sent == 10 * (5 * W * 3 / 4 + X)
    assert [times for _, times in found.collectives(depth=2)] == [50]


def test_collectives_within_loops():
    ((gather, times),) = count(LOOP).collectives(depth=1)
    assert (gather.kind, str(gather.arrays[0]), gather.group, times) == ("all-gather", "f32[16,16]", 4, 5)
    assert [e.kind for e, _ in count(LOOP).collectives()] == ["all-gather", "all-reduce"]


def test_the_dearest_instructions():
    dearest, *_ = count(LOOP).dearest(lambda cost: cost.hbm)
    assert (dearest.name, dearest.opcode, dearest.times, dearest.depth) == ("y", "dot", 5, 1)
    assert (dearest.op_name, dearest.result) == ("jit(f)/dot", "f32[8,16]")
    assert dearest.total.hbm == 5 * 2 * X
    assert [line.name for line in count(LOOP).dearest(lambda cost: cost.sent, most=1)] == ["all"]


def test_a_loop_without_a_bound_counts_once_and_is_named():
    found = count(LOOP.replace("compare(%j, %bound)", "compare(%j, %j)"))
    assert found.total.flops == 2 * 8 * 16 * 16
    assert found.unbounded == ("loop",)


@pytest.mark.parametrize(
    ("branches", "attributes"),
    [
        ("s32[]", "branch_computations={%nothing, %copies}"),
        ("pred[]", "true_computation=%copies, false_computation=%nothing"),
    ],
)
def test_a_conditional_costs_as_its_dearer_branch(branches, attributes):
    text = f"""
%nothing (a: f32[8,16]) -> f32[8,16] {{
  %a = f32[8,16]{{1,0}} parameter(0)
  %zero = f32[] constant(0)
  %small = f32[] copy(%zero)
  %one = f32[] add(%small, %zero)
  ROOT %same = f32[8,16]{{1,0}} bitcast(%a)
}}

%copies (b: f32[8,16]) -> f32[8,16] {{
  %b = f32[8,16]{{1,0}} parameter(0)
  ROOT %c = f32[8,16]{{1,0}} copy(%b)
}}

%calls (d: f32[8,16]) -> f32[8,16] {{
  %d = f32[8,16]{{1,0}} parameter(0)
  ROOT %e = f32[8,16]{{1,0}} call(%d), to_apply=%copies
}}

ENTRY %main (which: {branches}, x: f32[8,16]) -> f32[8,16] {{
  %which = {branches} parameter(0)
  %x = f32[8,16]{{1,0}} parameter(1)
  %y = f32[8,16]{{1,0}} conditional(%which, %x, %x), {attributes}
  ROOT %z = f32[8,16]{{1,0}} call(%y), to_apply=%calls
}}
"""
    assert count(text).total == Cost(hbm=2 * 2 * X)


def test_a_conditional_with_loops_counts_as_the_branch_of_so_many_steps():
    """The loop of LOOP in one branch, with 5 runs; the same with 50 runs in the other. Without a word, it is that."""
    some = LOOP.replace("ENTRY %main", "%some")
    tail = re.sub(r"%(body|condition)\b", r"%\1.tail", LOOP.replace("ENTRY %main", "%tail"))
    tail = tail.replace("constant(10)", "constant(100)").partition("\n")[2]
    main = """
ENTRY %main (which: s32[], x.3: f32[8,16], w.3: f32[16,16]) -> f32[8,16] {
  %which = s32[] parameter(0)
  %x.3 = f32[8,16]{1,0} parameter(1)
  ROOT %y.3 = f32[8,16]{1,0} conditional(%which, %x.3, %x.3), branch_computations={%some, %tail}
}
"""
    once = 2 * 8 * 16 * 16
    found = [count(some + tail + main, steps=steps).total.flops for steps in (0, 5, 50, 7)]
    assert found == [50 * once, 5 * once, 50 * once, 50 * once]


def test_a_copy_to_the_host():
    text = """
ENTRY %main (x: f32[8,16]) -> f32[8,16] {
  %x = f32[8,16]{1,0} parameter(0)
  ROOT %far = f32[8,16]{1,0:S(5)} copy(%x)
}
"""
    assert count(text).total == Cost(hbm=X, host=X)


KERNEL = """
ENTRY %main (x: bf16[8,16]) -> bf16[8,16] {
  %x = bf16[8,16]{1,0} parameter(0)
  %paged.3 = bf16[8,16]{1,0} custom-call(%x), custom_call_target="tpu_custom_call", backend_config={CONFIG}
  ROOT %paged.4 = bf16[8,16]{1,0} custom-call(%paged.3), custom_call_target="tpu_custom_call", backend_config={}
}
"""
ESTIMATE = '{"custom_call_config":{"cost_estimate":{"flops":"300","transcendentals":"1","bytes_accessed":"7"}}}'


def test_kernels_cost_what_they_estimate_or_what_the_caller_says():
    text, once = KERNEL.replace("{CONFIG}", ESTIMATE), 2 * 8 * 16 * 2
    assert count(KERNEL).total == Cost(hbm=2 * once)
    assert count(text).total == Cost(flops=300, hbm=7 + once)
    assert count(text, {"paged": Cost(flops=5, hbm=1000)}).total == Cost(flops=10, hbm=2000)


def test_agrees_with_the_compiler_where_there_is_no_loop():
    x, weights = jnp.ones((4, 32, 64)), jnp.ones((6, 64, 64))

    def looped(x, weights):
        return jax.lax.scan(lambda x, w: (jnp.einsum("btd,de->bte", x, w), None), x, weights)[0]

    def unrolled(x, weights):
        for w in weights:
            x = jnp.einsum("btd,de->bte", x, w)
        return x

    found = [jax.jit(f).lower(x, weights).compile() for f in (looped, unrolled)]
    flops = [count(c.as_text()).total.flops for c in found]
    assert flops == [6 * 2 * 4 * 32 * 64 * 64] * 2
    assert flops[1] == pytest.approx(found[1].cost_analysis()["flops"], rel=0.01)
    assert found[0].cost_analysis()["flops"] < flops[0] / 2, "the compiler counts a loop's body once"
