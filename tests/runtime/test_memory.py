"""glibc's allocator keeps what is freed."""

import os
import subprocess
import sys

from prerl_jax.runtime.memory import SETTINGS, keep_freed_memory, only_cpu

PROGRAM = """
import ctypes, resource
from prerl_jax.runtime.memory import keep_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes, libc.memset.argtypes = ctypes.c_void_p, [ctypes.c_void_p], None
kept = keep_freed_memory()


def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(ctypes.c_size_t(64 << 20))
    libc.memset(ctypes.c_void_p(block), 1, ctypes.c_size_t(64 << 20))
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


first, second = faults(), faults()
print(kept, first > 1000, second < 100)
"""


def run(**variables):
    environment = {k: v for k, v in os.environ.items() if k not in SETTINGS} | variables
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()


def test_freed_pages_are_not_taken_from_the_kernel_again():
    assert run() == ["True", "True", "True"]


def test_the_users_own_settings_stand():
    assert run(MALLOC_ARENA_MAX="4") == ["False", "True", "False"]
    assert not keep_freed_memory({"JAX_PLATFORMS": "cpu", "MALLOC_TRIM_THRESHOLD_": "0"})


def test_nothing_is_changed_where_jax_may_take_an_accelerator():
    assert run(JAX_PLATFORMS="tpu,cpu") == ["False", "True", "False"]
    assert only_cpu({"JAX_PLATFORMS": "cpu"})
    assert not only_cpu({"JAX_PLATFORMS": "cuda"})
