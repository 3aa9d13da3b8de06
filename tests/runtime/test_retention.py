"""Which checkpoints are kept, by hand."""

import math
from types import SimpleNamespace

import pytest

from prerl_jax.runtime.retention import Retention, retained
from prerl_jax.runtime.step_files import Record

RECORDS = {  # step: (the metric a, boundary)
    1: (0.5, False),
    2: (0.9, True),
    3: (0.9, False),
    4: (math.nan, False),
    5: (0.7, False),
    6: (None, False),
}


@pytest.mark.parametrize(
    ("upto", "keep_last", "best", "expected"),
    [
        (1, 1, "a", {1}),
        (3, 1, None, {2, 3}),
        (3, 1, "a", {2, 3}),
        (5, 1, "a", {2, 5}),
        (5, 2, "a", {2, 4, 5}),
        (6, 1, "missing", {2, 6}),
        (6, 9, None, {1, 2, 3, 4, 5, 6}),
    ],
)
def test_retention_by_hand(upto, keep_last, best, expected):
    records = {s: Record({}, {} if a is None else {"a": a}, b, {}) for s, (a, b) in RECORDS.items() if s <= upto}
    assert retained(records, keep_last, best) == expected


def test_the_earlier_of_equally_good_is_kept():
    records = {s: Record({}, {"a": a}, False, {}) for s, a in {1: 0.1, 2: 0.4, 3: 0.4, 4: -math.inf}.items()}
    assert retained(records, 1, "a") == {2, 4}


def test_what_is_needed_is_kept():
    records = {step: Record({}, {}, False, {}) for step in (2, 4, 6, 8, 10)}
    assert retained(records, 1, None, (7, 5, 1)) == {4, 6, 10}
    assert retained({}, 1, None, (7,)) == set()


def test_orbax_is_answered_in_its_order():
    records = {step: Record({}, {}, False, {}) for step in (2, 4, 6)}
    policy = Retention(records, 1, None)
    policy.needed = (2,)
    asked = [SimpleNamespace(step=step) for step in (2, 4, 5, 6)]
    assert policy.should_preserve(asked, context=None) == [True, False, False, True]
