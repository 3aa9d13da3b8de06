"""Start-up of many processes, from the environment. Three ways, tried in this order:

1. **Explicit**: `JAX_COORDINATOR_ADDRESS` (host:port of process 0), `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`, all
   three. `JAX_NUM_PROCESSES=1` means a single process, also on a machine of a cluster.
2. **Slurm**: more than one task, started by `srun` (`SLURM_JOB_ID`, `SLURM_STEP_NODELIST`, `SLURM_NTASKS`,
   `SLURM_PROCID`, `SLURM_LOCALID`). JAX takes the first node of the step as coordinator, and gives the task with
   `SLURM_LOCALID` n the n-th GPU of its node; `JAX_LOCAL_DEVICE_IDS` overrides that.
3. **TPU**: on a Cloud TPU machine JAX asks the metadata server (TPU VM) or `TPU_WORKER_HOSTNAMES` and `TPU_WORKER_ID`
   (GKE) for its neighbours.

Anything else is a single process, which needs no start-up. `jax.distributed.initialize` blocks until all processes are
there: what it waits for is said before, on stderr, and it gives up after `timeout` seconds.

What processes do alone, they agree on afterwards: `share_errors` turns one process's error into everybody's (the others
would wait for it for ever in their next collective), `require_same` refuses what must not differ, `require_shared` a
folder that not all of them see. A single process agrees with itself at no cost.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jax
import numpy as np

from prerl_jax.runtime.mesh import gather_rows, max_over_processes

EXPLICIT = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")


class StartUpError(RuntimeError):
    """The processes did not come together."""


class OtherProcessError(RuntimeError):
    """Another process failed; the message says which one, at what, and why."""


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _integer(environment: Mapping[str, str], name: str) -> int:
    try:
        return int(environment[name])
    except ValueError:
        raise ValueError(f"{name}={environment[name]!r} is not an integer.") from None


def _explicit(environment: Mapping[str, str]) -> dict | None:
    """The arguments of `jax.distributed.initialize`, {} for one process, None where none of the variables is set."""
    missing = [name for name in EXPLICIT if not environment.get(name)]
    if len(missing) == len(EXPLICIT):
        return None
    if missing:
        given = {name: environment[name] for name in EXPLICIT if name not in missing}
        raise ValueError(f"{given} without {', '.join(missing)}: set all of {', '.join(EXPLICIT)}, or none.")
    address = environment[EXPLICIT[0]]
    count, index = (_integer(environment, name) for name in EXPLICIT[1:])
    if count < 1 or not 0 <= index < count:
        raise ValueError(f"JAX_PROCESS_ID={index} is not in [0, JAX_NUM_PROCESSES={count}).")
    if not address.rpartition(":")[0] or not address.rpartition(":")[2].isdigit():
        raise ValueError(f"JAX_COORDINATOR_ADDRESS={address!r} is not host:port.")
    return {"coordinator_address": address, "num_processes": count, "process_id": index} if count > 1 else {}


def _slurm(environment: Mapping[str, str]) -> dict | None:
    """`{"cluster_detection_method": "slurm"}` for several tasks, None for one or none."""
    if not environment.get("SLURM_JOB_ID") or not environment.get("SLURM_NTASKS"):
        return None
    tasks = _integer(environment, "SLURM_NTASKS")
    missing = [name for name in SLURM if not environment.get(name)]
    if tasks > 1 and missing:
        raise ValueError(
            f"the Slurm job {environment['SLURM_JOB_ID']} has {tasks} tasks, but {', '.join(missing)} is not set: "
            "start the program with srun (one process a task), or set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES=1 and "
            "JAX_PROCESS_ID=0 to run a single process inside the job."
        )
    return {"cluster_detection_method": "slurm"} if tasks > 1 else None


def _on_cloud_tpu() -> bool:
    """Whether this machine has TPU chips that JAX is to use. JAX finds out at import, and has no public name for it."""
    from jax._src import cloud_tpu_init

    platforms = (jax.config.jax_platforms or "tpu").split(",")
    return cloud_tpu_init.running_in_cloud_tpu_vm and "tpu" in platforms


def plan(environment: Mapping[str, str], on_cloud_tpu: bool) -> tuple[str, dict] | None:
    """What the environment asks for: (what it is, the arguments of `jax.distributed.initialize`), None for one process.

    Raises ValueError when only a part of the variables is set.
    """
    explicit = _explicit(environment)
    if explicit is not None:
        if not explicit:
            return None
        where = "process {process_id} of {num_processes}, coordinator {coordinator_address}".format(**explicit)
        return where, explicit
    slurm = _slurm(environment)
    if slurm is not None:
        where = "Slurm task {SLURM_PROCID} of {SLURM_NTASKS} on {SLURM_STEP_NODELIST}".format(**environment)
        return where, slurm
    return ("the workers of this TPU slice", {}) if on_cloud_tpu else None


def initialize(timeout: int = 300, say: Callable[[str], None] = _to_stderr) -> None:
    """Joins the processes that the environment names; nothing for a single process. Call it before any device is used.

    Args:
        timeout: seconds to wait for the others.
        say: is given a line before the wait and one after it.

    Raises:
        ValueError: only a part of the variables is set, or one of them makes no sense.
        StartUpError: a device has been used already, or the processes did not come together.
    """
    found = plan(os.environ, _on_cloud_tpu())
    if found is None:
        return
    where, arguments = found
    say(f"distributed start-up: {where}; waiting up to {timeout} s for all processes")
    try:
        jax.distributed.initialize(**arguments, initialization_timeout=timeout)
    except Exception as error:
        raise StartUpError(
            f"distributed start-up failed ({where}): {error}. Check that every process was started, that the "
            "coordinator's port can be reached, and that this is called before JAX uses a device."
        ) from error
    say(
        f"distributed start-up: this is process {jax.process_index()} of {jax.process_count()}, with "
        f"{jax.local_device_count()} of {jax.device_count()} devices"
    )


def gather_text(text: str) -> list[str]:
    """Every process's text, in the order of the processes; every process must call it."""
    data = text.encode()
    longest = max_over_processes(len(data))
    if longest == 0:
        return [""] * jax.process_count()
    row = np.frombuffer(data.ljust(longest, b"\0"), np.uint8)
    return [bytes(other).rstrip(b"\0").decode(errors="replace") for other in gather_rows(row[None])]


