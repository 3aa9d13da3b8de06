"""Collects the problems of rows: what is dropped, what is repeated, and what is an error."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from prerl_jax.data.columns import Columns, ColumnsMissing, Dropped
from prerl_jax.data.golds import solution_rule
from prerl_jax.data.instructions import Instructions
from prerl_jax.data.maps import remedy
from prerl_jax.data.problems import Problem, Prompt
from prerl_jax.data.rows import RestUnread, Rows
from prerl_jax.data.values import columns_of

SHOWN = 10
"""Rows of one kind that get a note each; further ones are only counted."""
REPEATED = "an earlier row has the same prompt"
OTHER_ANSWER = "an earlier row has the same prompt and another answer"


@dataclasses.dataclass(frozen=True)
class Reading:
    """How rows become problems. The fields are those of `FileProblems`."""

    columns: Columns
    instructions: Instructions
    source: str = ""
    deduplicate: bool = False
    skip_bad_rows: bool = False


class Tally:
    """Counts rows by kind, and keeps a line for the first ones of each kind."""

    def __init__(self) -> None:
        """Begins with no row."""
        self.counts: collections.Counter[str] = collections.Counter()
        self.lines: list[str] = []

    def add(self, kind: str, line: str) -> None:
        """Counts a row of this kind, which the line describes."""
        self.counts[kind] += 1
        if self.counts[kind] <= SHOWN:
            self.lines.append(line)

    def notes(self) -> tuple[str, ...]:
        """The kinds with more rows than are shown, and the line of each row that is shown."""
        many = [f"{count:,} rows: {kind}" for kind, count in self.counts.items() if count > SHOWN]
        return (*many, *self.lines)


def worked_solutions(problems: Sequence[Problem]) -> tuple[str, ...]:
    """A note if most answers are worked solutions, which no response repeats word by word."""
    rules = collections.Counter(rule for problem in problems if (rule := solution_rule(problem.answer)))
    if 2 * rules.total() <= len(problems):
        return ()
    first = next(problem.answer for problem in problems if solution_rule(problem.answer))
    rule = rules.most_common(1)[0][0]
    return (
        f"{rules.total():,} of {len(problems):,} answers are worked solutions, and a verifier that compares answers "
        f"would find almost no response right: {first[:60]!r}. Read the final answer with Columns(..., gold={rule}), "
        "or name the column that has it",
    )


class Collector:
    """Collects the problems of files, row by row. Of rows that are dropped it keeps no more than their number.

    Attributes:
        problems: the problems so far.
    """

    def __init__(self, reading: Reading) -> None:
        """Begins without a problem.

        Args:
            reading: how rows become problems.
        """
        self.problems: list[Problem] = []
        self._reading = reading
        self._dropped = Tally()
        self._repeated = Tally()
        self._answers: dict[Prompt, str] = {}
        self._prompts: dict[str, Prompt] = {}  # by the row's id

    def add_file(self, path: Path, rows: Rows, name: str = "") -> None:
        """Adds the problems of a file.

        Args:
            path: is named in errors.
            rows: the rows of the file.
            name: begins every note; "" where there is only one file.

        Raises:
            ValueError: the file lacks a column, has a bad row, or has no valid problem.
        """
        reading, before, dropped = self._reading, len(self.problems), self._dropped.counts.total()
        if rows.columns is not None and (missing := reading.columns.missing(rows.columns)):
            have = columns_of(rows.columns)
            todo = remedy(reading.columns, rows.columns, has_values=False)
            raise ValueError(f"{path} lacks the columns {missing}; it has {have}. {todo}")
        for where, read in rows.rows:
            place = f"{name}, {where}" if name else where
            try:
                row = read()
                problem = reading.columns.problem(row, reading.instructions, reading.source)
                self._take(problem, reading.columns.identity(row), place)
            except (ValueError, RecursionError) as error:
                if not reading.skip_bad_rows:
                    todo = _SKIP
                    if isinstance(error, ColumnsMissing) and len(self.problems) == before:
                        todo = remedy(error.columns, error.row)
                    raise ValueError(f"{path}, {where}: {error}. {todo}") from error
                kind = "the rest of a file was not read" if isinstance(error, RestUnread) else "bad rows"
                self._dropped.add(kind, f"{place}: {error}")
        if len(self.problems) == before:
            count, lines = self._dropped.counts.total() - dropped, self._dropped.lines
            first = f", the first: {lines[-min(count, len(lines))]}" if count and lines else ""
            raise ValueError(f"{path} has no valid problem ({count:,} rows dropped{first})")

    def notes(self) -> tuple[str, ...]:
        """Whether answers are worked solutions, how many rows repeat a prompt, and what was dropped: a line each."""
        repeated: tuple[str, ...] = ()
        if self._repeated.lines:
            counts = self._repeated.counts
            repeated = (
                f"prompts of an earlier row repeated: {counts.total():,} (the first: {self._repeated.lines[0]}), "
                f"{counts[OTHER_ANSWER]:,} of them with another answer; deduplicate=True keeps the first row of each",
            )
        return (*worked_solutions(self.problems), *repeated, *self._dropped.notes())

    def _take(self, problem: Problem | Dropped, identity: str, place: str) -> None:
        if isinstance(problem, Dropped):
            self._dropped.add(problem.reason, f"{place}: {problem.reason}")
            return
        if problem.prompt in self._answers:
            same = self._answers[problem.prompt] == problem.answer
            kind = REPEATED if same else OTHER_ANSWER
            if self._reading.deduplicate:
                self._dropped.add(kind, f"{place}: {kind}")
                return
            self._repeated.add(kind, place)
        elif identity and identity in self._prompts:
            raise ValueError(f"the id {identity!r} is that of an earlier row with another prompt")
        if identity:
            self._prompts[identity] = problem.prompt
        self._answers[problem.prompt] = problem.answer
        self.problems.append(problem)


_SKIP = "Correct the row, or read the file with FileProblems(..., skip_bad_rows=True), which leaves it out"
