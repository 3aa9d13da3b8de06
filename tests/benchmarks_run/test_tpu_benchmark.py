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


def test_quick():
    command = [sys.executable, str(SCRIPT), "--quick", "--only", "score"]
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "attention splash" in done.stdout
    ratios = json.loads(done.stdout.splitlines()[-1])
    assert 0.9 < ratios["tpu_compile/score/flops"] < 1.15
    assert ratios["tpu_compile/score/free"] > 0.99
    assert ratios["tpu_compile/score/warnings"] == ratios["tpu_compile/score/float32"] == 0
