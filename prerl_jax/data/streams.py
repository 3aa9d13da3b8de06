"""Streams of problems without an end that is known: a growing folder of JSON lines, or any iterator of Python.

A stream is one sequence, whenever it is read: position p always has the same problem. So a run that resumes goes on
with the problem after the last one that it has trained on.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from prerl_jax.data.columns import PROMPT_ANSWER, Columns, Dropped
from prerl_jax.data.field_types import require_types
from prerl_jax.data.folder import Arrived, FolderReader
from prerl_jax.data.instructions import Instructions
from prerl_jax.data.json_rows import LONGEST_LINE, read_json
from prerl_jax.data.problems import Problem

THEN = ("end", "repeat")
"""What a stream can do when it has run dry."""


class Reader(Protocol):
    """An open stream, on process 0."""

    def read(self) -> Arrived | None:
        """The next problem, unread; None if there is none now."""

    def position(self) -> dict[str, Any]:
        """The position after the last problem that was read, as JSON; {} before the first one."""

    def move(self, position: dict[str, Any]) -> None:
        """Goes to a position. Raises ValueError where the stream has other problems before it."""


@runtime_checkable
class ProblemStream(Protocol):
    """A config value that yields problems as they arrive. Any frozen dataclass with these members is one."""

    @property
    def identity(self) -> str:
        """The name of the stream. A checkpoint of a stream with another name has no position for this one."""

    @property
    def wait(self) -> float:
        """Seconds to wait for a further problem, 0 or more, before the stream is dry."""

    @property
    def then(self) -> str:
        """What happens then: "end" ends the run, "repeat" begins the stream again."""

    @property
    def skip_bad_rows(self) -> bool:
        """Leave out rows that cannot be read, and count them, instead of an error."""

    def open(self) -> Reader:
        """The stream at its beginning."""


@dataclasses.dataclass(frozen=True)
class StreamProblems:
    """Problems from a folder of JSON lines that grows during the run.

    The files whose names end with ".jsonl" are read in the order of their names. The last one may grow by whole lines;
    a line without its line feed is left for later. As soon as a file with a later name is there, the one before it is
    complete, and may not change; it may be removed once a checkpoint lies in a later file.

    Attributes:
        folder: the folder. Process 0 reads it.
        columns: which columns make a problem.
        instructions: what the prompt says besides the question.
        source: the name of the data set, for rows that have none of their own.
        skip_bad_rows: leave out rows that cannot be read, and count them, instead of an error.
        wait: seconds to wait for a further problem, 0 or more.
        then: what happens after that: "end" ends the run, which the same command continues when there are more;
            "repeat" reads the folder again from its first file.

    Raises:
        ValueError: a field is outside these ranges.
    """

    folder: str
    columns: Columns = PROMPT_ANSWER
    instructions: Instructions = Instructions()
    source: str = ""
    skip_bad_rows: bool = False
    wait: float = 600.0
    then: str = "end"

    def __post_init__(self) -> None:
        require_types(self)
        _check(self.wait, self.then)

    @property
    def identity(self) -> str:
        """The folder."""
        return self.folder

    def open(self) -> FolderReader:
        """The folder at its first file. Raises FileNotFoundError if there is no such folder."""
        return FolderReader(Path(self.folder).expanduser(), self._problem)

    def _problem(self, line: bytes) -> Problem | Dropped:
        if len(line) > LONGEST_LINE:
            raise ValueError(f"the line has more than {LONGEST_LINE:,} bytes; remove or split it")
        return self.columns.problem(read_json(line.decode("utf-8-sig")), self.instructions, self.source)


@dataclasses.dataclass(frozen=True)
class IteratorProblems:
    """`IteratorProblems("package.module:function")`: problems from any iterator.

    `function(start)` returns an iterable of `Problem`s without the first `start` ones. A run that resumes calls it with
    the number of problems that it has taken. The iterator may block until there is a problem. Process 0 calls it.

    Attributes:
        function: "package.module:function".
        skip_bad_rows: leave out what is no `Problem`, and count it, instead of an error.
        then: what happens when the iterator ends: "end" ends the run, "repeat" calls function(0) again.

    Raises:
        ValueError: the module cannot be imported or has no such function, or `then` is neither.
    """

    function: str
    skip_bad_rows: bool = False
    then: str = "end"

    def __post_init__(self) -> None:
        require_types(self)
        _check(self.wait, self.then)
        _function(self.function)

    @property
    def wait(self) -> float:
        """0: an iterator that has ended yields nothing more."""
        return 0.0

    @property
    def identity(self) -> str:
        """The function."""
        return self.function

    def open(self) -> IteratorReader:
        """The iterator at its first problem."""
        return IteratorReader(_function(self.function), self.function)


class IteratorReader:
    """Reads an iterator of problems.

    Args:
        begin: the number of problems to leave out -> an iterable of the others.
        name: names it in errors.
    """

    def __init__(self, begin: Callable[[int], Iterable[Any]], name: str) -> None:
        self._begin, self._name = begin, name
        self._taken = 0
        self._iterator: Iterator[Any] | None = None

    def read(self) -> Arrived | None:
        """The next problem; None where the iterator has ended."""
        if self._iterator is None:
            self._iterator = iter(self._begin(self._taken))
        for problem in itertools.islice(self._iterator, 1):
            self._taken += 1
            return f"{self._name}, problem {self._taken - 1}", functools.partial(_problem, problem)
        return None

    def position(self) -> dict[str, Any]:
        """How many problems were taken."""
        return {"taken": self._taken} if self._taken else {}

    def move(self, position: dict[str, Any]) -> None:
        """Goes to a position; {} is the beginning."""
        self._taken, self._iterator = position.get("taken", 0), None


def _problem(value: Any) -> Problem:
    if not isinstance(value, Problem):
        raise ValueError(f"the iterator must yield Problem(prompt, answer), got {str(value)[:80]!r}")
    return value


def _check(wait: float, then: str) -> None:
    if not 0 <= wait < math.inf:
        raise ValueError(f"the stream's wait is {wait!r}; it must be 0 or more seconds, and finite")
    if then not in THEN:
        raise ValueError(f"the stream's then is {then!r}; it is one of {THEN}")


def _function(path: str) -> Callable[[int], Iterable[Any]]:
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{path!r} must be 'package.module:function', importable: {error}") from error
    if not callable(found):
        raise ValueError(f"{path!r} is a {type(found).__name__}; it must be a function")
    return found
