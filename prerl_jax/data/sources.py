"""Sources of problems in files: of any layout with a column map, in verl's schema, and JSON lines.

A row without a ground truth is an error in the data: comparing with an empty answer is impossible or, worse, rewards
any response. Such rows are dropped and reported. Any other error in a file is raised here, with the file, the row and
the remedy, so that it does not stop a run later.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

from prerl_jax.data.collecting import Collector, Reading
from prerl_jax.data.columns import PROMPT_ANSWER, VERL, Columns
from prerl_jax.data.field_types import require_types
from prerl_jax.data.files import existing, open_lines, open_rows
from prerl_jax.data.hub_files import HubFiles
from prerl_jax.data.instructions import Instructions
from prerl_jax.data.problems import Problem
from prerl_jax.data.rows import Rows
from prerl_jax.data.table_rows import parquet_rows

Paths = str | tuple[str, ...] | HubFiles
Loaded = tuple[tuple[Problem, ...], tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class FileProblems:
    """Problems from files of any layout: JSON lines, a JSON array, an object with a list in it, parquet or csv.

    The layout is found from the content. Of a parquet file only the columns of the map are read, in batches.

    Attributes:
        path: a file, or "package:NAME/relative" for a file of an installed package, or a tuple of those, whose problems
            are concatenated, or files of the hub.
        columns: which columns make a problem.
        instructions: what the prompt says besides the question.
        rows: the name of the list inside a JSON object, such as "examples"; "" for other layouts.
        source: the name of the data set, for rows that have none of their own.
        deduplicate: keep only the first row of each prompt. The others are not kept in memory.
        skip_bad_rows: leave out rows that cannot be read, with a note, instead of an error.

    Raises:
        ValueError: a field has another type.
    """

    path: Paths
    columns: Columns = Columns()
    instructions: Instructions = Instructions()
    rows: str = ""
    source: str = ""
    deduplicate: bool = False
    skip_bad_rows: bool = False

    def __post_init__(self) -> None:
        require_types(self)

    def load(self) -> Loaded:
        """Reads the files.

        Returns:
            (the problems, in the order of the rows; notes: how many repeat a prompt, what was dropped and why).

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: a file is of another layout, lacks a column, or has a malformed row or no valid problem, or no
                file is named.
        """
        opener = functools.partial(open_rows, names=self.columns.read_from_file, rows=self.rows)
        how = Reading(self.columns, self.instructions, self.source, self.deduplicate, self.skip_bad_rows)
        return _load(self.path, opener, how)


@dataclasses.dataclass(frozen=True)
class ParquetProblems:
    """Problems from parquet files in verl's schema.

    The columns `prompt` (text, or a list of {role, content}) and `reward_model.ground_truth` are required. The columns
    `data_source` (text) and `extra_info` are optional. Every other column becomes metadata, and so do the entries of
    `extra_info`. `FileProblems` reads other columns, or fewer.

    Attributes:
        path: a file, or "package:NAME/relative" for a file of an installed package, or a tuple of those, whose problems
            are concatenated, or files of the hub.
        deduplicate: keep only the first row of each prompt. Published evaluation files repeat a problem for each
            sample, but an evaluation here samples k responses to each problem anyway.
        answer_format: how the prompts ask for the answer, with "{answer}" in its place, as in "#### {answer}"; ""
            leaves it open. A run checks before its first step that its verifier accepts answers in this format.

    Raises:
        ValueError: a field has another type, or `answer_format` does not contain "{answer}".
    """

    path: Paths
    deduplicate: bool = False
    answer_format: str = ""

    def __post_init__(self) -> None:
        require_types(self)
        Instructions(answer_format=self.answer_format)  # raises ValueError

    def load(self) -> Loaded:
        """Reads the files.

        Returns:
            (the problems, in the order of the rows; notes: how many repeat a prompt, what was dropped and why).

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: a file is not parquet, lacks a column, has a malformed row or no valid problem, or no file is
                named.
        """
        how = Reading(VERL, Instructions(answer_format=self.answer_format), deduplicate=self.deduplicate)
        return _load(self.path, functools.partial(parquet_rows, names=()), how)


@dataclasses.dataclass(frozen=True)
class JsonlProblems:
    """Problems from files with one JSON object per line.

    The keys `prompt` (text, or a list of {role, content}) and `answer` are required. The keys `source` (text) and
    `metadata` (an object) are optional. Every other key becomes metadata. Blank lines are skipped. `FileProblems` reads
    other keys and layouts.

    Attributes:
        path: a file, or "package:NAME/relative" for a file of an installed package, or a tuple of those, whose problems
            are concatenated, or files of the hub.
        deduplicate: keep only the first line of each prompt.
        answer_format: how the prompts ask for the answer, with "{answer}" in its place, as in "#### {answer}"; ""
            leaves it open. A run checks before its first step that its verifier accepts answers in this format.

    Raises:
        ValueError: a field has another type, or `answer_format` does not contain "{answer}".
    """

    path: Paths
    deduplicate: bool = False
    answer_format: str = ""

    def __post_init__(self) -> None:
        require_types(self)
        Instructions(answer_format=self.answer_format)  # raises ValueError

    def load(self) -> Loaded:
        """Reads the files.

        Returns:
            (the problems, in the order of the lines; notes: how many repeat a prompt, what was dropped and why).

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: a file is of another layout, a line is malformed (with its number), a file has no valid problem,
                or no file is named.
        """
        how = Reading(PROMPT_ANSWER, Instructions(answer_format=self.answer_format), deduplicate=self.deduplicate)
        return _load(self.path, open_lines, how)


def _load(path: Paths, open_file: Callable[[Path], Rows], reading: Reading) -> Loaded:
    if isinstance(path, HubFiles):
        path = tuple(str(file) for file in path.fetch())
    names = (path,) if isinstance(path, str) else path
    if not names:
        raise ValueError("the path of the problems is an empty tuple; name at least one file")
    collector = Collector(reading)
    for name in names:
        found = existing(name)
        collector.add_file(found, open_file(found), name if len(names) > 1 else "")
    return tuple(collector.problems), collector.notes()
