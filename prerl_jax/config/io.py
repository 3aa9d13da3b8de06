"""Reads, writes and compares config files.

A config file is Python source with `def config() -> TrainConfig`. `render` writes a config as such source, and
`load_config` reads it back as an equal value. So the resolved config that a run saves is itself a config file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import itertools
import math
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, TypeVar

from prerl_jax.analysis.thought_patterns import THOUGHTS
from prerl_jax.config.checks import validate_without_mesh
from prerl_jax.config.schema import TrainConfig
from prerl_jax.config.vocabulary import public_names

__all__ = ["build", "config_names", "difference", "load_config", "render"]

_FILE_MODULE = "_prerl_jax_config_file_"
"""The modules of config files have this prefix. No other process can import them."""
_WIDTH = 120
Built = TypeVar("Built")


# --- reading


def _configs_folder() -> Path:
    """The folder of the shipped configs: inside an installed package, beside the package in a source tree."""
    package = Path(__file__).resolve().parent.parent
    return package / "configs" if (package / "configs").is_dir() else package.parent / "configs"


def config_names() -> list[str]:
    """The names of the configs that ship with the package, sorted."""
    return sorted(p.stem for p in _configs_folder().glob("*.py") if not p.stem.startswith("_"))


def _shipped(file: Path) -> Path | None:
    """The shipped file that a path names, where no file has that path: NAME, configs/NAME.py, studies/NAME.py."""
    parts = file.parts[1:] if file.parts[:1] == ("configs",) else file.parts
    inside = len(parts) == 1 or (len(parts) == 2 and parts[0] == "studies")
    found = _configs_folder().joinpath(*parts).with_suffix(".py") if inside else None
    return found if found and found.is_file() and file.suffix in ("", ".py") else None


def _module_of(path: str) -> ModuleType:
    file = Path(path)
    if not (file.suffix == ".py" and file.is_file()):
        shipped = _shipped(file)
        if shipped is None:
            raise FileNotFoundError(
                f"there is no config file {path!r} (working directory {Path.cwd()}). Give the path of a Python file, "
                f"or the name of one that ships with the package: {', '.join(config_names())}."
            )
        file = shipped
    name = f"{_FILE_MODULE}{file.stem}_{abs(hash(file.resolve())):x}"
    module = ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module  # dataclasses look up their module while they are defined
    with _explained(file):
        # Not imported: Python would take a file that was rewritten within a second from its __pycache__.
        exec(compile(file.read_bytes(), str(file), "exec", dont_inherit=True), module.__dict__)
    return module


@contextlib.contextmanager
def _explained(file: Path) -> Iterator[None]:
    """Turns an error of a config file's Python into a ValueError with the file and the line."""
    try:
        yield
    except SyntaxError as error:
        raise ValueError(f"{error.filename or file}, line {error.lineno}: {error.msg}") from error
    except (ArithmeticError, AttributeError, LookupError, NameError, TypeError) as error:
        calls = traceback.extract_tb(error.__traceback__)
        # The innermost line that the user wrote: in the config, or in a module beside it that the config imports.
        own = [call for call in calls if Path(call.filename).resolve().parent == file.resolve().parent]
        where = f"{own[-1].filename}, line {own[-1].lineno}" if own else f"{file}"
        raise ValueError(f"{where}: {type(error).__name__}: {error}") from error


def load_config(path: str | Path) -> TrainConfig:
    """Reads and validates the config of a Python file, but for its mesh, which a run fits to its devices.

    Args:
      path: a Python file with `def config() -> TrainConfig`, or the name of a config that ships with the package, such
        as "lab" or "configs/lab.py". Where both exist, the file is read.

    Returns:
      The config.

    Raises:
      FileNotFoundError: there is no such file, and no such shipped config.
      ValueError: the file has no function `config`, the function fails (the error names the line) or returns something
        else, or the config is not valid.
    """
    return validate_without_mesh(build(path, "config", TrainConfig))


