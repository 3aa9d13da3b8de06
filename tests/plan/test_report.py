"""Rows of the plan: bounds, memory, and programs that do not fit."""

import jax
import jax.numpy as jnp
import pytest
from hand_made import RATES, row

from prerl_jax.plan.count import Cost
from prerl_jax.plan.program import Program
from prerl_jax.plan.report import bounds, counted, needed, row_of
from prerl_jax.runtime.chips import GIB


def test_the_longest_time_is_the_bound():
    of = row("train", flops=200, hbm=50, links=40)
    assert bounds(of.work, RATES) == {"compute": 2, "memory": 0.5, "links": 4, "host": 0}
    assert of.seconds(RATES) == 4
    assert row("train", flops=200, host=6).seconds(RATES) == 6, "1 GiB a second goes to and from the host"
    assert row("train", refused="too large").seconds(RATES) is None


def test_free_and_fits():
    assert row("train", peak=4).free(16 * GIB) == 0.75
    assert row("train", peak=16).fits(16 * GIB)
    assert not row("train", peak=17).fits(16 * GIB)
    assert not row("train", peak=4, refused="no").fits(16 * GIB), "the compiler knows better"


@pytest.mark.parametrize(
    ("said", "gib"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 18.5G of 15.75G hbm. Exceeded by 2.7G.",
            18.5,
        ),
        ("... total memory required for HLO temporaries (480.00G) exceeds available HBM (15.75G).", 480),
        ("Used 512.0M of 256.0M hbm", 0.5),
        ("something else", 0),
    ],
)
def test_what_the_compiler_says_that_it_needs(said, gib):
    assert needed(said) == gib * GIB


def test_a_program_that_does_not_fit_is_a_row():
    said = "RESOURCE_EXHAUSTED: Used 18.5G of 15.75G hbm.\nmany lines"
    found = row_of(Program("train", ("rl",), "train", said, "", {"parameters": GIB, "reference": GIB}, GIB))
    assert found.peak == 19.5 * GIB
    assert found.work is None
    assert found.refused == "RESOURCE_EXHAUSTED: Used 18.5G of 15.75G hbm."


def test_a_compiled_program_is_a_row():
    """A product of 64 x 64 matrices, on a CPU, beside 1,000 bytes."""
    x = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    compiled = jax.jit(lambda a, b: a @ b).lower(x, x).compile()
    held = {"parameters": 64 * 64 * 4, "optimizer": 1000}
    found = row_of(Program("f", ("rl",), "train", compiled, "an Involuntary replication", held, 1000))
    assert found.work.flops == 2 * 64**3
    assert found.peak >= 3 * 64 * 64 * 4 + 1000
    assert sum(found.parts.values()) == found.peak
    assert found.warnings == 1


def test_the_kernel_of_decoding_reads_what_is_assumed():
    """All its runs together, however many there are; a program without it reads nothing for it."""
    text = """HloModule f

ENTRY %main (x: f32[8,128]) -> f32[8,128] {
  %x = f32[8,128]{1,0:T(8,128)} parameter(0)
  %attend_filled.1 = f32[8,128]{1,0:T(8,128)} custom-call(%x), custom_call_target="tpu_custom_call"
  ROOT %attend_filled.2 = f32[8,128]{1,0:T(8,128)} custom-call(%attend_filled.1), custom_call_target="tpu_custom_call"
}
"""
    assert counted(text, Cost(flops=5, hbm=7)) == (Cost(flops=5, hbm=7), 0)
    other = text.replace("attend_filled", "another")
    assert counted(other, Cost(flops=5, hbm=7)) == (Cost(hbm=4 * 8 * 128 * 4), 0)
