"""Problems from files: parquet in verl's schema, and JSON lines.

A row with an empty ground truth is an error in the data: comparing with an empty answer is impossible or, worse,
rewards any response. Such rows are dropped and reported. Any other error in a file is raised here, with the file, the
row and the remedy, so that it does not stop a run later.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from prerl_jax.data.problems import Problem, Prompt, parse_answer, parse_prompt
from prerl_jax.models.location import PACKAGE, resolve

REQUIRED_COLUMNS = ("prompt", "reward_model.ground_truth")
REQUIRED_KEYS = ("prompt", "answer")


@dataclasses.dataclass(frozen=True)
class ParquetProblems:
    """Problems from parquet files in verl's schema.

    The columns `prompt` (text, or a list of {role, content}) and `reward_model.ground_truth` are required. The columns
    `data_source` (text) and `extra_info` are optional. Every other column becomes metadata, and so do the entries of
    `extra_info`.

    Attributes:
        path: a file, or "package:NAME/relative" for a file of an installed package, or a tuple of those, whose problems
            are concatenated.
        deduplicate: keep only the first row of each prompt. Published evaluation files repeat a problem for each
            sample, but an evaluation here samples k responses to each problem anyway.
        answer_format: how the prompts ask for the answer, with "{answer}" in its place, as in "#### {answer}"; ""
            leaves it open. A run checks before its first step that its verifier accepts answers in this format.

    Raises:
        ValueError: `answer_format` does not contain "{answer}".
    """

    path: str | tuple[str, ...]
    deduplicate: bool = False
    answer_format: str = ""

    def __post_init__(self) -> None:
        _check_format(self.answer_format)

    def load(self) -> tuple[tuple[Problem, ...], tuple[str, ...]]:
        """Reads the files.

        Returns:
            (the problems, in the order of the rows; for each dropped row, one line that says why).

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: a file is not parquet, lacks a column, has a malformed row or no valid problem, or no file is
                named.
        """
        return _collect(self.path, _parquet_rows, self.deduplicate, self.answer_format)


@dataclasses.dataclass(frozen=True)
class JsonlProblems:
    """Problems from files with one JSON object per line.

    The keys `prompt` (text, or a list of {role, content}) and `answer` are required. The keys `source` (text) and
    `metadata` (an object) are optional. Every other key becomes metadata. Blank lines are skipped.

    Attributes:
        path: a file, or "package:NAME/relative" for a file of an installed package, or a tuple of those, whose problems
            are concatenated.
        deduplicate: keep only the first line of each prompt.
        answer_format: how the prompts ask for the answer, with "{answer}" in its place, as in "#### {answer}"; ""
            leaves it open. A run checks before its first step that its verifier accepts answers in this format.

    Raises:
        ValueError: `answer_format` does not contain "{answer}".
    """

    path: str | tuple[str, ...]
    deduplicate: bool = False
    answer_format: str = ""

    def __post_init__(self) -> None:
        _check_format(self.answer_format)

    def load(self) -> tuple[tuple[Problem, ...], tuple[str, ...]]:
        """Reads the files.

        Returns:
            (the problems, in the order of the lines; for each dropped line, one text that says why).

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: a line is malformed (with its number), a file has no valid problem, or no file is named.
        """
        return _collect(self.path, _jsonl_rows, self.deduplicate, self.answer_format)


def _check_format(answer_format: str) -> None:
    if answer_format and "{answer}" not in answer_format:
        raise ValueError(
            f'answer_format is {answer_format!r}, without "{{answer}}", which stands in the place of the answer; write '
            'for instance "#### {answer}".'
        )


def _existing(path: str) -> Path:
    found = resolve(path) if path.startswith(PACKAGE) else Path(path).expanduser()
    if not found.is_file():
        raise FileNotFoundError(f"no data file at {path!r} (looked for {found.absolute()})")
    return found


def _collect(
    path: str | tuple[str, ...],
    rows: Callable[[Path], Iterable[tuple[str, Problem]]],
    deduplicate: bool,
    answer_format: str,
) -> tuple[tuple[Problem, ...], tuple[str, ...]]:
    paths = (path,) if isinstance(path, str) else path
    if not paths:
        raise ValueError("the path of the problems is an empty tuple; name at least one file")
    problems: list[Problem] = []
    dropped: list[str] = []
    seen: set[Prompt] = set()
    for one in paths:
        before, out = len(problems), len(dropped)
        for where, problem in rows(_existing(one)):
            where = where if len(paths) == 1 else f"{one}, {where}"
            if not problem.answer.strip():
                dropped.append(f"{where}: empty ground truth")
            elif deduplicate and problem.prompt in seen:
                dropped.append(f"{where}: an earlier row has the same prompt")
            else:
                seen.add(problem.prompt)
                problems.append(dataclasses.replace(problem, answer_format=answer_format))
        if len(problems) == before:
            first = f", the first: {dropped[out]}" if len(dropped) > out else ""
            raise ValueError(f"{one} has no valid problem ({len(dropped) - out} rows dropped{first})")
    return tuple(problems), tuple(dropped)


def _parquet_rows(path: Path) -> Iterator[tuple[str, Problem]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not a readable parquet file: {error}") from error
    _require_columns(path, table.schema)
    for index, row in enumerate(table.to_pylist()):
        try:
            problem = _from_verl(row)
        except ValueError as error:
            raise ValueError(f"{path}, row {index}: {error}") from error
        yield f"row {index}", problem


def _require_columns(path: Path, schema: Any) -> None:
    import pyarrow.types

    present = list(schema.names)
    for field in schema:
        if pyarrow.types.is_struct(field.type):
            present += [f"{field.name}.{inner.name}" for inner in field.type]
    missing = [name for name in REQUIRED_COLUMNS if name not in present]
    if missing:
        raise ValueError(f"{path} lacks the columns {missing} of verl's schema; it has {sorted(present)}")


def _from_verl(row: dict[str, Any]) -> Problem:
    rest = {name: value for name, value in row.items() if name not in ("prompt", "reward_model", "data_source")}
    extra = rest.pop("extra_info", None)
    if not isinstance(row.get("data_source"), str | None):
        raise ValueError(f"`data_source` must be text, got {row['data_source']!r}")
    return Problem(
        prompt=parse_prompt(row["prompt"]),
        answer=parse_answer((row["reward_model"] or {}).get("ground_truth")),
        source=row.get("data_source") or "",
        metadata=rest | extra if isinstance(extra, dict) else rest,
    )


def _jsonl_rows(path: Path) -> Iterator[tuple[str, Problem]]:
    with path.open("rb") as lines:  # as bytes, only \n ends a line; JSON strings may hold Unicode line separators
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                problem = _from_json(json.loads(line.decode("utf-8-sig")))
            except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors too
                raise ValueError(f"{path}, line {number}: {error}") from error
            yield f"line {number}", problem


def _from_json(row: Any) -> Problem:
    if not isinstance(row, dict):
        raise ValueError(f"expected a JSON object, got a {type(row).__name__}")
    missing = [key for key in REQUIRED_KEYS if key not in row]
    if missing:
        raise ValueError(f"the keys {missing} are missing; it has {sorted(row)}")
    json.dumps(row, ensure_ascii=False).encode()  # a lone surrogate such as \ud800 could not be written by the run
    rest = {key: value for key, value in row.items() if key not in ("prompt", "answer", "source", "metadata")}
    metadata, source = row.get("metadata") or {}, row.get("source") or ""
    if not isinstance(metadata, dict) or not isinstance(source, str):
        raise ValueError("`metadata` must be an object and `source` text")
    return Problem(parse_prompt(row["prompt"]), parse_answer(row["answer"]), source, rest | metadata)
