"""Meshes: sizes by hand, errors with their numbers, and rows that go onto a mesh and come back."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from prerl_jax.runtime.mesh import (
    MeshSpec,
    batch_sharding,
    batch_shards,
    gather_rows,
    global_rows,
    local_rows,
    make_mesh,
    max_over_processes,
    replicated,
)


@pytest.mark.parametrize(
    ("spec", "devices", "sizes"),
    [
        (MeshSpec(), 8, (1, 8, 1)),
        (MeshSpec(data=2), 8, (2, 4, 1)),
        (MeshSpec(data=-1, fsdp=2, tensor=2), 8, (2, 2, 2)),
        (MeshSpec(data=1, fsdp=1, tensor=-1), 4, (1, 1, 4)),
        (MeshSpec(data=2, fsdp=2, tensor=1), 4, (2, 2, 1)),
        (MeshSpec(), 1, (1, 1, 1)),
    ],
)
def test_sizes(spec, devices, sizes):
    mesh = make_mesh(spec, jax.devices()[:devices])
    assert dict(mesh.shape) == dict(zip(("data", "fsdp", "tensor"), sizes, strict=True))
    assert mesh.axis_types == (AxisType.Auto,) * 3
    assert batch_shards(mesh) == sizes[0] * sizes[1]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (MeshSpec(fsdp=16), "needs 16 devices, there are 8"),
        (MeshSpec(tensor=3), "3 does not divide the 8 devices"),
        (MeshSpec(fsdp=4), "uses 4 of 8 devices"),
    ],
)
def test_a_mesh_that_does_not_fit_the_devices(spec, message):
    with pytest.raises(ValueError, match=message):
        make_mesh(spec)


@pytest.mark.parametrize("sizes", [(-1, -1, 1), (0, -1, 1), (1, -2, 1), (1.0, 2, 1), (True, 2, 1)])
def test_sizes_that_make_no_sense(sizes):
    with pytest.raises(ValueError, match="axis"):
        MeshSpec(*sizes)


def test_the_tensor_axis_stays_within_a_process():
    @dataclasses.dataclass(frozen=True)
    class Device:
        id: int
        process_index: int
        platform: str = "cpu"
        device_kind: str = "cpu"

    two_by_two = [Device(i, i // 2) for i in range(4)]
    assert make_mesh(MeshSpec(tensor=2), two_by_two).shape["fsdp"] == 2
    with pytest.raises(ValueError, match=r"tensor=4 spans the processes \[0, 1\]"):
        make_mesh(MeshSpec(tensor=4), two_by_two)


@pytest.mark.parametrize("spec", [MeshSpec(), MeshSpec(2, 2, 2), MeshSpec(1, 1, 8)])
def test_rows_go_onto_the_mesh_and_come_back(spec):
    mesh = make_mesh(spec)
    batch = {"a": np.arange(48, dtype=np.int32).reshape(16, 3), "b": np.arange(16) % 3 == 0}
    rows = global_rows(mesh, batch)
    assert rows["a"].sharding == batch_sharding(mesh)
    for name, value in batch.items():
        assert rows[name].dtype == value.dtype
        np.testing.assert_array_equal(np.asarray(rows[name]), value)
        np.testing.assert_array_equal(local_rows(rows)[name], value)
    np.testing.assert_array_equal(gather_rows(batch["a"]), batch["a"])
    elsewhere = jax.device_put(batch["a"], NamedSharding(mesh, PartitionSpec()))
    np.testing.assert_array_equal(local_rows(elsewhere), batch["a"])


def test_rows_that_do_not_divide():
    mesh = make_mesh(MeshSpec(data=2, fsdp=2, tensor=2))
    with pytest.raises(ValueError, match=r"6 rows do not divide evenly over the 4 batch shards .*data=2 x fsdp=2 = 4"):
        global_rows(mesh, np.zeros((6, 2)))
    with pytest.raises(ValueError, match="0 rows"):
        global_rows(mesh, np.zeros((0, 2)))
    with pytest.raises(ValueError, match=r"different numbers of rows: \[4, 8\]"):
        global_rows(mesh, (np.zeros(4), np.zeros(8)))


def test_a_sharded_embedding_can_be_gathered():
    mesh = make_mesh(MeshSpec(tensor=2))
    table = jax.device_put(jnp.eye(8), NamedSharding(mesh, PartitionSpec("tensor", "fsdp")))
    tokens = global_rows(mesh, np.arange(8, dtype=np.int32))
    np.testing.assert_array_equal(jax.jit(lambda t, i: t[i])(table, tokens), np.eye(8))
    assert jax.device_put(1.0, replicated(mesh)).is_fully_replicated


def test_the_maximum_of_one_process():
    assert max_over_processes(-3) == -3
    with pytest.raises(ValueError, match="4294967296"):
        max_over_processes(2**32)
