"""Reflection markers, counted by hand, traps included."""

import pytest

from prerl_jax.analysis.thoughts import count_matches


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("wait", "wait, recheck. so 7. wait", 2),
        ("wait", "await the waiter; waiting, waits, wait_for", 0),
        (r"\bwait\b", "await, wait.", 1),
        ("wait", "Wait", 0),
        ("(?i)wait", "Wait, WAIT! Await", 2),
        ("wait|let me check", "wait. let me check, let me checkmate", 2),
        ("wait|waiting", "waiting", 1),  # the shorter alternative fails at the edge, the longer one holds
        ("wait,", "wait,recheck", 1),  # a comma is an edge of its own
        ("wait,", "await,recheck", 0),
        (r"(re)?check \1", "recheck re", 1),  # groups keep their numbers
        (r"\?", "why? how?", 2),
        ("wait", "élwait", 0),
        ("wait", "", 0),
        ("hmm+", "hmmmm\nhm hmm", 2),
    ],
)
def test_counts(pattern, text, expected):
    assert count_matches(pattern, [text]).tolist() == [expected]


def test_one_count_a_text():
    assert count_matches("wait", ["wait wait", "", "no"]).tolist() == [2, 0, 0]
    assert count_matches("wait", []).shape == (0,)


@pytest.mark.parametrize(
    ("pattern", "message"), [("(wait", "not a regular expression"), ("x*", "empty"), ("", "empty")]
)
def test_refuses_patterns_that_cannot_count(pattern, message):
    with pytest.raises(ValueError, match=message):
        count_matches(pattern, ["wait"])
