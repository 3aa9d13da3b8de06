"""The command line in two processes with a device each: one writes, the numbers are a single process's, it resumes."""

import socket

import numpy as np
import pytest
import tiny_run
from processes import finish
from tiny_run import COMMAND, lines

CLOSE = """reward accuracy length kept_fraction trained_fraction truncated tokens grad_norm loss entropy logprob
sampler_logprob"""

UPDATES = ["epochs=2", "minibatches=2", "reward_shaping=KLPenalty(0.5)", "reference=PhaseStart()"]
"""Of the second phase: what takes rows from one process to the other, and a checkpoint that both read again."""


def run_both(workdir, *more):
    """Both processes to their end: their (stdout, stderr)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environments = [
        tiny_run.environment(
            XLA_FLAGS="--xla_force_host_platform_device_count=1 --xla_backend_optimization_level=0",
            JAX_CPU_COLLECTIVES_IMPLEMENTATION="gloo",
            JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES="2",
            JAX_PROCESS_ID=str(index),
        )
        for index in range(2)
    ]
    command = [*COMMAND, "--workdir", str(workdir), *more]
    return finish([(command, environment) for environment in environments], timeout=600)


@pytest.mark.slow
def test_two_processes_run_and_resume(tmp_path, finished):
    """Three steps with a slot for every other row, then, under a longer schedule and with one for each, the fourth."""
    updates = [f"phases.1.{field}" for field in UPDATES]
    (first, _), (second, _) = run_both(tmp_path, "--set", "phases.1.steps=1", "sampling.engine.slots=8", *updates)
    assert "nsr_prerl" in first
    assert "step" not in second  # but for what gloo says of itself
    records = lines(tmp_path)
    assert [(record["step"], record["phase"]) for record in records] == [
        (0, "base"), (1, "nsr_prerl"), (2, "nsr_prerl"), (3, "rl")
    ]  # fmt: skip
    alone = lines(finished.workdir)
    for name in (name for name in alone[0] if name.startswith("eval/")):
        assert records[0][name] == alone[0][name], name
    for name in (*(f"train/{name}" for name in CLOSE.split()), "alignment/objective", "alignment/norm_post"):
        np.testing.assert_allclose(records[1][name], alone[1][name], rtol=1e-4, atol=1e-6, err_msg=name)
    (first, _), (second, _) = run_both(tmp_path, "--allow-config-change", "--set", *updates)
    assert "resumed from the checkpoint at step 3" in first
    assert "step" not in second  # but for what gloo says of itself
    resumed = lines(tmp_path)
    assert resumed[:4] == records
    assert [record["step"] for record in resumed] == [0, 1, 2, 3, 4]
    assert resumed[4]["phase"] == "rl"
    assert all(abs(record["train/ratio"] - 1) > 1e-6 and record["train/reference_kl"] > 0 for record in resumed[3:])
    assert (tmp_path / "curves.png").exists()
