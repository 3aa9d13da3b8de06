"""Two processes of four devices each on one machine: rows, agreement, checkpoints saved and read together."""

import os
import socket
import sys
from pathlib import Path

import pytest
from processes import finish

FOLDER = Path(__file__).parent

PROGRAM = """
import sys
from pathlib import Path

import jax
import numpy as np

from prerl_jax.runtime.distributed import (
    OtherProcessError, from_process, gather_text, initialize, require_same, require_shared, share_errors
)

initialize(timeout=60)

from jax.sharding import NamedSharding, PartitionSpec

from prerl_jax.runtime.checkpoints import Checkpoints, restore_params
from prerl_jax.runtime.gather import gather_processes, gather_rows, max_over_processes, start_gather
from prerl_jax.runtime.mesh import MeshSpec, batch_sharding, global_rows, local_rows, make_mesh
from prerl_jax.runtime.row_share import row_share
from states import abstract, make_state

me, folder = jax.process_index(), Path(sys.argv[1])
assert (jax.process_count(), jax.device_count(), jax.local_device_count()) == (2, 8, 4)
mesh = make_mesh(MeshSpec(data=2, fsdp=2, tensor=2))

rows = np.arange(12, dtype=np.int32).reshape(4, 3) + 100 * me
placed = global_rows(mesh, {"rows": rows})["rows"]
assert placed.shape == (8, 3)
assert int(jax.jit(lambda x: x.sum())(placed)) == 2 * 66 + 1200
doubled = jax.jit(lambda x: 2 * x, out_shardings=batch_sharding(mesh))(placed)
assert (local_rows({"rows": doubled})["rows"] == 2 * rows).all()
try:
    local_rows(jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, PartitionSpec()))(placed))
except ValueError as error:
    assert "not sharded over its rows" in str(error)
else:
    raise AssertionError("replicated rows were taken")
gathered = start_gather(np.array([1e-300 + me, 2.0**60 + me]))()
assert gathered.tolist() == [[1e-300, 2.0**60], [1 + 1e-300, 2.0**60 + 1]] and gathered.dtype == np.float64
assert gather_processes(np.int32(me)).tolist() == [0, 1]
assert gather_rows(rows, row_share(mesh)).tolist() == [*(rows - 100 * me).tolist(), *(rows - 100 * me + 100).tolist()]
assert from_process({"process": me}, 1 - me) == {"process": 1 - me}
assert from_process(None if me else (1, "é"), 0) == (1, "é")
assert max_over_processes(7 - me) == 7
assert max_over_processes(me) == 1

assert gather_text("a" * me) == ["", "a"]
require_same("a", "b", "")
require_shared(folder.parent)
assert not list(folder.parent.glob(".shared*"))
try:
    with share_errors("counting"):
        assert me == 0, "one too many"
except OtherProcessError as error:
    assert me == 0 and str(error) == "counting failed on process 1: AssertionError: one too many", error
except AssertionError as error:
    assert me == 1 and str(error) == "one too many"
else:
    raise AssertionError("one process alone")
for refuse in (lambda: require_same("names", str(me), ""), lambda: require_shared(folder.parent / str(me))):
    try:
        refuse()
    except ValueError as error:
        assert "0 on process 0, 1 on 1" in str(error) or f"process 1 ({folder.parent / '1'} on" in str(error), error
    else:
        raise AssertionError("not refused")

# Both processes have all rows where the tensor axis spans them, and on other meshes if one mesh of the run is such.
for spanning in (make_mesh(MeshSpec(tensor=8)), make_mesh(MeshSpec(data=2, fsdp=1, tensor=4))):
    share, rows = row_share(mesh, make_mesh(MeshSpec(tensor=8))), np.arange(16, dtype=np.int32).reshape(8, 2)
    assert share.groups == ((0, 1),) and share.leads == (me == 0)
    assert gather_rows(rows, share) is rows
    placed = global_rows(spanning, rows, share)
    assert placed.shape == (8, 2) and int(jax.jit(lambda x: x.sum())(placed)) == 120
    assert (local_rows(placed, share) == rows).all()
    own = rows if spanning.shape["tensor"] == 8 else rows[4 * me : 4 * me + 4]
    assert (local_rows(placed) == own).all()


def same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        for s, t in zip(x.addressable_shards, y.addressable_shards, strict=True):
            assert np.asarray(s.data).tobytes() == np.asarray(t.data).tobytes()


mesh = make_mesh(MeshSpec(fsdp=4, tensor=2))  # each process holds its own half of a parameter
checkpoints = Checkpoints(folder, keep_last=2, best="a")
for step in (1, 2):
    checkpoints.save(step, make_state(step, mesh=mesh), {"step": step}, {"a": -step}, False)
assert checkpoints.steps() == [1, 2]
restored = checkpoints.restore(abstract(make_state(0, mesh=mesh)))
assert (restored.step, restored.extra) == (2, {"step": 2})
same(restored.state, make_state(2, mesh=mesh))
if me == 0:  # what the other process wrote, which only that one reads
    for path in (folder / "2" / "params" / "ocdbt.process_1" / "d").iterdir():
        path.write_bytes(path.read_bytes()[:10])
max_over_processes(0)
restored = checkpoints.restore(abstract(make_state(0, mesh=mesh)))
assert restored.step == 1 and checkpoints.skipped[0].startswith("step 2: "), checkpoints.skipped
checkpoints.save(2, make_state(5, mesh=mesh), {}, {}, False)
same(checkpoints.restore(abstract(make_state(0, mesh=mesh))).state, make_state(5, mesh=mesh))
checkpoints.close()
same(restore_params(folder, abstract(make_state(0, mesh=mesh).params)).state, make_state(5, mesh=mesh).params)
print("GOOD", me)
"""


@pytest.mark.slow
def test_two_processes(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(FOLDER), str(FOLDER.parents[1])]),
        "JAX_PLATFORMS": "cpu",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": "2",
    }
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "checkpoints")]
    outputs = finish([(command, {**environment, "JAX_PROCESS_ID": str(i)}) for i in range(2)], timeout=240)
    for i, (out, err) in enumerate(outputs):
        assert f"GOOD {i}" in out
        assert f"this is process {i} of 2, with 4 of 8 devices" in err
