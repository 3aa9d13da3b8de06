"""Start-up of several processes from environment variables, and checks that all processes agree.

`initialize` tries three ways to find the other processes, in this order:

1. **Explicit**: `JAX_COORDINATOR_ADDRESS` (host:port of process 0), `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`, all
   three. `JAX_NUM_PROCESSES=1` means a single process, also on a machine of a cluster.
2. **Slurm**: more than one task, started by `srun` (`SLURM_JOB_ID`, `SLURM_STEP_NODELIST`, `SLURM_NTASKS`,
   `SLURM_PROCID`, `SLURM_LOCALID`). JAX takes the first node of the step as coordinator, and gives the task with
   `SLURM_LOCALID` n the n-th GPU of its node; `JAX_LOCAL_DEVICE_IDS` overrides that.
3. **TPU**: on a Cloud TPU machine JAX finds the other workers through the metadata server (TPU VM), or through
   `TPU_WORKER_HOSTNAMES` and `TPU_WORKER_ID` (GKE).

In all other cases there is a single process, which needs no start-up. `jax.distributed.initialize` blocks until all
processes have started. `initialize` therefore reports on stderr what it waits for, and gives up after a timeout.

Some work is done by each process alone, such as reading files. If it fails on one process, the others would wait for
that process in their next collective for ever. `share_errors` raises such an error on all processes. `require_same`
refuses values that differ between processes, and `require_shared` refuses a folder that not all processes see. With a
single process these checks cost nothing.
"""

from __future__ import annotations

import base64
import contextlib
import os
import pickle
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from prerl_jax.runtime.gather import gather_processes, max_over_processes

EXPLICIT = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")


class StartUpError(RuntimeError):
    """The processes could not connect to one another."""


class OtherProcessError(RuntimeError):
    """Another process failed. The message says which process, in what work, and why."""


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _integer(environment: Mapping[str, str], name: str) -> int:
    try:
        return int(environment[name])
    except ValueError:
        raise ValueError(f"{name}={environment[name]!r} is not an integer.") from None


def _explicit(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """The arguments of `jax.distributed.initialize`: {} for one process, None if none of the variables is set."""
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


def _slurm(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """`{"cluster_detection_method": "slurm"}` if there are several tasks, else None."""
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


def on_cloud_tpu() -> bool:
    """Whether JAX may use TPU chips of this machine. JAX detects them at import; the result has no public name."""
    from jax._src import cloud_tpu_init

    platforms = (jax.config.values["jax_platforms"] or "tpu").split(",")
    return cloud_tpu_init.running_in_cloud_tpu_vm and "tpu" in platforms


def plan(environment: Mapping[str, str], on_cloud_tpu: bool) -> tuple[str, dict[str, Any]] | None:
    """Decides how to start up, from the environment variables.

    Args:
        environment: the environment variables.
        on_cloud_tpu: whether JAX may use TPU chips of this machine.

    Returns:
        (a description, the arguments of `jax.distributed.initialize`), or None for a single process.

    Raises:
        ValueError: only some of the variables are set, or a value is not valid.
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
    """Connects this process to the others that the environment variables name. Call it before JAX uses a device.

    For a single process it does nothing.

    Args:
        timeout: how many seconds to wait for the other processes.
        say: prints a line; called once before the wait and once after it.

    Raises:
        ValueError: only some of the variables are set, or a value is not valid.
        StartUpError: JAX has used a device already, or the processes could not connect.
    """
    found = plan(os.environ, on_cloud_tpu())
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
    """Gathers one text from every process. Every process must call it.

    Args:
        text: this process's text, of any length; bytes 0 at its end are lost.

    Returns:
        The texts, in the order of the processes.
    """
    data = text.encode()
    longest = max_over_processes(len(data))
    if longest == 0:
        return [""] * jax.process_count()
    row = np.frombuffer(data.ljust(longest, b"\0"), np.uint8)
    return [bytes(other).rstrip(b"\0").decode(errors="replace") for other in gather_processes(row)]


def from_process(value: Any, sender: int) -> Any:
    """The value of another process. Every process must call it.

    Args:
        value: what this process says; anything that `pickle` takes, None where no process asks for it.
        sender: the process to hear; another one for each process, if need be.
    """
    if jax.process_count() == 1:
        return value
    said = gather_text("" if value is None else base64.b64encode(pickle.dumps(value)).decode())[sender]
    return pickle.loads(base64.b64decode(said)) if said else None


@contextlib.contextmanager
def share_errors(what: str) -> Iterator[None]:
    """Raises an error of one process on all processes, at the end of the block.

    Use it around work that may fail on one process alone. The block must not contain a collective. Every process must
    enter the block, in the same order as its other collectives.

    Args:
        what: names the work, for the error message.

    Raises:
        OtherProcessError: only another process failed. If this process failed, its own error is raised unchanged.
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
    """Checks that all processes have the same text. Every process must call it.

    Args:
        what: names the text, for the error message.
        text: this process's text.
        remedy: what to do if the texts differ, for the error message.

    Raises:
        ValueError: the texts differ. All processes raise it, with the first line in which a process differs from
            process 0.
    """
    first, *others = (text.splitlines() for text in gather_text(text))
    for index, lines in enumerate(others, start=1):
        for number in range(max(len(first), len(lines))):
            here, there = (part[number].strip() if number < len(part) else "nothing" for part in (first, lines))
            if here != there:
                raise ValueError(f"the processes differ in {what}: {here} on process 0, {there} on {index}. {remedy}")


def require_shared(folder: Path) -> None:
    """Checks that all processes see the same folder. Every process must call it.

    Args:
        folder: the folder; process 0 creates it if it does not exist. A single process checks and creates nothing.

    Raises:
        ValueError: a process does not see a file that process 0 wrote into the folder. All processes raise it.
        OtherProcessError: process 0 cannot write into the folder; process 0 raises its own error.
    """
    if jax.process_count() == 1:
        return
    name = gather_text(f".shared-{os.getpid()}-{os.urandom(8).hex()}")[0]  # a new name: no cache knows it
    with share_errors(f"writing into {folder}"):
        if jax.process_index() == 0:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
    seen = gather_text("" if (folder / name).exists() else f"{folder} on {socket.gethostname()}")
    with share_errors(f"removing what was written into {folder}"):  # on return, no process sees it
        if jax.process_index() == 0:
            (folder / name).unlink()
    blind = [f"process {index} ({where})" for index, where in enumerate(seen) if where]
    if blind:
        raise ValueError(
            f"{', '.join(blind)} does not see what process 0 wrote into its {folder}. The workdir must be one shared "
            "folder, under the same path on all machines (NFS, Filestore, a mounted bucket)."
        )
