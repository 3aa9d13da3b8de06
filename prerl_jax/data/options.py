"""Options of multiple-choice problems: where a row has them, which one is right, and how the prompt lists them."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import re
import string
from collections.abc import Callable, Sequence
from typing import Any, Literal

from prerl_jax.data.field_types import require_types
from prerl_jax.data.problems import parse_answer
from prerl_jax.data.values import parse_text

LETTERS = string.ascii_uppercase
_RIGHT_ONE = "the answer, which names the right option,"


@dataclasses.dataclass(frozen=True)
class Choice:
    """The options of one problem.

    Attributes:
        texts: the options, without their letters.
        right: the index of the right one, from 0; None if the row names none.
    """

    texts: tuple[str, ...]
    right: int | None

    @property
    def letter(self) -> str:
        """The letter of the right option; "" if the row names none."""
        return "" if self.right is None else LETTERS[self.right]

    def listed(self) -> str:
        """The options as the prompt shows them, a line each: "(A) 38"."""
        return "\n".join(f"({letter}) {text}" for letter, text in zip(LETTERS, self.texts, strict=False))


@dataclasses.dataclass(frozen=True)
class Options:
    """Options in the order of the row.

    Attributes:
        columns: the columns with an option each; or one column with all of them: a list, with or without the letters
            ("A)12"), a text "a ) 38 , b ) 27 , c ) 30", a dict from letters to options, or a dict of the lists
            "label" and "text".
        answer: what the column of the answer has: the "letter" of the right option, its "index" from 0, its "number"
            from 1, or its "text".

    Raises:
        ValueError: `answer` is none of the four, or no column is named.
    """

    columns: str | tuple[str, ...] = "options"
    answer: Literal["letter", "index", "number", "text"] = "letter"

    def __post_init__(self) -> None:
        require_types(self)
        if not self.columns:
            raise ValueError(f"Options needs a column, got {self}")

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that are read."""
        return (self.columns,) if isinstance(self.columns, str) else self.columns

    def read(self, question: str, answer: Any, values: Sequence[Any]) -> Choice:
        """Reads the options of a row.

        Args:
            question: is not read here.
            answer: the value of the answer's column.
            values: the values of `names`.

        Returns:
            The options and the right one.

        Raises:
            ValueError: there are fewer than two options or more than 26, one is empty, or the answer is none of them.
        """
        labels, texts = _labelled(values[0] if isinstance(self.columns, str) else list(values))
        _require(texts)
        gold = parse_answer(answer, _RIGHT_ONE).strip()
        right = _RIGHT[self.answer](gold, labels[: len(texts)], texts) if gold else None
        if right is not None and not 0 <= right < len(texts):
            raise ValueError(f"the answer {gold[:80]!r} is not the {self.answer} of one of the {len(texts)} options")
        return Choice(tuple(texts), right)


