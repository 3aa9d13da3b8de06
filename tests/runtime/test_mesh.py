"""Meshes: sizes by hand, errors with their numbers, and rows that go onto a mesh and come back."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from prerl_jax.runtime.gather import gather_rows, max_over_processes
from prerl_jax.runtime.mesh import (
    MeshSpec,
    batch_sharding,
    batch_shards,
    global_rows,
    local_rows,
    make_mesh,
    replicated,
)
from prerl_jax.runtime.row_share import ALONE, RowShare, row_share


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


@dataclasses.dataclass(frozen=True)
class Device:
    """A device of a process, as far as meshes know it."""

    id: int
    process_index: int
    platform: str = "cpu"
    device_kind: str = "cpu"


@dataclasses.dataclass(frozen=True)
class DeviceOfSlice(Device):
    slice_index: int = 0


def of_processes(*devices):
    """So many devices of each process."""
    owners = [process for process, count in enumerate(devices) for _ in range(count)]
    return [Device(number, process) for number, process in enumerate(owners)]


@pytest.mark.parametrize(
    ("devices", "spec", "groups"),
    [
        ((2, 2), MeshSpec(), ((0,), (1,))),
        ((2, 2), MeshSpec(tensor=2), ((0,), (1,))),
        ((2, 2), MeshSpec(tensor=4), ((0, 1),)),
        ((1, 1, 1, 1), MeshSpec(data=2, fsdp=1, tensor=2), ((0, 1), (2, 3))),
        ((2, 2, 2, 2), MeshSpec(fsdp=2, tensor=4), ((0, 1), (2, 3))),
    ],
)
def test_processes_that_hold_the_same_shards_have_the_same_rows(devices, spec, groups):
    assert row_share(make_mesh(spec, of_processes(*devices))).groups == groups


def test_the_share_of_a_process():
    shares = [RowShare(process, ((0, 2), (1, 3))) for process in range(4)]
    assert [share.index for share in shares] == [0, 1, 0, 1]
    assert [share.leads for share in shares] == [True, True, False, False]
    assert shares[3].part(6) == slice(3, 6)
    assert shares[3].once("abcd") == ["a", "b"]
    assert shares[0].shared
    assert not ALONE.shared
    with pytest.raises(ValueError, match="7 prompts does not divide evenly over 2 row groups of processes; choose a m"):
        shares[0].part(7)


def test_the_row_groups_of_several_meshes():
    """Decoding over two processes each, trained with the rows of every process apart: both sample the same rows."""
    devices = of_processes(2, 2, 2, 2)
    training = make_mesh(MeshSpec(fsdp=8), devices)
    decoding = make_mesh(MeshSpec(data=2, fsdp=1, tensor=4), devices)
    assert row_share(training).groups == ((0,), (1,), (2,), (3,))
    assert row_share(training, decoding).groups == row_share(decoding).groups == ((0, 1), (2, 3))
    assert row_share(None) == ALONE


@pytest.mark.parametrize(
    ("devices", "spec", "message"),
    [
        ((3, 3), MeshSpec(tensor=2), r"process 0 holds the batch shards \[0, 1\] and process 1 \[1, 2\], so .*"
         r"MeshSpec\(data=1, fsdp=6, tensor=1, replica=1\) works"),
        ((4, 4, 4), MeshSpec(data=2, fsdp=1, tensor=6), r"MeshSpec\(data=1, fsdp=3, tensor=4, replica=1\) works"),
    ],
)  # fmt: skip
def test_tensor_groups_that_cut_processes(devices, spec, message):
    with pytest.raises(ValueError, match=message):
        make_mesh(spec, of_processes(*devices))


def test_slices_are_outermost():
    devices = [DeviceOfSlice(number, number // 2, slice_index=number // 2 % 2) for number in range(8)]
    mesh = make_mesh(MeshSpec(data=2, fsdp=1, tensor=2, replica=2), devices)
    assert dict(mesh.shape) == {"data": 4, "fsdp": 1, "tensor": 2}
    assert [device.slice_index for device in mesh.devices.flat] == [0] * 4 + [1] * 4
    with pytest.raises(ValueError, match=r"form 2 slices, and replica=1\. Set replica to 2, and the other axes to"):
        make_mesh(MeshSpec(), devices)
    assert make_mesh(MeshSpec(data=2, replica=2)).shape["data"] == 4  # devices of one slice


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
    np.testing.assert_array_equal(gather_rows(batch["a"], row_share(mesh)), batch["a"])
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
