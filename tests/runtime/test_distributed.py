"""Start-up from the environment: what is recognised, and what is refused."""

import jax
import pytest

from prerl_jax.runtime import distributed
from prerl_jax.runtime.distributed import (
    OtherProcessError,
    gather_text,
    initialize,
    plan,
    require_same,
    require_shared,
    share_errors,
)

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
    monkeypatch.setattr(distributed, "on_cloud_tpu", lambda: False)
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
    jax.devices()
    with pytest.raises(RuntimeError, match=r"start-up failed \(process 1 of 2, coordinator 10\.0\.0\.1:1234\)"):
        initialize(timeout=7, say=said.append)  # devices are in use already
    assert said == [
        "distributed start-up: process 1 of 2, coordinator 10.0.0.1:1234; waiting up to 7 s for all processes"
    ]


def test_a_single_process_agrees_with_itself(tmp_path):
    assert gather_text("é\n") == ["é\n"]
    assert gather_text("") == [""]
    require_same("x", "a", "")
    require_shared(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(KeyError, match="own"), share_errors("work"):
        raise KeyError("own")


@pytest.fixture
def second_of_three(monkeypatch):
    """What this process, the second of three, hears from the other two: a list of (first, third) to be filled."""
    heard = []

    def gather(text):
        first, third = heard.pop(0)
        return [text if first is None else first, text, text if third is None else third]

    monkeypatch.setattr(distributed, "gather_text", gather)
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    return heard


def test_an_error_of_one_process_is_everybodys(second_of_three):
    second_of_three += [("", ""), ("", "OSError: no space"), ("", "OSError: no space")]
    with share_errors("flushing"):
        pass
    with (
        pytest.raises(OtherProcessError, match=r"^flushing failed on process 2: OSError: no space$"),
        share_errors("flushing"),
    ):
        pass
    with pytest.raises(ValueError, match="mine"), share_errors("flushing"):
        raise ValueError("mine")
    assert second_of_three == []  # the one that fails tells the others, too


def test_what_must_not_differ(second_of_three):
    second_of_three += [(None, None), (None, "a\n  c\n"), ("a", None)]
    require_same("their configs", "a\n  b\n", "Mend it.")
    with pytest.raises(ValueError, match=r"configs: b on process 0, c on 2\. Mend it\.$"):
        require_same("their configs", "a\n  b\n", "Mend it.")
    with pytest.raises(ValueError, match="nothing on process 0, b on 1"):
        require_same("their configs", "a\nb\n", "Mend it.")


def test_a_folder_that_is_not_shared(second_of_three, tmp_path):
    """This process looks for the file that process 0 says it has written."""
    (tmp_path / ".shared-0").touch()
    second_of_three += [(".shared-0", None), ("", ""), ("", ""), ("", "")]
    require_shared(tmp_path)
    second_of_three += [(".shared-1", None), ("", ""), ("", None), ("", "")]
    with pytest.raises(ValueError, match=rf"process 1 \({tmp_path} on .*\), process 2 .* must be one shared folder"):
        require_shared(tmp_path)
