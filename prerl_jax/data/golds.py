r"""Golds: how the ground truth is read from a value of a data file.

A rule is a config value that maps the value to a `Gold`. Data sets store ground truths as plain text, at the end of a
worked solution, in its last \boxed, or as a list. A rule that finds none says why: the row is then dropped
and counted. A value of the wrong type is a ValueError.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any, Protocol

from prerl_jax.data.field_types import require_types
from prerl_jax.data.problems import parse_answer
from prerl_jax.data.values import elements, list_elements

LONG = 100
"""Characters of an answer of several lines that is taken for a worked solution."""


@dataclasses.dataclass(frozen=True)
class Gold:
    """What a rule has read.

    Attributes:
        accepted: the right answers, any of which is right; the first one becomes `Problem.answer`. Empty if there is
            none.
        reason: why there is no answer.
    """

    accepted: tuple[str, ...]
    reason: str = "empty ground truth"


class GoldRule(Protocol):
    """A config value that reads a ground truth. Any frozen dataclass with this method is one."""

    def __call__(self, value: Any) -> Gold:
        """The gold of a value of a data file; ValueError where it has the wrong type."""


@dataclasses.dataclass(frozen=True)
class PlainGold:
    r"""A text or a number, without white space at its ends. Dollars around a text are removed: "$5$" is 5.

    NA, N/A, nan, NaN, None and null, as tables write a missing value, are no ground truth.
    A text that holds a list of texts, such as '["\\frac{1}{2}", "0.5"]', gives several right answers.
    """

    def __call__(self, value: Any) -> Gold:
        """The gold of a text or a number."""
        texts = elements(value) if isinstance(value, str) else [value]
        found = [_undollared(parse_answer(text)) for text in texts]
        return _gold(text for text in found if text.strip() not in _MISSING)


@dataclasses.dataclass(frozen=True)
class AnyGold:
    """A list, any of whose elements is right, also one in a text, such as "[13, 14]"; or a single value.

    Attributes:
        each: reads an element.
        in_text: whether a text such as "[0, 1]" is a list, too. Where it may be an interval, say False: then only a
            list of texts, such as '["0", "1"]', is one.
    """

    each: GoldRule = PlainGold()
    in_text: bool = True

    def __post_init__(self) -> None:
        require_types(self)

    def __call__(self, value: Any) -> Gold:
        """The gold of a list, a text or a number."""
        found = list_elements(value) if self.in_text else elements(value)
        return _gold(text for one in found for text in self.each(one).accepted)


@dataclasses.dataclass(frozen=True)
class AllGold:
    """A list, all of whose elements belong to the answer; or a text that lists them: "$69$,$84$" becomes "69, 84".

    "1,234" is one number.
    """

    def __call__(self, value: Any) -> Gold:
        """The gold of a list, a text or a number."""
        found = [_without_dollars(part) for one in elements(value) for part in _listed(parse_answer(one))]
        return _gold([", ".join(part for part in found if part)])


@dataclasses.dataclass(frozen=True)
class NumberGold:
    """A number, in its shortest form: 004 becomes 4, 1,234 becomes 1234, 27.0 becomes 27.

    The form in the file stays right, too: "004" is an alternative of 4. Anything but a number is an error.
    """

    def __call__(self, value: Any) -> Gold:
        """The gold of a number, or of a text with one."""
        text = _undollared(parse_answer(value)).strip()
        if not text or text in _MISSING:
            return Gold(())
        found = _NUMBER.fullmatch(text.removeprefix("\\").removeprefix("$").strip())
        if not found:
            raise ValueError(f"the ground truth is not a number: {text[:80]!r}")
        return _gold([_shortest(found[0]), text])


@dataclasses.dataclass(frozen=True)
class BoxedGold:
    r"""The content of the last \boxed of a worked solution.

    Attributes:
        then: reads that content.
    """

    then: GoldRule = PlainGold()

    def __post_init__(self) -> None:
        require_types(self)

    def __call__(self, value: Any) -> Gold:
        """The gold of a worked solution."""
        box = last_box(parse_answer(value))
        return self.then(box) if box and box.strip() else Gold((), reason=r"no filled \boxed in the solution")


@dataclasses.dataclass(frozen=True)
class MarkedGold:
    """The rest of the line after the last marker of a worked solution, as in GSM8K's "#### 1,234".

    Attributes:
        marker: the text before the answer.
        then: reads the answer.

    Raises ValueError for an empty marker.
    """

    marker: str = "####"
    then: GoldRule = PlainGold()

    def __post_init__(self) -> None:
        require_types(self)
        if not self.marker:
            raise ValueError("MarkedGold's marker is empty; use PlainGold to read the whole text")

    def __call__(self, value: Any) -> Gold:
        """The gold of a worked solution."""
        _, found, tail = parse_answer(value).rpartition(self.marker)
        answer = tail.strip().split("\n", 1)[0]
        return self.then(answer) if found and answer else Gold((), reason=f"no {self.marker!r} with an answer after it")


@dataclasses.dataclass(frozen=True)
class LetterGold:
    """The letter of an option: "(B)", "b" and "B." become B."""

    def __call__(self, value: Any) -> Gold:
        """The gold of a text with one letter."""
        text = parse_answer(value).strip()
        letter = text.strip("().: ").upper()
        if text and not re.fullmatch("[A-Z]", letter):
            raise ValueError(f"the ground truth is not the letter of an option: {text[:80]!r}")
        return _gold([letter])


def solution_rule(answer: str) -> str:
    r"""The rule that would read an answer which is a worked solution; "" for an answer that is none.

    Args:
        answer: a worked solution has "####" or a \boxed in it, or several lines with `LONG` or more characters.
    """
    if "####" in answer:
        return 'MarkedGold("####")'
    if last_box(answer):
        return "BoxedGold()"
    return "MarkedGold(the text before the answer)" if "\n" in answer and len(answer) >= LONG else ""


def parts(answer: str) -> tuple[str, ...]:
    """The parts of an answer that lists several, split at its commas outside brackets.

    Args:
        answer: such as "(1,8,19), (2,7,13)".

    Returns:
        The parts, here "(1,8,19)" and "(2,7,13)"; the answer alone where its brackets do not match. The comma of
        "1,234" separates, too: the text cannot say whether it is one number.
    """
    depth, start, found = 0, 0, []
    for mark in _MARK.finditer(answer):
        depth += (mark[0] in "([{") - (mark[0] in ")]}")
        if depth < 0:
            return (answer.strip(),)
        if mark[0] == "," and depth == 0:
            found.append(answer[start : mark.start()].strip())
            start = mark.end()
    return (answer.strip(),) if depth else (*found, answer[start:].strip())


def last_box(text: str) -> str | None:
    r"""The content of the last \boxed or \fbox of a text, None where there is none, or it does not end.

    Args:
        text: such as r"so \boxed{\frac{1}{2}}."; "\boxed 5$", without braces, holds what follows up to a dollar.
    """
    start = max(text.rfind(r"\boxed"), text.rfind(r"\fbox"))
    if start < 0:
        return None
    content = text[start:].removeprefix(r"\boxed").removeprefix(r"\fbox").lstrip()
    if not content.startswith("{"):
        return re.split(r"[$\n]", content, maxsplit=1)[0].strip() or None
    depth = 0
    for brace in _BRACE.finditer(content):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return content[1 : brace.start()]
    return None


def unit_text(unit: str) -> str:
    r"""A unit without its LaTeX: r"\mathrm{~cm}^2" is "cm^2", r"^{\circ}" is "degrees"."""
    text = re.sub(r"\^\{?\\circ\}?|°", "degrees", unit)
    return re.sub(r"\\(?:text|mathrm|mbox|operatorname|rm)\b|\\[,;! ]|[~{}$\\]", "", text).strip()


def _listed(text: str) -> tuple[str, ...]:
    """The parts of a text, one for a number such as "$1,234$"."""
    return (text,) if _NUMBER.fullmatch(_undollared(text).strip()) else parts(text)


def _gold(texts: Iterator[str] | list[str]) -> Gold:
    return Gold(tuple(dict.fromkeys(text.strip() for text in texts if text.replace("$", " ").strip())))


def _undollared(text: str) -> str:
    """The text without the dollars around it, if they are the only ones."""
    found = _DOLLARS.fullmatch(text)
    return (found[1] or found[2] or found[3]).strip() if found else text


def _without_dollars(part: str) -> str:
    return re.sub(r"(?<!\\)\$", "", part.strip().removesuffix("$.")).strip()


def _shortest(number: str) -> str:
    sign = "-" if number[0] in "-\N{MINUS SIGN}" else ""
    whole, _, decimals = number.lstrip("+-\N{MINUS SIGN}").replace(",", "").partition(".")
    whole, decimals = whole.lstrip("0") or "0", decimals.rstrip("0")
    return (sign if whole != "0" or decimals else "") + whole + ("." + decimals if decimals else "")


_NUMBER = re.compile(r"[-+\N{MINUS SIGN}]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,400})(?:\.[0-9]{0,400})?")
_MISSING = ("NA", "N/A", "nan", "NaN", "None", "null")
_MARK = re.compile(r"\\[,;!]|[,()\[\]{}]")
_BRACE = re.compile(r"\\[{}\\]|[{}]")
_DOLLARS = re.compile(
    r"\s*(?:\$\$?((?:[^$\\]|\\.)+)\$\$?|\\\(((?:(?!\\\)).)*)\\\)|\\\[((?:(?!\\\]).)*)\\\])\s*", re.DOTALL
)
