"""Imports go downwards from room to room, files import one another in no circle, and importing prerl_jax is light.

The rules are read from syntax trees, so that imports inside functions and under TYPE_CHECKING count, too. What they do
not see: config/vocabulary.py reads the public names from its parent package, which Python has loaded before it.
"""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "prerl_jax"

FACADE = "prerl_jax"
"""prerl_jax/__init__.py, which lends out the public names of the rooms below it."""
COMMANDS = ("launch", "export", "measure", "study", "lab")
ROOMS = (
    "core",
    "alignment",
    "models",
    "runtime",
    "data",
    "verify",
    "rollout",
    "analysis",
    "config",
    "evaluation",
    "trainer",
    "plan",
    "commands",
)
"""From the bottom to the top. A file imports from its own room and from rooms before it."""
BELOW_THE_FACADE = ROOMS[: ROOMS.index("config") + 1]
LIGHT = ("torch", "transformers", "grain", "orbax", "matplotlib", "tensorboardX", "pyarrow", "gguf")


def room_of(module: str) -> str:
    """prerl_jax.data.lab -> data, prerl_jax.launch -> commands, prerl_jax -> the facade."""
    parts = module.split(".")
    if len(parts) == 1:
        return FACADE
    return "commands" if parts[1] in COMMANDS else parts[1]


def sources(root: Path) -> dict[str, Path]:
    """{module: its file} of the package that lies in a folder."""
    found = {}
    for file in sorted((root / "prerl_jax").rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports_of(text: str, module: str, is_package: bool, modules: set[str]) -> set[str]:
    """Every module that a file imports. `from PACKAGE import NAME` is an import of NAME where that is a module."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                base = module.split(".")[: len(module.split(".")) - node.level + is_package]
                source = ".".join([*base, source] if source else base)
            names = [f"{source}.{alias.name}" for alias in node.names]
            found |= {name if name in modules else source for name in names}
    return found


def imports(root: Path) -> dict[str, set[str]]:
    """{module: the modules that it imports}."""
    files = sources(root)
    modules = set(files) | {f"prerl_jax.{room}" for room in ROOMS}
    return {
        module: imports_of(file.read_text("utf-8"), module, file.name == "__init__.py", modules)
        for module, file in files.items()
    }


def refused(room: str, imported: str) -> bool:
    """Whether a file of this room must not import from that one."""
    if imported == FACADE:
        return True
    if room == FACADE:
        return imported not in BELOW_THE_FACADE
    return ROOMS.index(imported) > ROOMS.index(room)


def violations(graph: dict[str, set[str]]) -> list[str]:
    """One line for each import that does not go downwards, and one for each circle."""
    unknown = sorted({room_of(module) for module in graph} - {FACADE, *ROOMS})
    if unknown:
        return [f"{unknown} are in no room: add them to ROOMS or COMMANDS, and to ARCHITECTURE.md"]
    own = {m: {name for name in names if name.split(".")[0] == FACADE} for m, names in graph.items()}
    lines = [
        f"{module} imports {name}"
        for module, names in sorted(own.items())
        for name in sorted(names)
        if refused(room_of(module), room_of(name))
    ]
    while circle := circle_of(own):
        lines.append(f"a circle: {' imports '.join(circle)}")
        own[circle[0]].discard(circle[1])
    return lines


def circle_of(graph: dict[str, set[str]]) -> list[str] | None:
    """Modules each of which imports the next, the first one again at the end; None without a circle."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1][::-1]
    return None


def test_imports_go_downwards():
    found = violations(imports(ROOT))
    assert not found, "\n".join(["these imports do not go downwards:", *found])


def test_the_rule_itself(tmp_path):
    """The check sees what it is there for."""
    files = {
        "__init__": "from prerl_jax.core import a\nfrom prerl_jax.trainer.run import f",
        "core/a": "def f():\n    from ..models import b\n    import prerl_jax",
        "core/c": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from prerl_jax.core.d import D",
        "core/d": "from prerl_jax.core import c",
        "models/b": "from prerl_jax.core.a import f\nimport torch",
        "trainer/run": "from prerl_jax.launch import main",
        "launch": "from prerl_jax.trainer.run import f",
    }
    for name, text in files.items():
        file = tmp_path / "prerl_jax" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    graph = imports(tmp_path)
    assert "torch" in graph["prerl_jax.models.b"]
    found = violations(graph)
    assert [line for line in found if "circle" not in line] == [
        "prerl_jax imports prerl_jax.trainer.run",
        "prerl_jax.core.a imports prerl_jax",
        "prerl_jax.core.a imports prerl_jax.models.b",
        "prerl_jax.trainer.run imports prerl_jax.launch",
    ]
    circles = {frozenset(line.removeprefix("a circle: ").split(" imports ")) for line in found if "circle" in line}
    assert {"prerl_jax.core.c", "prerl_jax.core.d"} in circles
    assert {"prerl_jax.trainer.run", "prerl_jax.launch"} in circles
    (tmp_path / "prerl_jax" / "tools").mkdir()
    (tmp_path / "prerl_jax" / "tools" / "x.py").touch()
    assert violations(imports(tmp_path)) == [
        "['tools'] are in no room: add them to ROOMS or COMMANDS, and to ARCHITECTURE.md"
    ]


def test_the_architecture_page_names_the_rooms():
    """Headings such as "### `core/`" and "### `launch.py`, `export.py`" name every room, from the bottom to the top."""
    page = (ROOT / "ARCHITECTURE.md").read_text()
    named = [
        name for heading in re.findall(r"^### (.*)$", page, re.MULTILINE) for name in re.findall(r"`(.*?)`", heading)
    ]
    rooms = [f"{room}/" for room in ROOMS if room != "commands"]
    commands = [f"{command}.py" for command in COMMANDS]
    at = rooms.index(f"{BELOW_THE_FACADE[-1]}/") + 1
    assert named == [*rooms[:at], "__init__.py", *rooms[at:], *commands], "the headings of ARCHITECTURE.md are others"
    assert not [name for name in named if not (PACKAGE / name).exists()]


def test_core_needs_jax_optax_and_numpy_only():
    allowed = {"jax", "optax", "numpy", "prerl_jax", *sys.stdlib_module_names}
    used = {(m, name) for m, names in imports(ROOT).items() if room_of(m) == "core" for name in names}
    assert not sorted((m, name) for m, name in used if name.split(".")[0] not in allowed)


def test_nothing_runs_on_torch():
    found = imports(ROOT).items()
    assert not sorted(m for m, names in found if any(name.split(".")[0] == "torch" for name in names))


def test_importing_the_package_is_light():
    code = f"import sys, prerl_jax; print([m for m in {LIGHT!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
