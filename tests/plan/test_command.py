"""The command: its files, its errors, and a real plan of the tiny run for a slice of TPUs."""

import json
import subprocess
import sys

import pytest
import tiny_run

from prerl_jax.plan.__main__ import main
from prerl_jax.plan.command import Asked
from prerl_jax.plan.program import Lengths

COMMAND = [sys.executable, "-m", "prerl_jax.plan"]


def test_the_assumed_lengths():
    config = tiny_run.config()
    assert Asked().lengths(config) == Lengths(prompt=8, response=11), "a third of 32"
    assert Asked(mean_prompt=3, mean_response=20).lengths(config) == Lengths(3, 20)
    with pytest.raises(ValueError, match=r"at most .*sampling.max_new_tokens=32"):
        Asked(mean_response=33).lengths(config)
    with pytest.raises(ValueError, match="--mean-response 0: it must be at least 1"):
        Asked(mean_response=0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--topology", "v5e:3x3"], "The nearest is v5e:2x4"),
        (["--topology", "v5x:2x2"], "there is no TPU chip"),
        (["--mean-response", "100000"], "sampling.max_new_tokens=64"),
        (["--set", "model.path=/nowhere"], "There is no model at '/nowhere'"),
        (["--set", "mesh.fsdp=3"], "The nearest that fits 8 devices: --set mesh.data=1 mesh.fsdp=4 mesh.tensor=2"),
        (["--set", "nothing=1"], "has no field 'nothing'"),
    ],
)
def test_bad_input_is_one_line(capsys, arguments, words):
    assert main(["--config", "lab", *arguments]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert words in line


def run(*arguments):
    environment = {key: value for key, value in tiny_run.environment().items() if key != "XLA_FLAGS"}
    command = [*COMMAND, "--config", str(tiny_run.FOLDER / "tiny_run.py"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)


@pytest.mark.slow
def test_a_plan_for_a_slice(tmp_path):
    """About two minutes: all programs of the tiny run but alignment, by the TPU's compiler."""
    pytest.importorskip("libtpu")
    files = ["--json", str(tmp_path / "plan.json"), "--dump", str(tmp_path / "dump")]
    done = run(*files, "--topology", "v5e:2x2", "--set", "mesh.fsdp=4", "alignment.every=0")
    assert done.returncode == 0, done.stderr
    assert "v5e:2x2: 4 v5e chips, one device each" in done.stdout
    assert "verdict: it fits." in done.stdout
    assert "chip hours" in done.stdout
    found = json.loads((tmp_path / "plan.json").read_text())
    names = [program["name"] for program in found["programs"]]
    assert names[:3] == ["decode_weights training", "prefill training", "decode_chunk/32 training"]
    assert names[-2:] == ["prepare", "train"]
    train = found["programs"][-1]
    assert train["work"]["flops"] > 0 < train["work"]["hbm"]
    assert train["seconds"]["memory"] == pytest.approx(train["work"]["hbm"] / 819e9)
    assert len(list((tmp_path / "dump").iterdir())) == len(names)
    assert "ENTRY" in (tmp_path / "dump" / "train.hlo").read_text()


@pytest.mark.slow
def test_a_plan_for_this_machine():
    """About a minute: on CPUs there is memory and work, and no time."""
    done = run("--set", "alignment.every=0")
    assert done.returncode == 0, done.stderr
    assert "their peaks are not known, so there are no times" in done.stdout
    assert "train" in done.stdout