@contextlib.contextmanager
def share_errors(what: str) -> Iterator[None]:
    """What may fail on one process alone, and holds no collective: an error on one of them is raised on all.

    Every process must enter it, in the same order as its other collectives.

    Raises:
        OtherProcessError: only another process failed. This process's own error is raised as it is.
    """
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    said = gather_text("" if failure is None else f"{type(failure).__name__}: {failure}"[:2000])
    if failure is not None:
        raise failure
    for index, reason in enumerate(said):
        if reason:
            raise OtherProcessError(f"{what} failed on process {index}: {reason}")


def require_same(what: str, text: str, remedy: str) -> None:
    """Refuses a text in which the processes differ, on all of them.

    Raises:
        ValueError: with the first line in which a process differs from process 0, and the remedy.
    """
    first, *others = (text.splitlines() for text in gather_text(text))
    for index, lines in enumerate(others, start=1):
        for number in range(max(len(first), len(lines))):
            here, there = (part[number].strip() if number < len(part) else "nothing" for part in (first, lines))
            if here != there:
                raise ValueError(f"the processes differ in {what}: {here} on process 0, {there} on {index}. {remedy}")


def require_shared(folder: Path) -> None:
    """Refuses a folder that is not one and the same for all processes. It is made where it is not there.

    Raises:
        ValueError: a process does not see what process 0 wrote into it, on all processes.
        OtherProcessError: process 0 cannot write into it; its own error is raised there.
    """
    if jax.process_count() == 1:
        return
    name = gather_text(f".shared-{os.getpid()}-{os.urandom(8).hex()}")[0]  # new: no process has it in a cache
    with share_errors(f"writing into {folder}"):
        if jax.process_index() == 0:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
    seen = gather_text("" if (folder / name).exists() else f"{folder} on {socket.gethostname()}")
    with share_errors(f"removing what was written into {folder}"):  # it is gone on return, for all processes
        if jax.process_index() == 0:
            (folder / name).unlink()
    blind = [f"process {index} ({where})" for index, where in enumerate(seen) if where]
    if blind:
        raise ValueError(
            f"{', '.join(blind)} does not see what process 0 wrote into its {folder}. The workdir must be one shared "
            "folder, under the same path on all machines (NFS, Filestore, a mounted bucket)."
        )
