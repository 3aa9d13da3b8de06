"""The persistent compilation cache, and what is compiled while a run goes on.

Programs are kept in `prerl_jax/` of the user's cache folder (`$XDG_CACHE_HOME`, else `~/.cache`), small ones as well,
so that a second start compiles nothing. JAX's own variables go before that: `JAX_COMPILATION_CACHE_DIR` is another
folder, `JAX_ENABLE_COMPILATION_CACHE=false` turns it off. A program is found again by what it computes, the devices,
the versions and the flags of XLA, so a folder can be shared.
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
    """Where programs are kept unless JAX is told otherwise."""
    base = environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME", "~")).expanduser() / ".cache"
    return Path(base) / "prerl_jax"


def enable_cache(environment: Mapping[str, str] = os.environ) -> None:
    """Sets the folder and the thresholds, but for those that the user has set. Call it before anything compiles."""
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder(environment)))
    for name, value in THRESHOLDS.items():
        if name.upper() not in environment:
            jax.config.update(name, value)


class Compilations:
    """Names and seconds of what JAX traces and compiles between `__enter__` and `__exit__`, in all threads.

    Attributes:
      names: of the programs compiled, or read from the persistent cache, in order; one that is compiled for two shapes
        stands twice.
    """

    def __init__(self):
        self.names: list[str] = []
        self._spans: list[tuple[float, float]] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Compilations:
        jax.monitoring.register_event_time_span_listener(self._listen)
        return self

    def __exit__(self, *error: object) -> None:
        jax.monitoring.unregister_event_time_span_listener(self._listen)

    def _listen(self, event: str, start: float, end: float, **details: object) -> None:
        kind = event.rpartition("/")[2]
        if kind not in EVENTS:
            return
        with self._lock:
            self._spans.append((start, end))
            if kind == COMPILED:
                self.names.append(str(details.get("fun_name")))

    def take_seconds(self) -> float:
        """Seconds of wall-clock, counted once, in which something was traced or compiled since the last call."""
        with self._lock:
            spans, self._spans = sorted(self._spans), []
        seconds, reached = 0.0, 0.0
        for start, end in spans:  # one program's trace lies within another's
            seconds += max(0.0, end - max(start, reached))
            reached = max(reached, end)
        return seconds
