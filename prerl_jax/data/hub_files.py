"""Data files of the Hugging Face hub, in the place of a path: `FileProblems(HubFiles("owner/name"), columns)`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from prerl_jax.data.field_types import require_types
from prerl_jax.data.hub_splits import data_files, matching
from prerl_jax.models.hub import DATASET, FIRST, Repo, repo_of


@dataclasses.dataclass(frozen=True)
class HubFiles:
    """The files of a split of a data set on the hub.

    They are found by the README.md of the repository or, where that does not say it, by their names. Besides README.md
    only parquet, JSON, csv and tsv files are downloaded, into the cache of huggingface_hub.

    Attributes:
        repo: "owner/name", or "owner/name@REVISION" with a branch, a tag or a commit. A run replaces it by the commit.
        subset: the name of the subset, which the hub calls a config, such as "main"; "" for the only one.
        split: such as "train".
        files: the names of the files, or patterns such as "data/part-*.parquet", instead of a subset and a split.

    Raises:
        ValueError: `repo` is not of that form, or a field has another type.
    """

    repo: str
    subset: str = ""
    split: str = "train"
    files: str | tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_types(self)
        dataset(self.repo)

    def fetch(self) -> tuple[Path, ...]:
        """Downloads the files that are not in the cache, and returns their local paths, in the order of their names.

        Raises:
            OSError: the repository is not there, or gated, or can neither be reached nor is it in the cache.
            ValueError: it has no such subset, split or files; the message lists what it has.
        """
        repo = dataset(self.repo).pinned()
        try:
            names = self._chosen(repo)
        except ValueError as error:
            raise ValueError(f"the data set {self.repo!r} of the hub: {error}") from error
        folder = repo.fetch(names)
        return tuple(folder / name for name in names)

    def _chosen(self, repo: Repo) -> tuple[str, ...]:
        names = repo.files()
        if self.files:
            return matching(names, (self.files,) if isinstance(self.files, str) else self.files)
        return data_files(names, _configs(repo, names), self.subset, self.split)


def dataset(text: str) -> Repo:
    """The repository of "owner/name" or "owner/name@REVISION". Raises ValueError for another text."""
    repo = repo_of(text, DATASET)
    if repo is None:
        raise ValueError(f"{text!r} names no data set of the hub; write OWNER/NAME or OWNER/NAME@REVISION")
    return repo


def _configs(repo: Repo, names: tuple[str, ...]) -> tuple[dict, ...]:
    """The `configs` in the head of the repository's README.md; () where there are none."""
    import yaml
    from huggingface_hub import metadata_load

    card = FIRST[DATASET]
    if card not in names:
        return ()
    try:
        found = (metadata_load(repo.fetch([card]) / card) or {}).get("configs") or ()
        if isinstance(found, list | tuple) and all(isinstance(config, dict) for config in found):
            return tuple(found)
        raise ValueError("`configs` is not a list of objects")
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f'the head of its {card} cannot be read ({error}). Name the files: files="..."') from error
