"""Values of data files: how a name finds one in a row, and how texts that hold numbers, lists or objects are read."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

ABSENT = object()
"""What `value_at` gives for a name that the row lacks."""
LONGEST_TEXT = 1_000_000
"""Characters. A longer prompt is an error in the data."""
_LIST_OF_TEXTS = re.compile(r"""\s*\[\s*["'].*["']\s*\]\s*\Z""", re.DOTALL)
_LIST_OF_NOTHING = re.compile(r"\s*\[\s*(?:(?:null|None)\s*(?:,\s*(?:null|None)\s*)*)?\]\s*\Z")
_ANY_LIST = re.compile(r"\s*\[.*\]\s*\Z", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")  # "\frac" in JSON is a form feed and "rac", "\nu" a line feed and "u"
_NUMBER = re.compile(
    r"([-+]?\d{1,40}(?:\.\d{0,40})?(?:[eE][-+]?\d{1,3})?|[-+]?\.\d{1,40})(?:\s*/\s*(\d{1,40}))?", re.ASCII
)


NOTHING = ("", "?", "na", "n/a", "nan", "none", "null")
"""Texts, in small letters, that tables write where there is no value."""


def value_at(row: Any, name: str) -> Any:
    """The value that a name with dots points at, ABSENT if there is none; None inside None."""
    if isinstance(row, dict) and name in row:
        return row[name]
    if isinstance(row, str):
        row = parse_text(row, f"`{name}` is looked for in a text")
        return value_at(row, name) if not isinstance(row, str) else ABSENT
    if row is None:
        return None
    head, dot, rest = name.partition(".")
    if isinstance(row, list) and head.isascii() and head.isdigit() and len(head) < 6:
        inner = row[int(head)] if int(head) < len(row) else ABSENT
    else:
        inner = row.get(head, ABSENT) if isinstance(row, dict) else ABSENT
    return value_at(inner, rest) if dot and inner is not ABSENT else inner


def elements(value: Any) -> list[Any]:
    """The elements of a list, also of a list of texts in a text, such as '["a", "b"]'; else the value alone.

    A list of nothing in a text, such as '[]' and '[null]', is a list, too. '[1, 2]' is a text, such as an interval.

    Raises:
        ValueError: a text begins and ends as such a list, and cannot be read, or was written with single backslashes.
    """
    if isinstance(value, list):
        return value
    if not isinstance(value, str) or not (_LIST_OF_TEXTS.match(value) or _LIST_OF_NOTHING.match(value)):
        return [value]
    found = parse_text(value, "it begins as a list of texts")
    if any(isinstance(one, str) and _CONTROL.search(one) for one in found):
        raise ValueError(f"the backslashes in a list of texts are not doubled: {value[:80]!r}")
    return found if isinstance(found, list) else [value]


def list_elements(value: Any) -> list[Any]:
    """The elements of a list, also of any list in a text, such as '[13]' and '["1", 2]'; else the value alone.

    Raises:
        ValueError: as for `elements`.
    """
    found = elements(value)
    if found != [value] or not isinstance(value, str) or not _ANY_LIST.match(value):
        return found
    try:
        parsed = parse_text(value, "it begins as a list")
    except ValueError:  # such as [x, y], which is no list of JSON
        return found
    if not isinstance(parsed, list):
        return found
    if any(isinstance(one, str) and _CONTROL.search(one) for one in parsed):
        raise ValueError(f"the backslashes in a list of texts are not doubled: {value[:80]!r}")
    return parsed


def columns_of(row: Any) -> list[str] | str:
    """What an error says of a row's columns: their names, and those inside its objects."""
    if not isinstance(row, Mapping):
        return f"a list of {len(row)}" if isinstance(row, Sequence) else f"a {type(row).__name__}"
    inner = [f"{name}.{key}" for name, value in row.items() for key in _keys(value)]
    return sorted(map(str, (*row, *inner)))


def _keys(value: Any) -> Sequence[str]:
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return ()
    return tuple(value) if isinstance(value, Mapping) else ()


def parse_number(value: Any, name: str) -> float | None:
    """Reads a number from a value of a data file, such as a difficulty.

    Args:
        value: a finite number, or a text with one: "5", "3/8", "Level 5", "37.5%", which is 0.375; nothing
            where it is None, NaN, or a text of `NOTHING`.
        name: says in the error what the number is.

    Returns:
        The number, or None for nothing.

    Raises:
        ValueError: the value is something else.
    """
    if isinstance(value, str):
        text = re.sub(r"^[^\W\d_]+\s+(?=[\d?])", "", value.strip())  # "Level 5", in any language
        if text.casefold() in NOTHING:
            return None
        found = _NUMBER.fullmatch(text.removesuffix("%").rstrip())
        number = float(found[1]) / float(found[2] or 1) if found and float(found[2] or 1) else math.nan
        number = number / 100 if text.endswith("%") else number
    elif value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    else:
        whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**300
        number = float(value) if whole or isinstance(value, float | Decimal) else math.nan
    if not math.isfinite(number):
        forms = '5, "3/8", "37.5%" or "Level 5"'
        raise ValueError(f"`{name}` must be a number, such as {forms}; got {str(value)[:80]!r}")
    return number


def parse_text(text: str, what: str) -> Any:
    """The value that a text holds, as JSON or as Python writes it.

    Args:
        text: such as `{"a": 1}` or `{'a': 1}`.
        what: says in the error what the text is.

    Returns:
        The value: lists, dicts, texts, numbers, bools and None.

    Raises:
        ValueError: the text is neither, or it is nested too deeply.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        if len(text) > LONGEST_TEXT:
            raise ValueError(f"it has more than {LONGEST_TEXT:,} characters")
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError) as error:
        raise ValueError(f"{what}, which is neither JSON nor a Python value: {text[:80]!r} ({error})") from error
