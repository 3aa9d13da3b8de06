"""Column maps: which columns of a row make a problem, as data."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from prerl_jax.data.field_types import require_types
from prerl_jax.data.golds import Gold, GoldRule, PlainGold, unit_text
from prerl_jax.data.instructions import Instructions
from prerl_jax.data.options import Options, ShuffledOptions
from prerl_jax.data.problems import Problem, Prompt, as_text, parse_answer, parse_prompt
from prerl_jax.data.values import ABSENT, columns_of, elements, parse_number, parse_text, value_at

Filters = tuple[tuple[str, tuple[str, ...]], ...]
"""(a column, the values that count) for each filter; capital and small letters are equal."""
REST = "*"
"""In `Columns.metadata`: every column that has no other use."""


class ColumnsMissing(ValueError):
    """A row lacks columns of the map.

    Attributes:
        columns: the map.
        row: the row.
    """

    def __init__(self, message: str, columns: Columns, row: Any) -> None:
        super().__init__(message)
        self.columns, self.row = columns, row


@dataclasses.dataclass(frozen=True)
class Dropped:
    """A row without a problem in it: its ground truth is missing, or a filter of the map excludes it.

    Attributes:
        reason: why, in words that are equal for all rows of one kind.
    """

    reason: str


@dataclasses.dataclass(frozen=True)
class Columns:
    """Which columns of a row make a problem.

    A name with dots goes into a value: "reward_model.ground_truth" is an entry of an object, "0.value" an entry of the
    first element of a list. A text on the way that holds JSON is parsed.

    Attributes:
        prompt: the column of the question: text, or a list of {role, content}.
        answer: the column of the ground truth; "" where no verifier reads one, as for programs with tests.
        gold: how the ground truth is read from that column. It is not used where there are `options`.
        options: the options of multiple-choice problems. The prompt lists them, and the answer is a letter.
        context: a column whose text is put before the question; "" for none, here and below.
        source: a column with the name of the data set.
        difficulty: a column with a number, or a text such as "3/8" or "Level 5".
        unit: a column with the answer's unit.
        tolerance: a column with the largest difference of a right number. Of several, as in ".01,.02", the smallest.
        id: a column whose values are distinct: a second row with the same one, but another prompt, is an error.
        metadata: columns that are kept in `Problem.metadata` under their names. "*" means every column that has no
            other use; with ".*" after its name the entries of an object are kept, each under its own name.
        keep: rows are kept only if the columns have one of these values.
        drop: rows are dropped if a column has one of these values, such as (("answer", ("proof", "notfound")),).
        optional: columns of this map that a file, or a row, may lack.

    Raises:
        ValueError: the prompt's column has no name, there are `options` but no answer, or a field has another
            type.
    """

    prompt: str = "prompt"
    answer: str = "answer"
    gold: GoldRule = PlainGold()
    options: Options | ShuffledOptions | None = None
    context: str = ""
    source: str = ""
    difficulty: str = ""
    unit: str = ""
    tolerance: str = ""
    id: str = ""
    metadata: tuple[str, ...] = ()
    keep: Filters = ()
    drop: Filters = ()
    optional: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_types(self)
        if not self.prompt:
            raise ValueError("Columns needs the name of the prompt's column")
        if self.options and not self.answer:
            raise ValueError("Columns with options needs the name of the answer's column")

    @functools.cached_property
    def used(self) -> tuple[str, ...]:
        """The columns that a problem is made of, without those that are only metadata."""
        single = (self.prompt, self.answer, self.context, self.source, self.difficulty, self.unit, self.tolerance)
        filters = tuple(name for name, _ in (*self.keep, *self.drop))
        names = (*single, self.id, *(self.options.names if self.options else ()), *filters)
        return tuple(dict.fromkeys(name for name in names if name))

    @property
    def read_from_file(self) -> tuple[str, ...]:
        """The columns that a file is read for; () for all of them."""
        own = tuple(name.removesuffix(".*") for name in self.metadata)
        return () if REST in own else tuple(dict.fromkeys((*self.used, *own)))

    @functools.cached_property
    def required(self) -> tuple[str, ...]:
        """The columns that a row must have."""
        named = [name.removesuffix(".*") for name in (*self.used, *self.metadata) if name != REST]
        return tuple(name for name in dict.fromkeys(named) if name not in self.optional)

    def missing(self, row: Any) -> list[str]:
        """The required columns that a row lacks."""
        return [name for name in self.required if value_at(row, name) is ABSENT]

    def problem(self, row: Any, instructions: Instructions, source: str) -> Problem | Dropped:
        """The problem of a row.

        Args:
            row: a dict of columns; a list, for a map of names such as "0.value".
            instructions: what the prompt says besides the question.
            source: the name of the data set, where the row gives none.

        Returns:
            The problem, or why there is none.

        Raises:
            ColumnsMissing: the row lacks a column.
            ValueError: a value is of the wrong type, or empty where it must not be.
        """
        if not isinstance(row, dict) and not (isinstance(row, list) and self.prompt[0].isdigit()):
            raise ColumnsMissing(f"expected a JSON object, got a {type(row).__name__}", self, row)
        if excluded := self._excluded(row):
            return Dropped(excluded)
        if missing := self.missing(row):
            raise ColumnsMissing(f"the keys {missing} are missing; it has {columns_of(row)}", self, row)
        question = parse_prompt(value_at(row, self.prompt))
        prompt, gold, options = self._ask(row, question, instructions)
        if not gold.accepted:
            return Dropped(gold.reason)
        for text in (as_text(prompt), *gold.accepted):
            text.encode()  # a lone surrogate such as \ud800 could not be written by the run
        return Problem(
            prompt=prompt,
            answer=gold.accepted[0],
            source=_one_text(self._value(row, self.source), self.source) or source,
            metadata=self._metadata(row) | ({"options": options} if options else {}),
            answer_format=instructions.answer_format,
            alternatives=gold.accepted[1:],
            unit=unit_text(_one_text(self._value(row, self.unit), self.unit)),
            tolerance=_smallest(self._value(row, self.tolerance), self.tolerance),
            difficulty=parse_number(self._value(row, self.difficulty), self.difficulty),
        )

    def identity(self, row: Any) -> str:
        """The row's id, "" if the map names no column for it."""
        return parse_answer(self._value(row, self.id), f"the id `{self.id}`")

    def _value(self, row: Any, name: str) -> Any:
        value = value_at(row, name) if name else None
        return None if value is ABSENT else value

    def _ask(self, row: Any, question: Prompt, instructions: Instructions) -> tuple[Prompt, Gold, tuple[str, ...]]:
        """(the prompt with context, options and instructions; the gold; the texts of the options)."""
        before = after = ""
        options: tuple[str, ...] = ()
        if context := _one_text(self._value(row, self.context), self.context):
            before = f"{context}\n\n"
        answer = value_at(row, self.answer)
        if not self.answer:
            gold = Gold(("",))
        elif self.options is None:
            gold = self._gold(None if answer is ABSENT else answer)
        else:
            values = [self._value(row, name) for name in self.options.names]
            choice = self.options.read(as_text(question), answer, values)
            gold, options = Gold((choice.letter,) if choice.letter else ()), choice.texts
            after = f"\nOptions:\n{choice.listed()}"
        return instructions.ask(question, before, after), gold, options

    def _gold(self, answer: Any) -> Gold:
        try:
            return self.gold(answer)
        except ValueError as error:
            raise ValueError(f"{error} (column `{self.answer}`)") from error

    def _excluded(self, row: Any) -> str:
        """Why a filter excludes the row, "" if none does."""
        for filters, wanted in ((self.keep, True), (self.drop, False)):
            for name, values in filters:
                value = value_at(row, name)
                text = _one_text(value, name, any_scalar=True).strip() if value is not ABSENT else ""
                known = text.rstrip(" .").casefold() in [one.casefold() for one in values]
                if value is not ABSENT and known != wanted:
                    return f"`{name}` is {text[:40]!r}"
        return ""

    def _metadata(self, row: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        opened = {name.removesuffix(".*") for name in self.metadata if name.endswith(".*")}
        if REST in self.metadata:
            heads = {name if name in row else name.partition(".")[0] for name in (*self.used, *opened)}
            found |= {name: value for name, value in row.items() if name not in heads}
        for name in self.metadata:
            if name.endswith(".*"):
                found |= _entries(self._value(row, name[:-2]), name[:-2])
            elif name != REST and (value := value_at(row, name)) is not ABSENT:
                found[name] = value
        return found


def _one_text(value: Any, name: str, any_scalar: bool = False) -> str:
    """A text, also as the only element of a list; "" for None."""
    found = elements(value)
    value = found[0] if len(found) == 1 else value
    if any_scalar and isinstance(value, bool | int | float):
        return str(value)
    if not isinstance(value, str | None):
        raise ValueError(f"`{name}` must be text, got {str(value)[:80]}")
    return value or ""


def _smallest(value: Any, name: str) -> float | None:
    values = value.split(",") if isinstance(value, str) else [value]
    numbers = [number for one in values if (number := parse_number(one, name)) is not None]
    if any(number < 0 for number in numbers):
        raise ValueError(f"`{name}` must not be negative, got {value!r}")
    return min(numbers, default=None)


def _entries(value: Any, name: str) -> dict[str, Any]:
    if isinstance(value, str) and value.lstrip().startswith("{"):
        value = parse_text(value, f"`{name}` is a text")
    if not isinstance(value or {}, dict):
        raise ValueError(f"`{name}` must be an object, got {str(value)[:80]}")
    return value or {}


VERL = Columns(
    prompt="prompt",
    answer="reward_model.ground_truth",
    source="data_source",
    metadata=(REST, "extra_info.*"),
    optional=("data_source", "extra_info"),
)
"""verl's schema."""

PROMPT_ANSWER = Columns(source="source", metadata=(REST, "metadata.*"), optional=("source", "metadata"))
"""`prompt` and `answer`; optionally `source`, and an object `metadata`."""
