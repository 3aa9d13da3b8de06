"""glibc's allocator keeps what is freed."""

import ctypes
import os
import subprocess
import sys

import pytest

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


def test_freed_pages_are_not_taken_from_the_kernel_again():
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "True"]


@pytest.mark.parametrize(
    "environment",
    [
        {"JAX_PLATFORMS": "cpu", "MALLOC_ARENA_MAX": "4"},
        {"JAX_PLATFORMS": "cpu", "MALLOC_TRIM_THRESHOLD_": "0"},
        {"JAX_PLATFORMS": "tpu,cpu"},
    ],
    ids=["the users own arenas", "the users own threshold", "an accelerator"],
)
def test_nothing_is_changed(monkeypatch, environment):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: pytest.fail("the C library was asked"))
    assert not keep_freed_memory(environment)


def test_only_cpu():
    assert only_cpu({"JAX_PLATFORMS": "cpu"})
    assert not only_cpu({"JAX_PLATFORMS": "cuda"})
    assert not only_cpu({"JAX_PLATFORMS": "tpu,cpu"})
