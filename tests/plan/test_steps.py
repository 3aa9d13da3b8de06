"""Seconds of steps, from rows made by hand."""

import dataclasses

import pytest
from hand_made import RATES, row

from prerl_jax.plan.program import Lengths
from prerl_jax.plan.steps import continuous_seconds, run_at_bound
from prerl_jax.rollout.plan import BatchingPlan
from prerl_jax.trainer.programs import Programs

PLAN = BatchingPlan(
    group_size=8, slots=100, mesh=None, shards=1, shared=False, chunk=10, rings=(100, 300, 900), shrink=()
)
ROWS = [
    row("copy", hbm=100),  # 1 s
    row("prefill", hbm=200),  # 2 s
    row("decode", hbm=100, columns=100, tokens=10),  # 0.1 s a token
    row("grow", hbm=300, name="longer_ring/300"),  # 3 s
    row("decode", hbm=200, columns=300, tokens=10),  # 0.2 s a token
    row("grow", hbm=700, name="longer_ring/900"),
    row("decode", hbm=400, columns=900, tokens=10),
]


@pytest.mark.parametrize(
    ("asked", "tokens", "seconds"),
    [
        (100, 50, 3 + 50 * 0.1),
        (100, 100, 3 + 100 * 0.1),
        (100, 200, 3 + 100 * 0.1 + 3 + 100 * 0.2),
        (300, 200, 3 + 100 * 0.1 + 3 + 100 * 0.2 + 2 * 200 * 0.2),
        (100, 901, 3 + 100 * 0.1 + 3 + 200 * 0.2 + 7 + 601 * 0.4),
    ],
    ids=["short", "a whole ring", "a longer ring", "three times the slots", "one more than the ring"],
)
def test_continuous_batching(asked, tokens, seconds):
    assert continuous_seconds(PLAN, asked, ROWS, RATES, tokens) == pytest.approx(seconds)


def test_no_seconds_where_a_decoding_loop_has_no_bound(tiny):
    programs, lengths = Programs(tiny()), Lengths(8, 16)
    rows = [row("decode", columns=32, tokens=16, phases=("nsr_prerl", "rl", "evaluation")), row("train")]
    assert run_at_bound(programs, rows, RATES, lengths, 8) is not None
    rows[0] = dataclasses.replace(rows[0], unbounded=1)
    assert run_at_bound(programs, rows, RATES, lengths, 8) is None
