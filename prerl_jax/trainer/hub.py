"""The commits of what a run takes from the Hugging Face hub, and its download, once on each host.

A config names a model or a data set of the hub by a branch or a tag, or by no revision, and that moves on. A run
replaces it by the commit that it is when the run first starts. hub.json in the workdir records these commits, so a
resumed run takes the same ones.
"""

from __future__ import annotations

import dataclasses
import json
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from prerl_jax.config.schema import ModelSpec, TrainConfig
from prerl_jax.data.hub import HubProblems
from prerl_jax.data.hub_files import HubFiles, dataset
from prerl_jax.models.hub import Repo
from prerl_jax.models.location import hub_model, resolve
from prerl_jax.runtime.distributed import gather_text, share_errors
from prerl_jax.runtime.metrics import write_json

FILE = "hub.json"


def pinned(config: TrainConfig, workdir: Path | None = None) -> tuple[TrainConfig, dict[str, str]]:
    """Replaces every repository of the hub in a config by the repository at a commit. Every process must call it.

    Args:
      config: the config; the model, and `HubFiles` and `HubProblems` wherever they are in it.
      workdir: the run's workdir. Commits that its hub.json records are taken from there.

    Returns:
      (the config, {"model owner/name@revision": its commit}), the same on all processes.

    Raises what `Repo.pinned` raises, on all processes.
    """
    with share_errors("looking up commits on the hub"):
        found = _commits(config, workdir) if jax.process_index() == 0 else {}
    commits = json.loads(gather_text(json.dumps(found))[0])
    return _replaced(config, lambda value: _at_commit(value, commits)), commits


def write_commits(workdir: Path, commits: Mapping[str, str]) -> None:
    """Writes hub.json into a workdir, or removes it where the run takes nothing from the hub."""
    if commits:
        write_json(workdir / FILE, commits)
    else:
        (workdir / FILE).unlink(missing_ok=True)


def fetch(config: TrainConfig) -> None:
    """Downloads what a config takes from the hub: first one process of each host, then the others find it in the cache.

    Every process must call it. An error is raised on all of them.
    """
    hosts = gather_text(socket.gethostname())
    first = hosts.index(hosts[jax.process_index()]) == jax.process_index()
    for turn in (True, False):
        with share_errors("downloading from the hub"):
            if first == turn:
                _fetch(config)


def _commits(config: TrainConfig, workdir: Path | None) -> dict[str, str]:
    file = None if workdir is None else workdir / FILE
    known = json.loads(file.read_text()) if file and file.is_file() else {}
    found = {}
    for part in _parts(config):
        repo = _repo(part)
        if repo is not None and _key(repo) not in found:
            found[_key(repo)] = known.get(_key(repo)) or repo.pinned().revision
    return found


def _fetch(config: TrainConfig) -> None:
    for part in _parts(config):
        if isinstance(part, ModelSpec) and hub_model(part.path):
            resolve(part.path, weights=True)
        elif isinstance(part, HubProblems):
            part.hub_files.fetch()
        elif isinstance(part, HubFiles):
            part.fetch()


def _repo(part: Any) -> Repo | None:
    """The repository that a part of a config is in, if any."""
    if isinstance(part, ModelSpec):
        return hub_model(part.path)
    return dataset(part.repo) if isinstance(part, HubFiles | HubProblems) else None


def _at_commit(part: Any, commits: Mapping[str, str]) -> Any:
    """A part of a config with its repository at the commit, or the part itself."""
    field = "path" if isinstance(part, ModelSpec) else "repo"
    repo = _repo(part)
    commit = None if repo is None else commits.get(_key(repo))
    if repo is None or commit is None:
        return part
    return dataclasses.replace(part, **{field: str(dataclasses.replace(repo, revision=commit))})


def _key(repo: Repo) -> str:
    return f"{repo.kind} {repo}"


def _parts(value: Any) -> Iterator[Any]:
    """A value, and everything inside the dataclasses and tuples that it is made of."""
    yield value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = tuple(getattr(value, field.name) for field in dataclasses.fields(value))
    if isinstance(value, tuple | list):
        for part in value:
            yield from _parts(part)


def _replaced(value: Any, change: Callable[[Any], Any]) -> Any:
    """A value in which `change` was applied to everything that `_parts` gives. What has no change stays the same."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        old = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
        new = {name: _replaced(part, change) for name, part in old.items()}
        changed = {name: part for name, part in new.items() if part is not old[name]}
        value = dataclasses.replace(value, **changed) if changed else value
    elif type(value) in (tuple, list):
        parts = [_replaced(part, change) for part in value]
        value = value if all(a is b for a, b in zip(parts, value, strict=True)) else type(value)(parts)
    return change(value)
