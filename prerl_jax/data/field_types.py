"""The types of fields: whether a value is of an annotated type, which dataclasses do not check."""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import types
import typing
from collections.abc import Callable
from typing import Any

LONGEST_SHOWN = 200
"""Characters of a value that an error shows."""


def require_types(made: Any, besides: tuple[str, ...] = ()) -> None:
    """Checks the fields of a dataclass against their annotations.

    Args:
        made: an instance. A class calls it in `__post_init__`, before its other checks.
        besides: fields that are not checked.

    Raises:
        ValueError: a field holds another type, such as a text where a value class belongs.
    """
    kind: Any = type(made)  # Any: to mypy a type[Any] is not hashable
    hints = _hints(kind)
    for field in dataclasses.fields(made):
        value, expected = getattr(made, field.name), hints.get(field.name, Any)
        if field.init and field.name not in besides and not fits(value, expected):
            shown = repr(value) if len(repr(value)) <= LONGEST_SHOWN else repr(value)[:LONGEST_SHOWN] + "..."
            raise ValueError(
                f"{kind.__name__}.{field.name}: expected {describe(expected)}, got {type(value).__name__} {shown}"
            )


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def fits(value: Any, expected: Any) -> bool:
    """Whether a value is of an annotated type. An int passes for a float; a bool passes for neither."""
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if expected in (Any, object):
        return True
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, a) for a in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin is collections.abc.Callable or expected in (Callable, typing.Callable):
        return callable(value)
    if origin is tuple and isinstance(value, tuple) and arguments:
        if arguments[-1] is Ellipsis:
            return all(fits(item, arguments[0]) for item in value)
        return len(value) == len(arguments) and all(map(fits, value, arguments))
    if origin is dict or origin is collections.abc.Mapping:
        key, item = arguments
        return isinstance(value, dict) and all(fits(k, key) and fits(v, item) for k, v in value.items())
    if expected is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if expected is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(expected, type) and typing.Protocol in expected.__bases__:
        members = [m for m in vars(expected) if not m.startswith("_") or m in ("__call__", "__len__", "__getitem__")]
        return not isinstance(value, type) and all(hasattr(value, m) for m in members)
    return isinstance(value, origin or expected)


def describe(expected: Any) -> str:
    """An annotation as an error names it."""
    if typing.get_origin(expected) in (typing.Union, types.UnionType):
        return " | ".join(map(describe, typing.get_args(expected)))
    if expected is type(None):
        return "None"
    return expected.__name__ if isinstance(expected, type) and not typing.get_args(expected) else str(expected)
