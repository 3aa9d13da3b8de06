"""Makes glibc keep the memory that XLA frees: on a CPU, every step allocates its temporaries again.

By default glibc returns gigabytes to the kernel at the end of a step, and requests them again, page by page, at the
start of the next step. With SmolLM2-135M and 8 x 256 tokens on one core of a virtual machine, this took 3.7 s of system
time in a step of 15.2 s, and 12 s of 24 s when the process did other work between steps. If glibc keeps the memory, it
takes no time once the heap has grown.

The price is memory. The heap grows in the first steps, because glibc does not always fit a block of gigabytes into the
hole that it has left. With remat "dots", whose temporaries take 2.2 GiB, the heap grew to 9.5 GiB by the third step.
With remat "none", whose temporaries take 4.8 GiB, it grew to 17.1 GiB now and then. If memory is short, set
GLIBC_TUNABLES=glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0: with it, "none" stayed below 12.4 GiB.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from collections.abc import Mapping

TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8
SETTINGS = {
    "MALLOC_ARENA_MAX": (ARENA_MAX, 1),
    "MALLOC_MMAP_MAX_": (MMAP_MAX, 0),
    "MALLOC_TRIM_THRESHOLD_": (TRIM_THRESHOLD, -1),
}
"""Environment variable of glibc -> (its mallopt parameter, our value).

Together they mean: one heap for all threads, no separate mappings of large blocks, and nothing returned to the kernel.
"""

PLUGINS = ("libtpu", "jax_cuda12_plugin", "jax_cuda13_plugin")
"""The packages that let JAX use a TPU or a GPU."""


def only_cpu(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether JAX can use the CPU only.

    Args:
        environment: the environment variables; JAX_PLATFORMS is read.

    Returns:
        True if JAX_PLATFORMS is "cpu", or if it is not set and no plugin for an accelerator is installed.
    """
    platforms = environment.get("JAX_PLATFORMS")
    return platforms == "cpu" if platforms else not any(map(importlib.util.find_spec, PLUGINS))


def keep_freed_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Makes glibc keep freed memory for later allocations of this process. Call it before JAX starts threads.

    It changes nothing if JAX may use an accelerator, if the C library is not glibc, or if the user has set one of
    glibc's own variables (`SETTINGS`).

    Args:
        environment: the environment variables.

    Returns:
        True if glibc accepted all settings, False if nothing was changed or a setting was refused.
    """
    if not only_cpu(environment) or any(name in environment for name in SETTINGS):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"):
        return False
    done = [mallopt(parameter, value) for parameter, value in SETTINGS.values()]
    return done == [1] * len(SETTINGS)
