"""A tensor axis over several processes: they share rows, verify them once, and give what one process gives."""

import json
import socket
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import shared_rows
import tiny_run
from processes import finish

from prerl_jax.runtime.mesh import MeshSpec


@pytest.fixture(scope="module")
def alone():
    """What one device says: (metrics, rows)."""
    return shared_rows.said(MeshSpec(1, 1, 1), jax.devices()[:1])


def of_all(mesh, processes, devices):
    """What each of several processes says, each with so many devices."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environments = [
        tiny_run.environment(
            XLA_FLAGS=f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0",
            JAX_CPU_COLLECTIVES_IMPLEMENTATION="gloo",
            JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES=str(processes),
            JAX_PROCESS_ID=str(index),
        )
        for index in range(processes)
    ]
    command = [sys.executable, str(Path(shared_rows.__file__)), *map(str, (mesh.data, mesh.fsdp, mesh.tensor))]
    outputs = finish([(command, environment) for environment in environments], timeout=300)
    return [json.loads(out.split("SAID ")[1].splitlines()[0]) for out, _ in outputs]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mesh", "processes", "devices"),
    [(MeshSpec(1, 1, 2), 2, 1), (MeshSpec(1, 2, 2), 4, 1), (MeshSpec(1, 1, 4), 2, 2)],
    ids=["2 processes", "2 pairs of processes", "2 processes of 2 devices"],
)
def test_processes_that_share_rows_are_as_one(alone, mesh, processes, devices):
    expected, rows = alone
    found = of_all(mesh, processes, devices)
    of_first = [row for row in rows if row in found[0][1]]
    assert found[0][1] == of_first
    for metrics, _ in found:
        assert [list(of_step) for of_step in metrics] == [list(of_step) for of_step in expected]
        for mine, theirs in zip(metrics, expected, strict=True):
            for name, value in theirs.items():
                np.testing.assert_allclose(mine[name], value, rtol=2e-4, atol=2e-6, err_msg=name)
