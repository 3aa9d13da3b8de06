"""Every benchmark shows its options; two that are quick run on tiny models, and print their table and ratios."""

import importlib
import json
import math
import pathlib
import sys

import jax
import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"
COMMANDS = ("logprobs", "dual_gradients", "roofline", "roofline_decode", "scaling", "sampler", "train_step")
COMMANDS += ("dsrl_step", "startup", "hostile_answers", "thoughts")


@pytest.fixture
def module(monkeypatch):
    """A maker of benchmarks' modules; the process's allocator, caches and modules are as they were afterwards."""
    before, cached = set(sys.modules), jax.config.jax_enable_compilation_cache
    monkeypatch.syspath_prepend(str(FOLDER))

    def load(name):
        found = importlib.import_module(name)
        if hasattr(found, "keep_freed_memory"):
            monkeypatch.setattr(found, "keep_freed_memory", lambda: None)
        return found

    yield load
    jax.config.update("jax_enable_compilation_cache", cached)
    own = {path.stem for path in FOLDER.glob("*.py")}
    for name in set(sys.modules) - before & own:
        del sys.modules[name]


@pytest.mark.parametrize("name", COMMANDS)
def test_shows_its_options(module, name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as left:
        module(name).main()
    assert left.value.code == 0
    assert "--quick" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments", "ratios"),
    [
        ("logprobs", ["--vocab", "4096"], ["logprobs/fused/time", "logprobs/general/logits"]),
        ("roofline", [], ["roofline/train/tiny"]),
    ],
)
def test_runs(module, name, arguments, ratios, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--quick", *arguments])
    module(name).main()
    said = capsys.readouterr().out.splitlines()
    found = json.loads(said[-1])
    assert set(ratios) <= set(found)
    assert all(math.isfinite(value) and value > 0 for value in found.values())
    assert next(line for line in said if "ratio" in line and "target" in line)


@pytest.mark.slow
def test_hostile_answers_all_get_a_verdict(module, monkeypatch, capsys):
    arguments = ["--quick", "--verifier", "BoxedAnswer()", "--workers", "1", "--timeout", "60"]
    monkeypatch.setattr(sys, "argv", ["hostile_answers", *arguments])
    assert module("hostile_answers", "thoughts").main() == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["right"] + found["wrong"] == 200
    assert found["right"] > 5
    assert found["answers_per_second"] > 0
