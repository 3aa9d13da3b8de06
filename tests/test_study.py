"""The study command: what it runs, what it does not run again, what it refuses, and what it writes."""

import dataclasses
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_run

from prerl_jax import study
from prerl_jax.config.io import load_config, render
from prerl_jax.config.study import Arm, Figure, Study, load_study

STUDIES = sorted((Path(__file__).resolve().parent.parent / "configs" / "studies").glob("[a-z]*.py"))
CONFIG = tiny_run.config()
FAKE = """
import json, pathlib, sys
workdir, arm, seed = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
workdir.mkdir(parents=True, exist_ok=True)
print("a fake run", arm, seed)
if (workdir.parent.parent / f"fail_{arm}{seed}").exists():
    sys.exit(3)
end = {"step": 4, "phase": "rl", "eval/avg@2": 0.5 + 0.1 * seed, "eval/pass@1": 0.5, "eval/pass@2": 0.6}
with (workdir / "metrics.jsonl").open("a") as file:
    file.write(json.dumps({"step": 0, "phase": "base", "eval/avg@2": 0.4}) + "\\n")
    file.write(json.dumps(end | {"train/flops": 2e9}) + "\\n")
(workdir / "summary.json").write_text('[{"at": "base"}, {"at": "rl", "warned": ["it was low"], "ended": "guard x"}]')
"""

ONE = """
import dataclasses
import tiny_run
from prerl_jax import AlignmentSpec, Arm, Study, grpo

def study():
    config = dataclasses.replace(tiny_run.config(), phases=grpo(steps=1), alignment=AlignmentSpec())
    return Study("one", (Arm("grpo", config),), (3,), "eval/avg@2")
"""


def arms(*names, **changes):
    baseline = {name: None if name == names[0] else names[0] for name in names}
    return tuple(Arm(name, dataclasses.replace(CONFIG, **changes), baseline[name]) for name in names)


