"""What the devices could do at most, to measure a step against: FLOP/s of dense bfloat16 matrix products.

Sources: the vendors' data sheets, without sparsity.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

TERA = 1e12
PEAKS = {
    "TPU v2": 45 * TERA,  # a device is one core of two
    "TPU v3": 61 * TERA,  # the same
    "TPU v4": 275 * TERA,
    "TPU v4 lite": 138 * TERA,
    "TPU v5 lite": 197 * TERA,
    "TPU v5e": 197 * TERA,
    "TPU v5": 459 * TERA,
    "TPU v5p": 459 * TERA,
    "TPU v6 lite": 918 * TERA,
    "TPU v6e": 918 * TERA,
    "TPU7x": 1153 * TERA,  # the same as of v2
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
"""FLOP/s by the beginning of `device_kind`; the longest that fits counts."""

SIZE, REPETITIONS = 1024, 6


def known_peak(kind: str) -> float | None:
    """FLOP/s of a device of this kind; None where the table does not have it."""
    fits = [name for name in PEAKS if kind.startswith(name) and not kind[len(name) : len(name) + 1].isdigit()]
    return PEAKS[max(fits, key=len)] if fits else None


def peak_flops(devices: Sequence[jax.Device], dtype: jnp.dtype) -> tuple[float | None, str]:
    """(FLOP/s of all these devices together, what is to be said of it in the log).

    A CPU is measured with products in `dtype`; the CPU devices of one process share its cores, and count once. Of an
    accelerator that is not in the table None: products that are timed from the host would be timed wrong.
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
    """The best rate of a few matrix products on one local device."""
    x = jax.device_put(np.ones((SIZE, SIZE), dtype), jax.local_devices()[0])
    seconds = []
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        jax.block_until_ready(x @ x)
        seconds.append(time.perf_counter() - start)
    return 2 * SIZE**3 / min(seconds)
