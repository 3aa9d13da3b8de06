"""The command: its files, its errors, and a real plan of the tiny run for a slice of TPUs."""

import dataclasses
import json
import subprocess
import sys

import jax
import pytest
import tiny_run
from hand_made import RATES, row

from prerl_jax.plan.__main__ import main
from prerl_jax.plan.command import Asked, Plan, plan
from prerl_jax.plan.program import Lengths
from prerl_jax.plan.search import Candidate
from prerl_jax.plan.steps import Run, Step
from prerl_jax.plan.topology import Slice
from prerl_jax.runtime.chips import GIB, chip_named

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
        (["--set", "mesh.fsdp=3"], "8 devices: --set mesh.data=1 mesh.fsdp=4 mesh.tensor=2 mesh.replica=1"),
        (["--set", "nothing=1"], "has no field 'nothing'"),
    ],
)
def test_bad_input_is_one_line(capsys, arguments, words):
    assert main(["--config", "lab", *arguments]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert words in line


def test_a_search_without_the_compiler_says_how_to_get_it(capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["--config", "lab", "--topology", "v5e:2x4", "--search"]) == 1
    assert "libtpu, the TPU's compiler, is not installed: pip install" in capsys.readouterr().err


@pytest.mark.parametrize(("fits", "status"), [(True, 0), (False, 2), (None, 3)])
def test_the_exit_status(monkeypatch, fits, status):
    monkeypatch.setattr("prerl_jax.plan.command.plan", lambda config, asked: fits)
    assert main(["--config", "lab"]) == status


CHIP = dataclasses.replace(chip_named("v5e"), usable=16 * GIB)
PLACE = Slice("v5e:2x4", tuple(jax.devices()), CHIP)


@pytest.fixture
def searched(monkeypatch, tiny):
    """A function: the peaks in GiB of six candidates when compiled -> (what is said, the texts)."""

    def search(*peaks):
        config, said, compiled = tiny_run.config(), [], iter(peaks)
        candidates = [Candidate(config, (f"seed={n}",), GIB, float(n)) for n in range(6)]

        def planned(config, place, asked, say):
            rows = (row("train", peak=next(compiled)),)
            run = Run((Step("rl", 1, {"train": 1.0}, 1),), (0, 0.0), (0, 0.0), 8)
            return Plan(tiny(), place, RATES, rows, run)

        monkeypatch.setattr("prerl_jax.plan.command._planned", planned)
        monkeypatch.setattr("prerl_jax.plan.command.slice_named", lambda name: PLACE)
        monkeypatch.setattr("prerl_jax.plan.command.ranked", lambda *_: candidates)
        monkeypatch.setattr("prerl_jax.plan.command.distinct", lambda found, most: found[:most])
        fits = plan(config, Asked(topology="v5e:2x4", search=True), said.append)
        return fits, "\n".join(said), list(compiled)

    return search


def test_a_search_goes_on_with_three_more_once(searched):
    fits, said, left = searched(20, 20, 20, 20, 8, 8)
    assert fits
    assert not left
    assert "none of the best 3 of 6 layouts fits" in said
    assert "proposal: number 5, the fastest that fits: --set seed=4" in said


def test_a_search_stops_where_one_of_three_fits(searched):
    fits, said, left = searched(20, 8, 20, 8, 8, 8)
    assert fits
    assert len(left) == 3
    assert "proposal: number 2" in said


def test_a_search_that_finds_nothing_does_not_sell_a_slice(searched):
    fits, said, _ = searched(*[20] * 6)
    assert not fits
    assert "none of the best 6 of 6 layouts fits" in said
    assert "proposal: none. Choose a layout" in said


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
    assert done.returncode == 3, done.stderr
    assert "Its peaks are not known, so there are no times" in done.stdout
    assert "verdict: not known, because the memory of cpu devices is not" in done.stdout
    assert "train" in done.stdout
