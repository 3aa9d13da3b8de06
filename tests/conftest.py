"""Settings of every test process, made before JAX starts: eight CPU devices, and programs that compile fast.

Most of the suite's time is XLA's compiler. It spends half as much without its newer emitters of fusions.

All workers, and the processes that tests start, share one compilation cache. It is a folder of pytest's own cache
(`pytest --cache-clear` empties it), or the folder that `JAX_COMPILATION_CACHE_DIR` names.
"""

import ctypes
import os
import resource

import pytest

FLAGS = {
    "xla_force_host_platform_device_count": "8",
    "xla_backend_optimization_level": "0",
    "xla_cpu_use_fusion_emitters": "false",
    "xla_llvm_disable_expensive_passes": "true",
}
VARIABLES = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}

MOST_BYTES = 2 << 30
"""The memory of a test process above which its compiled programs are dropped."""

for name, value in VARIABLES.items():
    os.environ.setdefault(name, value)
for flag, value in FLAGS.items():
    if flag not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --{flag}={value}"


def pytest_configure(config):
    """Sets the cache's folder. Workers inherit it: they are started later, with this process's environment."""
    if config.pluginmanager.has_plugin("cacheprovider") and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(config.cache.mkdir("compiled"))


@pytest.fixture(scope="module", autouse=True)
def freed_memory():
    """Compiled programs are dropped once they hold gigabytes, and glibc returns their memory: it fills up otherwise."""
    yield
    import jax

    if resident_bytes() > MOST_BYTES:
        jax.clear_caches()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)
        trim(0)


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """A function that makes huggingface_hub ask the hub at an address, with an empty cache and no token."""
    from huggingface_hub import constants

    def ask(address):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
        monkeypatch.delenv("HF_TOKEN", raising=False)

    return ask


def resident_bytes():
    """The memory that this process has now; where there is no /proc, the most that it has had."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
