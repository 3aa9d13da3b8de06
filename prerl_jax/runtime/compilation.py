"""The persistent compilation cache, and the record of what a run compiles.

Compiled programs, small ones too, are stored in the folder `prerl_jax` of the user's cache folder (`$XDG_CACHE_HOME`,
or `~/.cache`). A second start then compiles nothing. JAX's own environment variables take precedence:
`JAX_COMPILATION_CACHE_DIR` names another folder, and `JAX_ENABLE_COMPILATION_CACHE=false` turns the cache off. The key
of a program covers its computation, the devices, the versions and the XLA flags, so several projects can share one
folder.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path

import jax

EVENTS = ("jaxpr_trace_duration", "jaxpr_to_mlir_module_duration", "backend_compile_duration")
COMPILED = EVENTS[-1]
THRESHOLDS = {"jax_persistent_cache_min_compile_time_secs": 0.0, "jax_persistent_cache_min_entry_size_bytes": -1}


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """The folder of compiled programs, unless the user gives JAX another one.

    Args:
        environment: the environment variables; XDG_CACHE_HOME and HOME are read.
    """
    base = environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME", "~")).expanduser() / ".cache"
    return Path(base) / "prerl_jax"


def enable_cache(environment: Mapping[str, str] = os.environ) -> None:
    """Turns the cache on for programs of any size and compile time. Call it before anything compiles.

    Settings that the user has made through JAX's config or environment variables stay as they are.

    Args:
        environment: the environment variables.
    """
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder(environment)))
    for name, value in THRESHOLDS.items():
        if name.upper() not in environment:
            jax.config.update(name, value)


class Compilations:
    """Records what JAX traces and compiles, in all threads, while this context manager is active.

    Attributes:
        names: the programs that were compiled or read from the persistent cache, in order. A program that is compiled
            for two shapes appears twice.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self._spans: list[tuple[float, float]] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Compilations:
        jax.monitoring.register_event_time_span_listener(self._listen)
        return self

    def __exit__(self, *error: object) -> None:
        jax.monitoring.unregister_event_time_span_listener(self._listen)

    def _listen(self, event: str, start_time: float, end_time: float, **details: str | int) -> None:
        kind = event.rpartition("/")[2]
        if kind not in EVENTS:
            return
        with self._lock:
            self._spans.append((start_time, end_time))
            if kind == COMPILED:
                self.names.append(str(details.get("fun_name")))

    def take_seconds(self) -> float:
        """Wall-clock seconds spent on tracing and compiling since the last call.

        Time in which several programs are traced or compiled at once counts once.
        """
        with self._lock:
            spans, self._spans = sorted(self._spans), []
        seconds, reached = 0.0, 0.0
        for start, end in spans:  # spans overlap: the trace of one program may lie within that of another
            seconds += max(0.0, end - max(start, reached))
            reached = max(reached, end)
        return seconds
