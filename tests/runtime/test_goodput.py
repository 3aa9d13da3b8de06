"""Goodput by hand, through a resume that does steps again."""

import pytest

from prerl_jax.runtime.goodput import Goodput


def test_a_run_that_is_killed_and_resumed():
    clock = iter([100.0, 110.0, 120.0, 130.0, 200.0, 210.0])
    goodput = Goodput(now=lambda: next(clock))
    lines = [goodput.metrics({"time/evaluate": 9.0})]
    assert lines[0] == {"time/goodput": 0.0, "time/elapsed": 10.0, "time/clock": 110.0}
    step = {"time/sample": 5.0, "time/train": 3.0, "time/verify": 1.0}
    lines.append(goodput.metrics(step) | step)
    assert lines[1]["time/goodput"] == pytest.approx(8 / 20)
    assert goodput.metrics(step)["time/goodput"] == pytest.approx(16 / 30)  # cut: its checkpoint was not written
    resumed = Goodput(lines, now=lambda: next(clock))
    assert resumed.metrics(step)["time/goodput"] == pytest.approx(16 / 100)
    assert resumed.metrics({})["time/elapsed"] == 110.0
