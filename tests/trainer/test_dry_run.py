"""The output of a dry run, which reads no weights."""

import io
import subprocess

import jax
import tiny_run
from rich.console import Console
from tiny_run import COMMAND

from prerl_jax import launch
from prerl_jax.config.io import render
from prerl_jax.runtime.mesh import make_mesh
from prerl_jax.trainer import meshes
from prerl_jax.trainer import setup as trainer_setup
from prerl_jax.trainer.dry_run import parameter_table


def dry_run(monkeypatch, capsys, tmp_path, *overrides):
    def refuse(*_, **__):
        raise AssertionError("a dry run reads no weights")

    monkeypatch.setattr(trainer_setup, "load_model", refuse)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(tmp_path)
    status = launch.main(["--config", COMMAND[-1], "--dry-run", *(["--set", *overrides] if overrides else [])])
    assert not list(tmp_path.iterdir())
    return status, capsys.readouterr()


def numbers(out, label):
    """The last cell of the table rows that begin with a label."""
    return [line.strip("│ ").split("│")[-1].strip() for line in out.splitlines() if line.strip("│ ").startswith(label)]


def test_config_phases_and_parameters(monkeypatch, capsys, tmp_path, setup):
    status, printed = dry_run(monkeypatch, capsys, tmp_path)
    assert status == 0
    assert render(tiny_run.config()) in printed.out
    total = sum(leaf.size for leaf in jax.tree.leaves(setup.model.abstract_params()))
    for text in (
        f"{total:,} parameters",
        "nsr_prerl",
        "1-2",
        "3-4",
        "PreTrainSpace",
        "layers.mlp.gate",
        "1 cpu devices",
        "attention    xla; on TPUs xla: head_dim is 16",
        "decoding     ",
        "python -m prerl_jax.plan --topology",
    ):
        assert text in printed.out


def test_a_phase_with_updates(monkeypatch, capsys, tmp_path):
    phase = ["phases.1.epochs=2", "phases.1.minibatches=4", "phases.1.reference=PhaseStart()"]
    status, printed = dry_run(monkeypatch, capsys, tmp_path, *phase, "phases.1.reward_shaping=KLPenalty(0.1)")
    assert status == 0
    assert "8 updates a step: 2 epochs of 4 minibatches" in printed.out


def test_a_narrow_terminal_keeps_the_parameters_names_whole(setup):
    console = Console(file=io.StringIO(), width=80)
    console.print(parameter_table(setup))
    assert "layers.attention.q_norm" in console.file.getvalue()
    assert max(map(len, console.file.getvalue().splitlines())) <= 80


def test_shards_of_eight_devices(monkeypatch, capsys, tmp_path, setup):
    monkeypatch.setattr(meshes, "make_mesh", lambda spec, devices=None: make_mesh(spec, jax.devices()))
    status, printed = dry_run(monkeypatch, capsys, tmp_path, "mesh.tensor=2")
    assert status == 0
    assert "data 1 x fsdp 4 x tensor 2 (8 cpu devices)" in printed.out
    layers, width, hidden = setup.model.abstract_params()["layers"]["mlp"]["gate"].shape
    assert numbers(printed.out, "layers.mlp.gate") == [str((layers, width // 4, hidden // 2))]


def test_a_slice_that_is_not_here(tmp_path):
    """It is described on imagined devices, which fill an axis of -1; none of them is waited for."""
    mesh = ["mesh.data=4", "mesh.tensor=2", "sampling.prompts_per_step=16", "alignment.every=0"]
    command = [*COMMAND, "--dry-run", "--devices", "32", "--set", *mesh]
    environment = tiny_run.environment(JAX_NUM_PROCESSES="4", JAX_COORDINATOR_ADDRESS="127.0.0.1:1", JAX_PROCESS_ID="0")
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "data 4 x fsdp 4 x tensor 2 (32 cpu devices)" in done.stdout
    assert not list(tmp_path.iterdir())


def test_devices_come_too_late_or_without_a_dry_run(capsys):
    assert launch.main(["--config", COMMAND[-1], "--dry-run", "--devices", "7"]) == 1
    assert "7 devices cannot be imagined: this program has used its 8" in capsys.readouterr().err
    assert launch.main(["--config", COMMAND[-1], "--dry-run", "--devices", "0"]) == 1
    assert "--devices 0: there must be at least 1" in capsys.readouterr().err
    assert launch.main(["--config", COMMAND[-1], "--devices", "8"]) == 1
    assert "--devices is for --dry-run" in capsys.readouterr().err


def test_what_a_run_would_refuse(monkeypatch, capsys, tmp_path):
    status, printed = dry_run(monkeypatch, capsys, tmp_path, "data.max_prompt_tokens=2")
    assert status == 1
    assert printed.err.startswith("error: all 64 prompts are longer")
