"""What a device can do: its peak FLOP/s, to compute a step's model FLOPs utilization (MFU), and its memory.

The peak of an accelerator is that of dense bfloat16 matrix products, from the vendor's data sheet, without sparsity.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from prerl_jax.runtime.chips import CHIPS, TERA, chip_of_kind

PEAKS = {kind: chip.flops / chip.devices for chip in CHIPS for kind in chip.kinds} | {
    "TPU v4 lite": 138 * TERA,
    "NVIDIA V100": 125 * TERA,
    "Tesla V100": 125 * TERA,
    "Tesla T4": 65 * TERA,
    "NVIDIA A10G": 70 * TERA,
    "NVIDIA A100": 312 * TERA,
    "NVIDIA L4": 121 * TERA,
    "NVIDIA L40S": 362 * TERA,
    "NVIDIA H100": 989 * TERA,
    "NVIDIA H100 PCIe": 756 * TERA,
    "NVIDIA H200": 989 * TERA,
    "NVIDIA GH200": 989 * TERA,
    "NVIDIA B200": 2250 * TERA,
    "NVIDIA GB200": 2500 * TERA,
}
"""Beginning of a `device_kind` -> peak FLOP/s. The longest beginning that matches is used."""

SIZE, REPETITIONS = 1024, 6
"""The size of the square matrices whose product measures a CPU, and how often it is timed."""


def known_peak(kind: str) -> float | None:
    """The peak FLOP/s of one device.

    Args:
        kind: `jax.Device.device_kind`.

    Returns:
        FLOP/s, or None if `PEAKS` has no entry for the kind.
    """
    fits = [name for name in PEAKS if kind.startswith(name) and not kind[len(name) : len(name) + 1].isdigit()]
    return PEAKS[max(fits, key=len)] if fits else None


def device_memory(device: jax.Device) -> int | None:
    """Bytes of a device's memory that programs may use; None for CPUs and where it is not known.

    An attached accelerator says it. The devices of a topology, which programs are compiled for ahead of time, do not:
    `runtime.chips` has them.
    """
    if device.platform == "cpu":
        return None
    try:
        said = device.memory_stats()
    except jax.errors.JaxRuntimeError:  # of a topology
        said = None
    if said and "bytes_limit" in said:
        return int(said["bytes_limit"])
    chip = chip_of_kind(device.device_kind)
    return None if chip is None else int(chip.usable / chip.devices)


def peak_flops(devices: Sequence[jax.Device], dtype: jnp.dtype) -> tuple[float | None, str]:
    """The peak FLOP/s of several devices together.

    The peak of a CPU is measured with matrix products. The CPU devices of one process share its cores, so they count
    once. The peak of an accelerator that `PEAKS` does not have stays unknown, because products that are timed from the
    host would be timed wrong.

    Args:
        devices: the devices, all of one kind.
        dtype: the dtype of the products that measure a CPU.

    Returns:
        (FLOP/s, or None if they are unknown; a sentence for the log about time/mfu).
    """
    kind = devices[0].device_kind
    known = known_peak(kind)
    if known is not None:
        return known * len(devices), f"time/mfu is a share of {known / TERA:g} TFLOP/s a device ({kind}, bfloat16)"
    if devices[0].platform != "cpu":
        return None, f"there is no time/mfu: the peak of {kind!r} is not in prerl_jax.runtime.peak.PEAKS"
    rate, what = _measured(jnp.dtype(dtype).name), f"{SIZE} x {SIZE} {jnp.dtype(dtype).name} products"
    processes = len({d.process_index for d in devices})
    return rate * processes, f"time/mfu is a share of {rate / 1e9:.0f} GFLOP/s a process, measured with {what}"


@functools.cache
def _measured(dtype: str) -> float:
    """The best FLOP/s of a few matrix products on one local device."""
    x = jax.device_put(np.ones((SIZE, SIZE), dtype), jax.local_devices()[0])
    seconds = []
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        jax.block_until_ready(x @ x)
        seconds.append(time.perf_counter() - start)
    return 2 * SIZE**3 / min(seconds)
