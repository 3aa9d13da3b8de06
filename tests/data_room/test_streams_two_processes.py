"""Two processes take the same batches of a stream that only process 0 reads, and both end with it."""

import os
import socket
import sys
from pathlib import Path

import pytest
from processes import finish

PROGRAM = """
import sys
import jax
from prerl_jax.runtime.distributed import initialize, OtherProcessError
initialize()
from prerl_jax.data import Example, StreamProblems
from prerl_jax.data.arrivals import ExampleStream, StreamEnded
source = StreamProblems(f"{sys.argv[1]}/{jax.process_index()}", wait=0.0)  # process 1 has no such folder
stream = ExampleStream(source, lambda problem: (Example(problem, (1,)), ""), 4, 8)
stream.listen(print)
print("mine", [stream[n].problem.answer for n in next(stream)])
state = stream.get_state()
print("mine", [stream[n].problem.answer for n in next(stream)], [stream[n].problem.answer for n in range(4, 8)])
try:
    next(stream)
except StreamEnded as ended:
    print("ended", str(ended).split("now: ")[1])
stream.set_state({**state, "source": source.identity})
print("mine", [stream[n].problem.answer for n in next(stream)], stream.get_state()["count"])
if jax.process_index() == 0:
    open(f"{sys.argv[1]}/0/a.jsonl", "w").write("{}")
try:
    next(stream)
except (ValueError, OtherProcessError) as error:
    print("error", "may only grow" in str(error))
"""


@pytest.mark.slow
def test_two_processes_take_the_same_batches(tmp_path):
    (tmp_path / "0").mkdir()
    rows = "".join(f'{{"prompt": "p{n}", "answer": "{n}"}}\n' for n in range(9))
    (tmp_path / "0" / "a.jsonl").write_text(rows)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "JAX_PLATFORMS": "cpu"}
    here |= {"JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo", "JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    here |= {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    said = finish([(command, {**here, "JAX_PROCESS_ID": str(index)}) for index in range(2)], timeout=300)
    mine = [[line for line in out.splitlines() if line.split()[0] in ("mine", "ended", "error")] for out, _ in said]
    ended = "ended 8 were taken, and 1 wait for a batch of 4; waited 0 s"
    first, everything = "['0', '1', '2', '3']", "['4', '5', '6', '7']"
    assert (
        mine == [[f"mine {first}", f"mine {everything} {everything}", ended, f"mine {everything} 8", "error True"]] * 2
    )
