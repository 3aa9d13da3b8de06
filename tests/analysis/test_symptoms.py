"""What shows that a run does not learn: its conditions, when a run warns of them, and what stands below its table."""

import re

import pytest

from prerl_jax.analysis.symptoms import SYMPTOMS, Watch, lasting, no_update, why_no_update

LEARNS = {
    "train/skipped": 0.0,
    "train/update_norm": 0.1,
    "train/tokens": 9.0,
    "train/solved_groups": 0.25,
    "train/unsolved_groups": 0.5,
    "train/truncated": 0.25,
    "train/unknown": 0.0,
}
SKIPPED = LEARNS | {"train/skipped": 1.0, "train/update_norm": 0.0, "train/tokens": 0.0}
CUT_OFF = LEARNS | {"train/truncated": 0.875}
ALL_WRONG = LEARNS | {"train/unsolved_groups": 1.0, "train/solved_groups": 0.0}
ALL_RIGHT = LEARNS | {"train/unsolved_groups": 0.0, "train/solved_groups": 1.0}


@pytest.mark.parametrize(
    "changed",
    [
        {"train/skipped": 0.0, "train/update_norm": 0.1},
        {"train/update_norm": 0.1},  # one of two updates was skipped
        {"train/critic_update_norm": 0.1},  # only the critic was updated
        {"train/skipped": 0.0, "train/tokens": 9.0},  # the learning rate is 0
    ],
)
def test_what_is_an_update(changed):
    assert no_update(SKIPPED)
    assert not no_update(SKIPPED | changed)


def test_why_a_step_has_no_update():
    assert why_no_update(SKIPPED) == (
        "the phase trains on none of the responses (groups all right: 25%, groups all wrong: 50%, responses truncated: "
        "25%, verdicts unknown: 0%)"
    )
    assert "the loss or its gradient is not finite" in why_no_update(SKIPPED | {"train/tokens": 9.0})


def warned(*steps, phase="rl"):
    """(step, warning) of each warning in steps with these metrics."""
    watch, found = Watch(), []
    for step, numbers in enumerate(steps, 1):
        watch, warnings = watch.after(step, phase, numbers)
        found += [(step, warning) for warning in warnings]
    return found


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        (ALL_WRONG, "step 3: no response is right for 3 steps in a row: .* completions.jsonl"),
        (ALL_RIGHT, "step 3: every response is right for 3 steps in a row: .*use harder ones"),
        (CUT_OFF, r"step 3: most responses are cut off .* 88% of them .*Raise sampling.max_new_tokens"),
    ],
)
def test_a_condition_is_said_after_three_steps_in_a_row_and_ten_steps_later(numbers, says):
    found = warned(*[numbers] * 25)
    assert [step for step, _ in found] == [3, 13, 23]
    assert re.search(says, found[0][1])
    assert warned(*[numbers, numbers, LEARNS] * 9) == []


def test_where_responses_are_cut_off_that_is_why_none_is_right():
    (found,) = warned(*[ALL_WRONG | CUT_OFF | {"train/unsolved_groups": 1.0}] * 4)
    assert "cut off" in found[1]


def test_a_step_without_an_update_is_said_at_once_and_not_at_every_step():
    assert [step for step, _ in warned(*[SKIPPED] * 12)] == [1, 11]
    assert warned(*[LEARNS] * 30) == []


def test_another_phase_begins_anew():
    watch, _ = Watch().after(1, "warmup", ALL_WRONG)
    watch, _ = watch.after(2, "warmup", ALL_WRONG)
    watch, warnings = watch.after(3, "rl", ALL_WRONG)
    assert warnings == []


def lines(phase, *steps):
    return [{"step": number, "phase": phase, **numbers} for number, numbers in enumerate(steps, 1)]


def test_what_held_in_most_steps_of_a_phase_is_said_at_its_end():
    """Also in a run of two steps, which is shorter than the patience."""
    base = {"step": 0, "phase": "base", "eval/avg@8": 0.5}
    found = lasting([base, *lines("warmup", *[SKIPPED | {"train/truncated": 0.875}] * 2)])
    skipped, cut_off = found["warmup"]
    assert skipped.startswith("no update in 2 of 2 steps: ")
    assert cut_off.startswith("most responses are cut off at sampling.max_new_tokens in 2 of 2 steps: ")
    assert lasting([base, *lines("warmup", LEARNS, LEARNS), *lines("rl", ALL_WRONG, LEARNS, LEARNS)]) == {}
    assert list(lasting([*lines("warmup", LEARNS, ALL_WRONG), *lines("rl", ALL_RIGHT)])) == ["rl"]


def test_numbers_that_are_not_there_or_are_null_hold_nothing():
    """A step whose verdicts are all unknown has no accuracy, and metrics.jsonl writes NaN as null."""
    for numbers in ({}, dict.fromkeys(LEARNS), dict.fromkeys(LEARNS, float("nan"))):
        assert [s.what for s in SYMPTOMS[1:] if s.holds(numbers)] == []
    assert why_no_update(dict.fromkeys(LEARNS) | {"train/tokens": 0.0})
