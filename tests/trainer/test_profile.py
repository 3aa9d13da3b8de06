"""`--profile N`: a trace of steps N to N + 2, with the parts of a step in it."""

import gzip
import json

import pytest
from tiny_run import COMMAND, timeless

from prerl_jax import launch
from prerl_jax.runtime.profile import Profile


@pytest.mark.slow
def test_a_trace_of_the_steps_is_written_and_changes_nothing(tmp_path, finished):
    assert launch.main(["--config", COMMAND[-1], "--workdir", str(tmp_path), "--profile", "3"]) == 0
    (trace,) = (tmp_path / "profile").rglob("*.trace.json.gz")
    assert list(trace.parent.glob("*.xplane.pb"))
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    names = {event.get("name") for event in events}
    assert {"sample", "verify", "prepare", "train"} <= names
    numbers = {event["args"]["step_num"] for event in events if event.get("name") == "step"}
    assert numbers == {"3", "4"}
    assert timeless(tmp_path) == timeless(finished.workdir)


def test_which_steps_are_traced(tmp_path, monkeypatch):
    events = []
    monkeypatch.setattr("jax.profiler.start_trace", lambda folder: events.append("start"))
    monkeypatch.setattr("jax.block_until_ready", events.extend)
    monkeypatch.setattr("jax.profiler.stop_trace", lambda: events.append("stop"))
    for first, last in ((2, 6), (3, 4), (None, 6)):
        profile = Profile(tmp_path / "profile", first)
        for number in range(1, last + 1):
            with profile.step(number) as computed:
                events.append(number)
                computed(f"{number} is computed")
        profile.close()
    whole = [1, "start", 2, 3, 4, "4 is computed", "stop", 5, 6]
    assert events == [*whole, 1, 2, "start", 3, 4, "stop", 1, 2, 3, 4, 5, 6]
    with pytest.raises(ValueError, match="from 0 on"):
        Profile(tmp_path, 0)


@pytest.mark.parametrize(("number", "says"), [("0", "counted from 1"), ("5", "and steps 1 to 4 are left")])
def test_a_mistaken_number_is_refused(tmp_path, capsys, number, says):
    arguments = ["--config", COMMAND[-1], "--workdir", str(tmp_path / "new"), "--profile", number]
    assert launch.main(arguments) == 1
    assert says in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_steps_that_are_done_are_refused(finished, capsys):
    assert launch.main(["--config", COMMAND[-1], "--workdir", str(finished.workdir), "--profile", "3"]) == 1
    assert "--profile 3 profiles steps 3 to 5, and all 4 steps are done" in capsys.readouterr().err
    Profile(finished.workdir, 3).check(2, 4)
    with pytest.raises(ValueError, match="steps 4 to 4 are left"):
        Profile(finished.workdir, 3).check(3, 4)
