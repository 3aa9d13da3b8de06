"""How the process's allocator treats what XLA frees: on a CPU, a step's temporaries are taken from it anew every step.

By default glibc gives gigabytes back to the kernel at the end of a step and takes them again, page by page, at the
start of the next. With SmolLM2-135M, 8 x 256 tokens on one core of a virtual machine, that was 3.7 s of system time in
a step of 15.2 s, and 12 s of 24 s where another job of the process ran in between; kept, it was none once the heap had
grown. It grows in the first steps, since glibc does not always fit a block of gigabytes into the hole that it has left:
to 9.5 GiB by the third with remat "dots", whose temporaries are 2.2 GiB, and now and then with "none", to 17.1 GiB, of
4.8 GiB. Where memory is short: GLIBC_TUNABLES=glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0, with which the latter
stayed below 12.4 GiB.
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
"""One heap for all threads, from which nothing is mapped apart and of which nothing is given back."""


PLUGINS = ("libtpu", "jax_cuda12_plugin", "jax_cuda13_plugin")


def only_cpu(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether JAX can only take the CPU: it is told to, or no accelerator's plugin is installed."""
    platforms = environment.get("JAX_PLATFORMS")
    return platforms == "cpu" if platforms else not any(map(importlib.util.find_spec, PLUGINS))


def keep_freed_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Has glibc keep freed memory for the process's next request; False if not. Call it before JAX starts threads.

    Nothing is done where JAX may take an accelerator, on other C libraries, and where the environment sets one of
    glibc's own variables (SETTINGS).
    """
    if not only_cpu(environment) or any(name in environment for name in SETTINGS):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"):
        return False
    done = [mallopt(parameter, value) for parameter, value in SETTINGS.values()]
    return done == [1] * len(SETTINGS)