def build(path: str | Path, function: str, kind: type[Built]) -> Built:
    """Calls a function of a Python file, which may be a shipped one, and returns its result of class `kind`.

    Raises as `load_config` does.
    """
    module = _module_of(str(path))
    make, name = vars(module).get(function), kind.__name__
    if not callable(make):
        raise ValueError(
            f"{path} has no function {function}(); a {function} file defines `def {function}() -> {name}`."
        )
    with _explained(Path(str(module.__file__))):
        made = make()
    if not isinstance(made, kind):
        got = f"{type(made).__name__} {made!r:.80}"
        raise ValueError(f"{function}() of {path} returned {got}; it must return a {name}.")
    return made


# --- writing


class _Imports:
    """The names that a rendered file imports."""

    def __init__(self) -> None:
        self.names: dict[str, tuple[str, str]] = {}  # name in the file -> (module, name in the module)

    def name(self, thing: type | FunctionType, where: str) -> str:
        """The expression for a class or function. Raises ValueError where another process could not import it."""
        module, qualname = thing.__module__, thing.__qualname__
        if not module or module == "__main__" or module.startswith(_FILE_MODULE) or "<" in qualname:
            raise ValueError(
                f"{where} is {thing!r}, which a saved config cannot name: another process could not import it. Put it "
                "into a module that Python can import, as a function or as a frozen dataclass with __call__."
            )
        top, _, rest = qualname.partition(".")
        found: Any = importlib.import_module(module)
        for part in qualname.split("."):
            found = getattr(found, part, None)
        if found is not thing:
            raise ValueError(f"{where} is {thing!r}, but {module}.{qualname} is {found!r}; name it as it is defined.")
        source = "prerl_jax" if public_names().get(top) is getattr(sys.modules[module], top) else module
        local, number = top, 2
        while local == "config" or self.names.get(local, (source, top)) != (source, top):
            local, number = f"{top}_{number}", number + 1
        self.names[local] = (source, top)
        return f"{local}.{rest}" if rest else local

    def constant(self, name: str, module: str) -> str:
        """The expression for a constant of the package."""
        self.names[name] = (module, name)
        return name

    def lines(self) -> list[str]:
        """Import statements, sorted by module."""
        modules: dict[str, list[str]] = {}
        for local, (module, name) in self.names.items():
            modules.setdefault(module, []).append(name if local == name else f"{name} as {local}")
        lines = []
        for module in sorted(modules):
            names = sorted(modules[module])
            line = f"from {module} import {', '.join(names)}"
            lines += [line] if len(line) <= _WIDTH else [f"from {module} import (", *(f"    {n}," for n in names), ")"]
        return lines


def _scalar(value: Any, where: str, imports: _Imports) -> str:
    if value is None or type(value) in (bool, int):
        return repr(value)
    if type(value) is str:
        text = repr(value)
        return text if '"' in text else f'"{text[1:-1]}"'
    if type(value) is float:
        return repr(value) if math.isfinite(value) else f'float("{value}")'
    if isinstance(value, type | FunctionType):
        return imports.name(value, where)
    raise ValueError(
        f"{where} is {value!r}, a {type(value).__name__}, which a saved config cannot spell. Use None, numbers, "
        "strings, tuples, dicts, frozen dataclasses, or functions and classes of an importable module."
    )


def _parts(value: Any, where: str, imports: _Imports) -> tuple[str, list[tuple[str, Any, str]], str] | None:
    """(opening, [(prefix, child, the child's path)], closing) of a value with children; None of another value."""
    path = f"{where}." if where else ""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [f.name for f in dataclasses.fields(value) if f.init]
        children = [(f"{name}=", getattr(value, name), f"{path}{name}") for name in fields]
        return f"{imports.name(type(value), where)}(", children, ")"
    if type(value) in (tuple, list):
        opening, closing = "()" if type(value) is tuple else "[]"
        return opening, [("", child, f"{path}{i}") for i, child in enumerate(value)], closing
    if type(value) is dict:
        items = [(f"{_scalar(key, where, imports)}: ", child, f"{path}{key}") for key, child in value.items()]
        return "{", items, "}"
    return None


