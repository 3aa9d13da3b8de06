"""Which files of a data set repository belong to a subset and a split.

The `configs` of its README.md say it (https://huggingface.co/docs/hub/datasets-manual-configuration). Where there are
none, the names of the files do: `main/train-00000-of-00001.parquet`, `data/train-*.parquet`, `gsm8k_train.jsonl`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

SUFFIXES = (".parquet", ".jsonl", ".json", ".csv", ".tsv")
_DESCRIPTIONS = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json")
_SPELLINGS = (
    ("train", "training"),
    ("test", "testing", "eval", "evaluation"),
    ("validation", "valid", "val", "dev"),
)
_SHARD = re.compile(r"-\d+-of-\d+(-[0-9a-f]+)?$")


def data_files(names: Sequence[str], configs: Sequence[Mapping[str, Any]], subset: str, split: str) -> tuple[str, ...]:
    """The files that hold a split.

    Args:
      names: all files of the repository, sorted.
      configs: the `configs` of its README.md; () where there are none.
      subset: the name of the subset, which the hub calls a config; "" for the only one, or the default one.
      split: the name of the split.

    Raises ValueError, which lists what there is: there is no such subset or split, or several files may be the split.
    """
    described = {str(config.get("config_name", "default")): config for config in configs}
    described = {name: config for name, config in described.items() if {"data_files", "data_dir"} & config.keys()}
    if not described:
        return _by_name(names, subset, split)
    config = described[_chosen(described, subset)]
    folder = str(config["data_dir"]).strip("./") + "/" if config.get("data_dir") else ""
    if "data_files" not in config:
        return _by_name([name for name in names if name.startswith(folder)], "", split)
    patterns = _patterns(config["data_files"])
    if split not in patterns:
        raise ValueError(f"there is no split {split!r}, only {sorted(patterns)}")
    return matching(names, [folder + pattern for pattern in patterns[split]])


def matching(names: Sequence[str], patterns: Sequence[str]) -> tuple[str, ...]:
    """The data files that match patterns, in which * stands for no "/" and ** for any; or that lie in a folder.

    Raises ValueError where a pattern matches none.
    """
    found: dict[str, None] = {}
    for pattern in patterns:
        try:
            expression = re.compile(_expression(pattern.removeprefix("./")) + "(/.*)?")
        except re.error as error:
            raise ValueError(f"{pattern!r} is no pattern of file names: {error}") from error
        here = [name for name in _data(names) if expression.fullmatch(name)]
        if not here:
            raise ValueError(f"no data file matches {pattern!r}; {_listed(names)}")
        found.update(dict.fromkeys(here))
    return tuple(found)


def _chosen(described: Mapping[str, Mapping[str, Any]], subset: str) -> str:
    if subset in described:
        return subset
    defaults = [name for name, config in described.items() if config.get("default") or name == "default"]
    if not subset and (len(described) == 1 or defaults):
        return defaults[0] if defaults else next(iter(described))
    wrong = f"there is no subset {subset!r}" if subset else "it has several subsets"
    raise ValueError(f"{wrong}; name one of {sorted(described)}")


def _patterns(data_files: Any) -> dict[str, list[str]]:
    """{split: its patterns} of a config. Files without a split are the split "train"."""
    if isinstance(data_files, Mapping):
        data_files = [{"split": split, "path": path} for split, path in data_files.items()]
    patterns: dict[str, list[str]] = {}
    for entry in data_files if isinstance(data_files, list) else [data_files]:
        split, path = (entry.get("split"), entry.get("path")) if isinstance(entry, Mapping) else ("train", entry)
        paths = path if isinstance(path, list) else [path]
        texts = [pattern for pattern in paths if isinstance(pattern, str)]
        if split is None or len(texts) < len(paths):
            raise ValueError(f'the data_files in its README.md are malformed: {entry!r:.200}. Name them: files="..."')
        patterns.setdefault(str(split), []).extend(texts)
    return patterns


def _by_name(names: Sequence[str], subset: str, split: str) -> tuple[str, ...]:
    inside = [name for name in _data(names) if not subset or subset in name.split("/")[:-1]]
    if not inside:
        where = f" in a folder {subset!r}" if subset else ""
        raise ValueError(f"there is no data file{where}; {_listed(names)}. {_other_place(names)}")
    found = [name for name in inside if _names(name, split)]
    if not found and split == "train" and not any(_names(name, words[0]) for name in inside for words in _SPELLINGS):
        found = inside
    if not found:
        raise ValueError(f'no data file has a name with {split!r}; {_listed(inside)}. Name them: files="..."')
    if len({_stem(name, split) for name in found}) > 1:
        raise ValueError(
            f"several data files may be the split {split!r}: {', '.join(found[:20])}. Name the subset, or the files: "
            'files="..."'
        )
    return tuple(found)


def _other_place(names: Sequence[str]) -> str:
    """Where the data files may be, if none has a fitting name."""
    if not _data(names) and any(name.endswith(".py") for name in names):
        return (
            "Its data come from a script, and no script is run. Use a copy in parquet; the hub may have one under "
            "OWNER/NAME@refs/convert/parquet"
        )
    return 'Name them: files="..."'


def _names(name: str, split: str) -> bool:
    """Whether the split is a word of the file's name, or of its folder's."""
    words = next((words for words in _SPELLINGS if split in words), (split,))
    either = "|".join(re.escape(word) for word in words)
    return re.search(rf"(^|[^a-z0-9])({either})([^a-z0-9]|$)", name, re.IGNORECASE) is not None


def _stem(name: str, split: str) -> str:
    """What the files of one split have in common: the folder, where it is the split's, or the name without a shard."""
    folder, _, file = name.rpartition("/")
    stem, _, suffix = file.rpartition(".")
    return f"{folder}/*.{suffix}" if _names(folder, split) else f"{folder}/{_SHARD.sub('', stem)}.{suffix}"


def _data(names: Sequence[str]) -> list[str]:
    return [n for n in names if n.lower().endswith(SUFFIXES) and n.rpartition("/")[2] not in _DESCRIPTIONS]


def _listed(names: Sequence[str]) -> str:
    data = _data(names)
    more = f" and {len(data) - 20} more" if len(data) > 20 else ""
    return f"the data files are {', '.join(data[:20])}{more}" if data else f"its files are {', '.join(names[:20])}"


def _expression(pattern: str) -> str:
    """A pattern of files as a regular expression."""
    special = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]/]+\])", pattern)
    return "".join(special.get(part, _literal_or_set(part)) for part in parts)


def _literal_or_set(part: str) -> str:
    return part.replace("[!", "[^", 1) if part.startswith("[") and part.endswith("]") else re.escape(part)
