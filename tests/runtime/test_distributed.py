"""Start-up from the environment: what is recognised, and what is refused."""

import jax
import pytest

from prerl_jax.runtime import distributed
from prerl_jax.runtime.distributed import initialize, plan

EXPLICIT = {"JAX_COORDINATOR_ADDRESS": "10.0.0.1:1234", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
SLURM = {
    "SLURM_JOB_ID": "77",
    "SLURM_STEP_NODELIST": "node[001-002]",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}
BATCH = {name: SLURM[name] for name in ("SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")}
ARGUMENTS = {"coordinator_address": "10.0.0.1:1234", "num_processes": 2, "process_id": 1}


@pytest.mark.parametrize(
    ("environment", "tpu", "expected"),
    [
        ({}, False, None),
        (EXPLICIT, False, ("process 1 of 2, coordinator 10.0.0.1:1234", ARGUMENTS)),
        (SLURM | EXPLICIT, True, ("process 1 of 2, coordinator 10.0.0.1:1234", ARGUMENTS)),
        (EXPLICIT | {"JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}, True, None),
        (SLURM, False, ("Slurm task 0 of 2 on node[001-002]", {"cluster_detection_method": "slurm"})),
        (SLURM | {"SLURM_NTASKS": "1"}, False, None),
        (BATCH | {"SLURM_NTASKS": "1"}, False, None),
        ({"SLURM_JOB_ID": "77"}, False, None),
        ({}, True, ("the workers of this TPU slice", {})),
    ],
)
def test_what_the_environment_asks_for(environment, tpu, expected):
    assert plan(environment, tpu) == expected


@pytest.mark.parametrize("missing", EXPLICIT)
def test_half_set_variables_are_refused(missing):
    with pytest.raises(ValueError, match=f"without {missing}: set all of"):
        plan({name: value for name, value in EXPLICIT.items() if name != missing}, False)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"JAX_PROCESS_ID": "2"}, r"JAX_PROCESS_ID=2 is not in \[0, JAX_NUM_PROCESSES=2\)"),
        ({"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES='two' is not an integer"),
        ({"JAX_COORDINATOR_ADDRESS": "10.0.0.1"}, "not host:port"),
    ],
)
def test_variables_that_make_no_sense(changed, message):
    with pytest.raises(ValueError, match=message):
        plan(EXPLICIT | changed, False)


def test_a_slurm_job_without_srun_is_refused():
    with pytest.raises(ValueError, match=r"job 77 has 2 tasks, but SLURM_STEP_NODELIST is not set: start .* srun"):
        plan(BATCH, False)


@pytest.fixture
def environment(monkeypatch):
    for name in (*distributed.EXPLICIT, *distributed.SLURM):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(distributed, "_on_cloud_tpu", lambda: False)
    return monkeypatch


def test_a_single_process_does_nothing(environment):
    environment.setattr(jax.distributed, "initialize", lambda **_: pytest.fail("called"))
    said = []
    initialize(say=said.append)
    assert said == []


def test_it_says_what_it_waits_for_and_what_went_wrong(environment):
    for name, value in EXPLICIT.items():
        environment.setenv(name, value)
    said = []
    with pytest.raises(RuntimeError, match=r"start-up failed \(process 1 of 2, coordinator 10\.0\.0\.1:1234\)"):
        initialize(timeout=7, say=said.append)  # devices are in use already
    assert said == [
        "distributed start-up: process 1 of 2, coordinator 10.0.0.1:1234; waiting up to 7 s for all processes"
    ]
