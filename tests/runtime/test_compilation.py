"""Where programs are kept, and what is counted of compilation."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from prerl_jax.runtime.compilation import THRESHOLDS, Compilations, cache_folder, enable_cache


def test_the_folder_of_the_cache():
    assert cache_folder({"XDG_CACHE_HOME": "/x", "HOME": "/home/u"}) == Path("/x/prerl_jax")
    assert cache_folder({"HOME": "/home/u"}) == Path("/home/u/.cache/prerl_jax")


def test_what_the_user_has_set_stays():
    names = ["jax_compilation_cache_dir", *THRESHOLDS]
    before = {name: getattr(jax.config, name) for name in names}
    entry = "jax_persistent_cache_min_entry_size_bytes"
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        enable_cache({"XDG_CACHE_HOME": "/x", entry.upper(): "7"})
        assert jax.config.jax_compilation_cache_dir == "/x/prerl_jax"
        assert jax.config.jax_persistent_cache_min_compile_time_secs == 0
        assert getattr(jax.config, entry) == before[entry]
        enable_cache({"XDG_CACHE_HOME": "/y"})
        assert jax.config.jax_compilation_cache_dir == "/x/prerl_jax"
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def test_names_and_seconds_of_what_is_compiled():
    def twice(x):
        return 2 * x

    program, x = jax.jit(twice), jnp.ones(3)
    with Compilations() as compilations:
        program(x)
        program(x)
        program(jnp.ones(3))
        assert [name for name in compilations.names if "twice" in name] == ["jit(twice)"]
        assert 0 < compilations.take_seconds() < 60
        assert compilations.take_seconds() == 0
    program(jnp.ones((3, 3)))
    assert sum("twice" in name for name in compilations.names) == 1


def test_overlapping_times_count_once():
    event = "/jax/core/compile/backend_compile_duration"
    with Compilations() as compilations:
        for start, end in ((1.0, 5.0), (2.0, 3.0), (4.0, 6.0), (8.0, 9.0)):
            jax.monitoring.record_event_time_span(event, start, end, fun_name="f")
        jax.monitoring.record_event_time_span("/something/else", 0.0, 100.0)
    jax.monitoring.record_event_time_span(event, 20.0, 30.0, fun_name="late")
    assert compilations.take_seconds() == pytest.approx(6.0)
    assert compilations.names == ["f"] * 4