@dataclasses.dataclass(frozen=True)
class ShuffledOptions:
    """The right option in the answer's column, and wrong ones in others, as in GPQA; listed in a random order.

    Attributes:
        wrong: the columns of the wrong options.
        seed: decides the order, together with the question: a row's order does not depend on other rows.

    Raises:
        ValueError: no column of a wrong option is named.
    """

    wrong: tuple[str, ...]
    seed: int = 0

    def __post_init__(self) -> None:
        require_types(self)
        if not self.wrong:
            raise ValueError("ShuffledOptions.wrong is empty; name at least one column")

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that are read."""
        return self.wrong

    def read(self, question: str, answer: Any, values: Sequence[Any]) -> Choice:
        """Reads and shuffles the options of a row.

        Args:
            question: its text decides the order.
            answer: the right option.
            values: the wrong ones.

        Returns:
            The options in their new order, and the right one.

        Raises:
            ValueError: an option is empty or no text, or the right one is among the wrong ones, too. Two wrong ones may
                be equal.
        """
        right = parse_answer(answer, _RIGHT_ONE).strip()
        wrong = [
            parse_answer(value, f"the wrong option `{name}`") for name, value in zip(self.wrong, values, strict=True)
        ]
        texts = [right, *(text.strip() for text in wrong)]
        if not right:
            return Choice(tuple(texts), None)
        _require(texts)
        if right in texts[1:]:
            raise ValueError(f"the right option is a wrong one, too: {right[:80]!r}")
        digest = hashlib.sha256(f"{self.seed}\n{question}".encode()).digest()
        order = random.Random(int.from_bytes(digest, "big")).sample(range(len(texts)), len(texts))
        return Choice(tuple(texts[index] for index in order), order.index(0))


def _require(texts: Sequence[str]) -> None:
    if not 2 <= len(texts) <= len(LETTERS) or not all(text.strip() for text in texts):
        raise ValueError(f"expected 2 to {len(LETTERS)} options, none of them empty, got {str(texts)[:80]}")


def _labelled(value: Any) -> tuple[Sequence[str], list[str]]:
    """(labels, options) of a value in any of the layouts of `Options.columns`."""
    if isinstance(value, str):
        if value.lstrip().startswith(("[", "{")):
            return _labelled_values(parse_text(value, "the options are a text"))
        return LETTERS, _split(value)
    return _labelled_values(value)


def _labelled_values(value: Any) -> tuple[Sequence[str], list[str]]:
    if isinstance(value, dict):
        labels, texts = value.get("label"), value.get("text")
        if not (isinstance(labels, list) and isinstance(texts, list) and len(labels) == len(texts)):
            pairs = sorted((str(key), text) for key, text in value.items() if text is not None)
            labels, texts = [key for key, _ in pairs], [text for _, text in pairs]
        return [parse_answer(label, "a letter of the options") for label in labels], _texts(texts)
    if not isinstance(value, list):
        raise ValueError(f"the options are a {type(value).__name__}; expected a list, a text or a dict")
    texts = _texts(value)
    _require(texts)
    prefixes = [rf"\s*\(?{letter}\s*[).:]\s*" for letter in LETTERS[: len(texts)]]
    found = [re.match(prefix, text, re.I) for prefix, text in zip(prefixes, texts, strict=True)]
    if not all(found):
        return LETTERS, texts
    return LETTERS, [text[match.end() :] for match, text in zip(found, texts, strict=True) if match]


def _texts(values: Sequence[Any]) -> list[str]:
    return [parse_answer(value, f"option {number}") for number, value in enumerate(values, 1)]


def _split(text: str) -> list[str]:
    """The options of "a ) 38 , b ) 27": each letter is looked for after the one before it."""
    start = re.match(r"\s*\(?a\s*[).:]", text, re.I)
    if not start:
        raise ValueError(f"the options do not begin with 'a )' or 'A.': {text[:80]!r}")
    found, at = [], start.end()
    for letter in LETTERS[1:]:
        mark = re.compile(rf"(?:\s*[,;]\s*|\s+)\(?{letter}\s*[).:]", re.I).search(text, at)
        if not mark:
            break
        found.append(text[at : mark.start()].strip())
        at = mark.end()
    return [*found, text[at:].strip()]


def _of_letter(gold: str, labels: Sequence[str], texts: Sequence[str]) -> int:
    letter = gold.strip("().: ").upper()
    upper = [label.upper() for label in labels]
    return upper.index(letter) if letter in upper else -1


def _of_text(gold: str, labels: Sequence[str], texts: Sequence[str]) -> int:
    same = [index for index, text in enumerate(texts) if text.strip() == gold]
    return same[0] if len(same) == 1 else -1


def _of_index(gold: str, labels: Sequence[str], texts: Sequence[str]) -> int:
    return int(gold) if re.fullmatch("[0-9]{1,2}", gold) else -1


_RIGHT: dict[str, Callable[[str, Sequence[str], Sequence[str]], int]] = {
    "letter": _of_letter,
    "index": _of_index,
    "number": lambda gold, labels, texts: _of_index(gold, labels, texts) - 1,
    "text": _of_text,
}
