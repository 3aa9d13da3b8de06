"""Progress: plain lines in a file, a live display on a terminal, silence elsewhere, and an honest time left."""

import io

import pytest
from rich.console import Console

from prerl_jax.analysis.console import Clock, Progress

METRICS = {"train/accuracy": 0.5, "train/reward": 0.25, "train/length": 31.26, "time/tokens_per_second": 5123.4}


def show(calls, total=120, start=0, enabled=True, **options):
    file = io.StringIO()
    with Progress(total, start, enabled, Console(file=file, **options)) as progress:
        for name, *arguments in calls:
            getattr(progress, name)(*arguments)
    return file.getvalue()


def test_a_file_gets_one_aligned_plain_line_a_step():
    text = show(
        [
            ("update", 0, "base", {"eval/avg@8": 0.44}),
            ("update", 9, "nsr_prerl", METRICS),
            ("update", 100, "rl", {**METRICS, "train/length": 8192.0, "eval/avg@8": 0.5}),
        ]
    )
    base, first, second = text.splitlines()
    cells = "step 0/120 base accuracy - reward - length - tokens/s - left - eval/avg@8 0.440"
    assert " ".join(base.split()) == cells
    assert first.startswith(
        "step   9/120  nsr_prerl   accuracy  0.500  reward  0.250  length   31.3  tokens/s   5123  left"
    )
    assert second.startswith(
        "step 100/120  rl          accuracy  0.500  reward  0.250  length 8192.0  tokens/s   5123  left"
    )
    assert second.endswith("eval/avg@8 0.500")
    assert "unknown" not in text
    assert base.index("left") == first.index("left") == second.index("left")


def test_a_plain_line_shows_the_share_of_unknown_verdicts_above_one_percent():
    shares = [{"train/unknown": 0.01}, {"train/unknown": 0.125}, {"eval/unknown": 0.02, "train/unknown": 0.5}]
    lines = show([("update", n, "rl", METRICS | share) for n, share in enumerate(shares)]).splitlines()
    assert "unknown" not in lines[0]
    assert lines[1].endswith("train/unknown 12.5%")
    assert {"eval/unknown 2.0%", "train/unknown 50.0%"} <= set(lines[2].split("  "))


def test_a_file_gets_no_control_characters_and_no_wrapping():
    message = "[bold]saved[/bold] :smile: \x1b[31m\r" + "x" * 300
    text = show([("update", 1, "rl", METRICS), ("message", message)])
    assert [letter for letter in text if not letter.isprintable() and letter != "\n"] == []
    assert text.splitlines()[1] == "[bold]saved[/bold] :smile: [31m" + "x" * 300


def test_a_terminal_gets_a_live_display_with_all_of_it():
    calls = [
        ("update", 9, "nsr_prerl", {**METRICS, "eval/avg@8": 0.44}),
        ("update", 10, "rl", METRICS),
        ("message", "saved [x]"),
    ]
    text = show(calls, force_terminal=True, width=100, color_system=None)
    assert "\x1b" in text
    bar = next(line for line in reversed(text.splitlines()) if "10/120" in line)
    assert "rl " in bar
    assert "left" in bar
    for cell in ("accuracy 0.500", "reward 0.250", "length 31.3", "tokens/s 5123", "eval/avg@8 0.440"):
        assert cell in text.split(bar)[-1]
    assert "saved [x]" in text


@pytest.mark.parametrize("terminal", [True, False])
def test_a_run_that_becomes_shorter_says_so(terminal):
    calls = [("update", 1, "a", METRICS), ("replan", 7), ("update", 2, "b", METRICS), ("update", 4, "b", METRICS)]
    text = show(calls, total=9, force_terminal=terminal, width=100, color_system=None)
    assert terminal or "1/9" in text  # a terminal is shown a part of it
    assert "4/7" in text
    assert "4/9" not in text


@pytest.mark.parametrize("terminal", [True, False])
def test_a_disabled_process_is_silent(terminal):
    calls = [("update", 1, "rl", METRICS), ("message", "saved")]
    assert show(calls, enabled=False, force_terminal=terminal) == ""


def test_an_exception_inside_is_not_swallowed():
    with pytest.raises(KeyError), Progress(2, console=Console(file=io.StringIO(), force_terminal=True)):
        raise KeyError


def test_time_left_counts_this_process_only_and_not_its_compilation():
    clock = Clock(total_steps=100, start_step=90)
    clock.start(1000.0)
    assert clock.left(90, 1005.0, 4.0) is None  # the evaluation before training
    assert clock.left(91, 1040.0, 30.0) == pytest.approx(5.0 * 9)  # all that is known: one step, less its compilation
    assert clock.left(92, 1042.0) == pytest.approx(2.0 * 8)
    assert clock.left(93, 1072.0, 29.0) == pytest.approx(2.0 * 7)  # another program: not how the run goes
    assert clock.left(95, 1080.0, 0.1) == pytest.approx((2.0 + 7.9) / 3 * 5)
    assert clock.left(100, 1090.0) == 0.0