def _source(value: Any, where: str, indent: int, prefix: str, imports: _Imports) -> str:
    """Python source of a value. A section of the config takes a line per field; others one line where they fit.

    The default kinds of thoughts are written by their name: they are long, and nothing is trained on them.
    """
    if type(value) is tuple and value == THOUGHTS:
        return imports.constant("THOUGHTS", "prerl_jax")
    parts = _parts(value, where, imports)
    if parts is None:
        line = _scalar(value, where, imports)
        fits = type(value) is not str or 4 * indent + len(prefix) + len(line) + 1 <= _WIDTH
        return line if fits else _in_pieces(value, indent)
    opening, children, closing = parts
    inner = " " * (4 * indent + 4)
    texts = [(p, _source(child, w, indent + 1, p, imports)) for p, child, w in children]
    comma = "," if type(value) is tuple and len(texts) == 1 else ""
    line = opening + ", ".join(p + text for p, text in texts) + comma + closing
    section = "." not in where and dataclasses.is_dataclass(value)
    if not texts or ("\n" not in line and not section and 4 * indent + len(prefix) + len(line) + 1 <= _WIDTH):
        return line
    return "\n".join([opening, *(f"{inner}{p}{text}," for p, text in texts), " " * (4 * indent) + closing])


def _in_pieces(text: str, indent: int) -> str:
    """A long string as several literals, one per line, which Python joins."""
    inner = " " * (4 * indent + 4)
    pieces: list[str] = []
    while text:
        size = _WIDTH - len(inner)
        while len(line := _scalar(text[:size], "", _Imports())) > _WIDTH - len(inner):
            size -= 1
        pieces.append(line)
        text = text[size:]
    return "\n".join(["(", *(inner + piece for piece in pieces), " " * (4 * indent) + ")"])


def render(config: TrainConfig) -> str:
    """The source of a config file, with every field written out. `load_config` reads it back as an equal config.

    Raises:
      ValueError: a field has a value that cannot be written as source: a lambda, an array, or a function or class that
        is defined inside another one or in a config file. The error names the field.
    """
    imports = _Imports()
    body = _source(config, "", 1, "return ", imports)
    lines = [
        '"""A resolved config, as the run used it. It is a config file: --config takes it."""',
        "",
        *imports.lines(),
        "",
        "",
        "def config():",
        f"    return {body}",
    ]
    return "\n".join(lines) + "\n"


# --- comparing


def difference(old: Any, new: Any, path: str = "") -> list[str]:
    """One line `field.path: old -> new` for each innermost field in which two configs differ; [] if they are equal."""
    if type(old) is type(new) and dataclasses.is_dataclass(old) and not isinstance(old, type):
        pairs = [(f.name, getattr(old, f.name), getattr(new, f.name)) for f in dataclasses.fields(old)]
    elif type(old) is type(new) is tuple and len(old) == len(new):
        pairs = [(str(i), a, b) for i, (a, b) in enumerate(zip(old, new, strict=True))]
    else:
        return [] if old == new else [f"{path}: {' -> '.join(_where_they_differ(repr(old), repr(new)))}"]
    return [line for name, a, b in pairs for line in difference(a, b, f"{path}.{name}" if path else name)]


def _where_they_differ(old: str, new: str) -> list[str]:
    """Both texts. Long ones are cut to a stretch that begins shortly before the first character that differs."""
    if max(len(old), len(new)) <= 2 * _WIDTH:
        return [old, new]
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False))
    start = max(0, len(list(same)) - _WIDTH // 4)
    end = start + _WIDTH
    return ["..." * (start > 0) + text[start:end] + "..." * (len(text) > end) for text in (old, new)]