def tiny(*names, seeds=(0, 1), **changes):
    return Study("tiny", arms(*names, **changes), seeds, accuracy="eval/avg@2", targets=(0.45,))


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Runs that write what a run writes, at once."""
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    monkeypatch.setattr(
        study, "command", lambda cell: [sys.executable, str(script), str(cell.workdir), cell.arm, str(cell.seed)]
    )
    return tmp_path / "out"


def times_run(out, arm, seed):
    return (out / arm / f"seed{seed}.log").read_text().count("a fake run")


def test_a_grid_is_run_once_and_may_grow(fake, capsys):
    study.run_study(tiny("a", "b"), fake)
    assert "4 runs in" in capsys.readouterr().out
    assert load_config(fake / "b" / "seed1.py") == dataclasses.replace(CONFIG, seed=1)
    study.run_study(tiny("a", "b", "c", seeds=(0, 1, 2)), fake, jobs=3)
    assert "9 runs in" in (said := capsys.readouterr().out)
    assert "5 of them to run, 3 at a time" in said
    assert {times_run(fake, arm, seed) for arm in "abc" for seed in range(3)} == {1}
    table = json.loads((fake / "table.json").read_text())
    assert table["arms"]["c"]["against"]["equal_steps"] == {"mean": 0, "low": 0, "high": 0, "count": 3}
    assert table["arms"]["a"]["end"]["eval/avg@2"]["mean"] == pytest.approx(0.6)
    assert "| c | a |" in (fake / "table.md").read_text()
    assert "| c | 2 | rl: it was low |\n| c | 2 | rl: ended by guard x |" in (fake / "table.md").read_text()
    assert (fake / "tiny.png").read_bytes().startswith(b"\x89PNG")


def test_a_changed_arm_is_refused_before_anything_runs(fake):
    study.run_study(tiny("a"), fake)
    changed = dataclasses.replace(tiny("a", "b"), arms=(*arms("a", microbatches=2), *arms("b")))
    with pytest.raises(ValueError, match=r"a seed 0:\n    microbatches: 1 -> 2\n  a seed 1:\n    micro.*\n.*--out"):
        study.run_study(changed, fake)
    assert not (fake / "b").exists()


def test_a_failed_run_is_told_and_run_again(fake, capsys):
    fake.mkdir()
    (fake / "fail_a1").touch()
    with pytest.raises(study.StudyError, match=r"1 of 4 runs failed.*\n  a seed 1: .*seed1\.log"):
        study.run_study(tiny("a", "b"), fake)
    assert "a fake run a 1" in capsys.readouterr().err
    assert json.loads((fake / "table.json").read_text())["arms"]["a"]["seeds"] == [0]
    (fake / "fail_a1").unlink()
    study.run_study(tiny("a", "b"), fake)
    assert json.loads((fake / "table.json").read_text())["arms"]["a"]["seeds"] == [0, 1]
    assert (times_run(fake, "a", 0), times_run(fake, "a", 1)) == (1, 2)


def test_an_interrupted_study_ends_its_runs(fake, monkeypatch, tmp_path):
    pid = tmp_path / "pid"
    sleep = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    monkeypatch.setattr(study, "command", lambda cell: [sys.executable, "-c", sleep])

    def interrupted(futures):
        while not pid.exists() or not pid.read_text():
            pass
        raise KeyboardInterrupt

    monkeypatch.setattr(study.concurrent.futures, "as_completed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        study.run_study(tiny("a", "b"), fake)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    assert not (fake / "b" / "seed0.log").exists()


def test_a_run_that_a_killed_study_left_behind_is_not_started_twice(fake):
    """Whoever holds the log as its standard output holds the run, though the study that started it is gone."""
    log = fake / "a" / "seed1.log"
    log.parent.mkdir(parents=True)
    with log.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        left = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file)
    with pytest.raises(study.StudyError, match=r"a seed 1 is being run already.*workdir .*seed1"):
        study.run_study(tiny("a"), fake)
    assert not (fake / "a" / "seed0.log").exists()
    left.communicate()
    study.run_study(tiny("a"), fake)
    assert times_run(fake, "a", 1) == 1


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: tiny("a", "a"), "'a'] stand twice among the arms"),
        (lambda: tiny("a", seeds=(0, 0)), "stand twice among the seeds"),
        (lambda: tiny("a", seeds=()), "at least one arm and one seed"),
        (lambda: Arm("a/b", CONFIG), "folder's: letters"),
        (lambda: Study("s", (Arm("a", CONFIG, "b"),), (0,), "eval/avg@2"), "baseline of arm 'a' is 'b'"),
        (lambda: Study("s", arms("a"), (0,)), "compares by 'eval/avg@8', which arm 'a'.*measures eval/avg@2"),
        (lambda: Study("s", arms("a"), (0,), "eval/avg@2", (2.0,)), "at most 1"),
        (lambda: Study("s", arms("a"), (0,), "eval/avg@2", (), (Figure("f", ("b",)),)), "the arms are"),
        (lambda: study.run_study(tiny("a"), Path("nowhere"), jobs=0), "jobs is 0"),
    ],
)
def test_what_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_shipped_study_builds_and_its_configs_can_be_saved(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = load_study(f"studies/{path.stem}")
    assert found == load_study(path)
    assert found.name == path.stem
    for arm in found.arms:
        (tmp_path / "config.py").write_text(render(arm.config))
        assert load_config(tmp_path / "config.py") == arm.config


@pytest.mark.slow
def test_a_real_run(tmp_path, monkeypatch, capsys):
    """From the command line; the second command finds it finished."""
    for name, value in tiny_run.environment(XLA_FLAGS="--xla_backend_optimization_level=0").items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "one.py"
    file.write_text(ONE)
    out = tmp_path / "out"
    command = [str(file), "--out", str(out)]
    assert study.main([*command, "--dry-run"]) == 0
    assert "1 steps, new" in capsys.readouterr().out
    assert study.main(command) == 0
    assert "grpo seed 3 finished" in capsys.readouterr().out
    row = json.loads((out / "table.json").read_text())["arms"]["grpo"]
    last = tiny_run.lines(out / "grpo" / "seed3")[-1]
    assert row["accuracy_by_seed"] == {"3": last["eval/avg@2"]}
    assert row["compute"]["mean"] == last["train/flops"] > 0
    assert study.main([*command, "--dry-run"]) == 0
    assert "finished" in capsys.readouterr().out
    assert study.main(["nowhere.py"]) == 1
    assert "there is no config file 'nowhere.py'" in capsys.readouterr().err
