"""The benchmark that compiles for TPUs, on a small model and one of its programs."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

pytest.importorskip("libtpu")
pytestmark = pytest.mark.slow
SCRIPT = pathlib.Path(__file__).parents[2] / "benchmarks" / "tpu_compile.py"


def run(*only):
    command = [sys.executable, str(SCRIPT), "--quick", "--only", *only]
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_a_program_that_is_not_there():
    done = run("score", "decode_chunk/1")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("--only: there is no program decode_chunk/1.")
    assert "prefill decode_chunk/384 score" in last


def test_quick():
    done = run("score")
    assert done.returncode == 0, done.stderr
    assert "attention splash" in done.stdout
    ratios = json.loads(done.stdout.splitlines()[-1])
    assert 0.9 < ratios["tpu_compile/score/flops"] < 1.15
    assert ratios["tpu_compile/score/free"] > 0.99
    assert ratios["tpu_compile/score/warnings"] == ratios["tpu_compile/score/float32"] == 0
