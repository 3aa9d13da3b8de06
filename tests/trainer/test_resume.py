"""A run that is killed and resumed ends bit for bit like one that was not; and the resumes that are refused."""

import dataclasses
import shutil
import signal
import subprocess
import sys
import time

import jax
import pytest
import tiny_run
import toy
from tiny_run import COMMAND, Died, dies_at, lines, state_at, timeless

from prerl_jax import launch
from prerl_jax.runtime.checkpoints import Checkpoints
from prerl_jax.trainer import start
from prerl_jax.trainer.start import run


def assert_like_undisturbed(workdir, finished, setup):
    assert timeless(workdir) == timeless(finished.workdir)
    for name in ("completions.jsonl", "summary.json", "config.py"):
        assert (workdir / name).read_text() == (finished.workdir / name).read_text()
    assert not [path for path in workdir.rglob("*tmp*") if path.name.endswith("tmp") or "orbax-checkpoint" in path.name]
    for step in (2, 3, 4):
        toy.assert_same_bits(state_at(workdir, setup, step), state_at(finished.workdir, setup, step))


def start_process(workdir):
    """The command line in a process of its own."""
    command = [sys.executable, tiny_run.__file__, "--config", COMMAND[-1], "--workdir", str(workdir)]
    return subprocess.Popen(
        command, env=tiny_run.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_killed_in_both_phases(tmp_path, finished, setup):
    """Killed as soon as the checkpoint of a step is complete, while the next step runs."""
    for step in (1, 3):
        process, end = start_process(tmp_path), time.monotonic() + 600
        while process.poll() is None and time.monotonic() < end and not (tmp_path / f"checkpoints/{step}").exists():
            time.sleep(0.002)
        process.kill()
        assert process.wait() == -signal.SIGKILL, process.communicate()[1][-3000:]
        process.communicate()
        assert not (tmp_path / "summary.json").exists()
    process = start_process(tmp_path)
    output, error = process.communicate(timeout=600)
    assert process.returncode == 0, error[-3000:]
    assert "resumed from the checkpoint at step 3" in output
    assert_like_undisturbed(tmp_path, finished, setup)


def test_died_again_and_again(tmp_path, finished, setup, monkeypatch):
    """Killed before the first checkpoint; between the lines and the checkpoint of a phase's end; in phase 2."""
    config, console, save = tiny_run.config(), tiny_run.quiet(), Checkpoints.save

    def refuse(self, step, *rest, **more):
        if step == 2:
            raise Died
        save(self, step, *rest, **more)

    with pytest.raises(Died), dies_at(config, 0):
        run(config, tmp_path, console=console)
    assert [record["step"] for record in lines(tmp_path)] == [0]
    monkeypatch.setattr(Checkpoints, "save", refuse)
    with pytest.raises(Died):
        run(config, tmp_path, console=console)
    monkeypatch.undo()
    assert "resumed" not in console.file.getvalue()
    assert [record["step"] for record in lines(tmp_path)] == [0, 1, 2]
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "pha')
    with pytest.raises(Died), dies_at(config, 2):
        run(config, tmp_path, console=console)
    assert "resumed from the checkpoint at step 1" in console.file.getvalue()
    assert [record["step"] for record in lines(tmp_path)] == [0, 1, 2, 3]
    run(config, tmp_path, console=console)
    assert "resumed from the checkpoint at step 3" in console.file.getvalue()
    assert_like_undisturbed(tmp_path, finished, setup)


def test_steps_between_checkpoints_are_done_again(tmp_path, finished, setup):
    """A checkpoint every two steps, and an evaluation every step, which changes nothing of the training."""
    config = tiny_run.config()
    config = dataclasses.replace(
        config,
        checkpoints=dataclasses.replace(config.checkpoints, every=2, best="eval/avg@2"),
        evaluation=dataclasses.replace(config.evaluation, every=1),
    )
    with pytest.raises(Died), dies_at(config, 3):
        run(config, tmp_path, console=tiny_run.quiet())
    assert [record["step"] for record in lines(tmp_path)] == [0, 1, 2, 3]
    console = tiny_run.quiet()
    run(config, tmp_path, console=console)
    assert "resumed from the checkpoint at step 2" in console.file.getvalue()
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == [2, 4]
    for step in (2, 4):
        toy.assert_same_bits(state_at(tmp_path, setup, step), state_at(finished.workdir, setup, step))
    for mine, theirs in zip(timeless(tmp_path), timeless(finished.workdir), strict=True):
        assert mine == theirs | {name: value for name, value in mine.items() if name.startswith("eval/")}
        assert "eval/avg@2" in mine
    assert (tmp_path / "completions.jsonl").read_text() == (finished.workdir / "completions.jsonl").read_text()


def test_a_damaged_newest_checkpoint_is_passed_over(tmp_path, finished, setup):
    config, console = tiny_run.config(), tiny_run.quiet()
    with pytest.raises(Died), dies_at(config, 3):
        run(config, tmp_path, console=console)
    files = [path for path in (tmp_path / "checkpoints" / "3" / "params").rglob("d/*") if path.is_file()]
    assert files
    for path in files:
        path.write_bytes(path.read_bytes()[:20])
    run(config, tmp_path, console=console)
    assert "skipped a damaged checkpoint, step 3: " in console.file.getvalue()
    assert "resumed from the checkpoint at step 2" in console.file.getvalue()
    assert_like_undisturbed(tmp_path, finished, setup)


def arguments(workdir, *more):
    return ["--config", COMMAND[-1], "--workdir", str(workdir), *more]


def test_another_config_is_refused_with_the_difference(finished, capsys):
    before = (finished.workdir / "config.py").read_text()
    status = launch.main(arguments(finished.workdir, "--set", "optimizer.learning_rate=1e-5", "seed=3"))
    error = capsys.readouterr().err
    assert status == 1
    assert "optimizer.learning_rate: 0.0003 -> 1e-05" in error
    assert "seed: 0 -> 3" in error
    assert "--allow-config-change" in error
    assert (finished.workdir / "config.py").read_text() == before


@pytest.mark.slow
def test_a_longer_schedule_goes_on(tmp_path, finished, setup):
    workdir = shutil.copytree(finished.workdir, tmp_path / "longer")
    assert launch.main(arguments(workdir, "--allow-config-change", "--set", "phases.1.steps=3")) == 0
    assert timeless(workdir)[:5] == timeless(finished.workdir)
    records = lines(workdir)
    assert [record["step"] for record in records] == [0, 1, 2, 3, 4, 5]
    assert records[5]["phase"] == "rl"
    state = state_at(workdir, setup)
    assert (state.step, state.phase, state.phase_step) == (5, 2, 0)
    assert "steps=3" in (workdir / "config.py").read_text()
    assert launch.main(arguments(workdir, "--allow-config-change", "--set", "phases.1.steps=1")) == 1


@pytest.mark.slow
def test_a_changed_schedule_is_gone_on_with_whatever_died_in_between(tmp_path, setup):
    """config.py is new at once, while the newest checkpoint still has positions in the old phases."""
    config = tiny_run.config()
    with pytest.raises(Died), dies_at(config, 2):
        run(config, tmp_path, console=tiny_run.quiet())
    first, second = config.phases
    changed = dataclasses.replace(
        config,
        phases=(dataclasses.replace(first, steps=3), dataclasses.replace(second, steps=1)),
        data=dataclasses.replace(config.data, train=dataclasses.replace(config.data.train, count=48)),
    )
    allowed = {"allow_config_change": True, "console": tiny_run.quiet()}
    with pytest.raises(Died), dies_at(changed, 0):
        run(changed, tmp_path, **allowed)
    run(changed, tmp_path, console=tiny_run.quiet())
    expected = [(0, "base"), (1, "nsr_prerl"), (2, "nsr_prerl"), (3, "nsr_prerl"), (4, "rl")]
    assert [(record["step"], record["phase"]) for record in lines(tmp_path)] == expected


def test_a_finished_run_prints_its_table_again(finished, monkeypatch, capsys):
    """A finished run neither loads the model nor writes a metric."""

    def refuse(*_, **__):
        raise AssertionError("a finished run has nothing to set_up")

    monkeypatch.setattr(start, "set_up", refuse)
    before = (finished.workdir / "metrics.jsonl").read_bytes()
    assert launch.main(arguments(finished.workdir)) == 0
    assert "nsr_prerl" in capsys.readouterr().out
    assert (finished.workdir / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize(("at", "step"), [("", 4), ("@2", 2)])
def test_init_from_carries_parameters_and_moments(tmp_path, finished, setup, monkeypatch, at, step):
    begun = []

    def train(run, state):
        begun.append(jax.device_get(state))
        raise Died

    monkeypatch.setattr(start, "train", train)
    config = dataclasses.replace(tiny_run.config(), seed=5)
    with pytest.raises(Died):
        run(config, tmp_path / "second", init_from=f"{finished.workdir}{at}", console=tiny_run.quiet())
    source, state = state_at(finished.workdir, setup, step), begun[0]
    toy.assert_same_bits((state.params, state.opt_state), (source.params, source.opt_state))
    assert (state.step, state.phase, state.phase_step) == (0, 0, 0)
    assert (state.rng == jax.random.PRNGKey(5)).all()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("@7", "there is no checkpoint of step 7 in"),
        ("@x", "there are no checkpoints in"),
        ("/none", "there are no checkpoints in"),
    ],
)
def test_init_from_what_is_not_there(tmp_path, finished, capsys, source, message):
    status = launch.main(arguments(tmp_path / "new", "--init-from", f"{finished.workdir}{source}"))
    error = capsys.readouterr().err
    assert status == 1
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "new" / "metrics.jsonl").exists()
