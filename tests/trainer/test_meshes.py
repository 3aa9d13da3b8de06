"""The mesh that is proposed where that of a config does not fit, on one slice and on two."""

import dataclasses

import jax
import pytest
import tiny_run

from prerl_jax.config.overrides import apply_overrides
from prerl_jax.models.hf import read_config
from prerl_jax.trainer.meshes import mesh_and_model, slice_count


@dataclasses.dataclass(frozen=True)
class DeviceOfSlice:
    id: int
    process_index: int
    slice_index: int
    platform: str = "cpu"
    device_kind: str = "cpu"


def refused(devices, *overrides):
    """What is said of a mesh that does not fit; nothing is refused before the devices are known."""
    config = apply_overrides(tiny_run.config(), overrides)
    architecture = read_config(config.model.path)
    with pytest.raises(ValueError, match="The nearest that fits") as raised:
        mesh_and_model(config, architecture, architecture.vocab_size, devices)
    return str(raised.value)


def test_a_mesh_of_more_shards_than_groups():
    said = refused(jax.devices(), "mesh.data=2", "mesh.fsdp=4")
    assert "4 groups do not divide over the 8 shards" in said
    assert said.endswith("--set mesh.data=1 mesh.fsdp=4 mesh.tensor=2 mesh.replica=1")


def test_several_slices_have_a_replica_each():
    devices = [DeviceOfSlice(n, n // 4, n // 4) for n in range(8)]
    assert (slice_count(devices), slice_count(jax.devices())) == (2, 1)
    said = refused(devices, "mesh.replica=2", "mesh.fsdp=4")
    assert said.endswith("--set mesh.data=1 mesh.fsdp=2 mesh.tensor=2 mesh.replica=2")
    assert "replica=1. Set replica to 2" in refused(devices, "mesh.fsdp=8")
