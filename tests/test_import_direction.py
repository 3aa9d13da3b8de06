"""Imports go downwards only, function-level ones too (by the syntax trees), and importing prerl_jax stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "prerl_jax"
FILES = sorted(PACKAGE.rglob("*.py"))

LEVELS = {
    **{"core": 0, "models": 1},
    **dict.fromkeys(("runtime", "rollout", "verify", "data", "analysis", "config"), 2),
    **{"trainer": 4, "launch": 5, "export": 5, "lab": 5, "measure": 5, "study": 5},
}
ROOM_OF_FILE = dict.fromkeys(("config_checks", "config_io", "config_overrides", "config_study"), "config")
"""Files of the package's top level that belong to a room of another name."""
BESIDE = {"config": {"analysis", "data", "verify", "runtime"}, "rollout": {"runtime"}, "verify": {"data"}}
"""Imports that are allowed within a level."""
FACADE = "prerl_jax"
"""The names that prerl_jax/__init__.py lends out; what lies below the config imports from where they are defined."""
LIGHT = ("torch", "transformers", "grain", "orbax", "matplotlib", "tensorboardX", "pyarrow", "gguf")


def room_of(module: str) -> str:
    """prerl_jax.data.lab -> data, prerl_jax.config.io -> config, prerl_jax -> the facade."""
    parts = module.split(".")
    return FACADE if len(parts) == 1 else ROOM_OF_FILE.get(parts[1], parts[1])


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(tree: ast.AST, module: str, is_package: bool) -> set[str]:
    """Every module that is imported anywhere in a file. A name taken from prerl_jax itself may be one of its rooms."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                base = module.split(".")[: len(module.split(".")) - node.level + is_package]
                source = ".".join([*base, source] if source else base)
            known = {name for alias in node.names if (name := f"{source}.{alias.name}") in MODULES}
            found |= known if source == FACADE and known else {source} | known
    return found


MODULES = {module_of(file) for file in FILES} | {f"prerl_jax.{p.name}" for p in PACKAGE.iterdir() if p.is_dir()}
IMPORTS = {
    module_of(file): imports_of(ast.parse(file.read_text("utf-8")), module_of(file), file.name == "__init__.py")
    for file in FILES
}


def refused(room: str, imported: str) -> bool:
    """Whether a file of this room must not import from that one."""
    if room == imported:
        return False
    if imported == FACADE:
        return LEVELS[room] < 4 and room != "config"
    if room == FACADE:
        return LEVELS[imported] > 2
    return LEVELS[imported] >= LEVELS[room] and imported not in BESIDE.get(room, ())


@pytest.mark.parametrize("module", sorted(IMPORTS))
def test_imports_go_downwards(module):
    room = room_of(module)
    assert room in {*LEVELS, FACADE}, f"{module} is in no room that this test knows: give {room!r} a level"
    targets = {name for name in IMPORTS[module] if name == FACADE or name.startswith("prerl_jax.")}
    assert not sorted(name for name in targets if refused(room, room_of(name)))


def test_core_needs_jax_optax_and_numpy_only():
    allowed = {"jax", "optax", "numpy", "prerl_jax", *sys.stdlib_module_names}
    used = {(m, name) for m, names in IMPORTS.items() if room_of(m) == "core" for name in names}
    assert not sorted((m, name) for m, name in used if name.split(".")[0] not in allowed)


def test_nothing_runs_on_torch():
    assert not sorted(m for m, names in IMPORTS.items() if any(name.split(".")[0] == "torch" for name in names))


def test_the_rule_itself():
    """The check sees what it is there for."""
    tree = ast.parse("def f():\n    from prerl_jax import trainer\n    from ..trainer import run\n    import torch")
    assert imports_of(tree, "prerl_jax.core.types", False) >= {"prerl_jax.trainer", "torch"}
    assert refused("core", "trainer")
    assert refused("core", "models")
    assert refused("models", "data")
    assert refused("data", "verify")
    assert refused("rollout", FACADE)
    assert not refused("config", "data")
    assert not refused("trainer", "config")
    assert not refused("launch", "trainer")


def test_importing_the_package_is_light():
    code = f"import sys, prerl_jax; print([m for m in {LIGHT!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
