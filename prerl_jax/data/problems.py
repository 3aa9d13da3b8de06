"""What a problem is: something to ask and the answer that is right, and what every source of problems returns."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Protocol


@dataclasses.dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: str
    content: str


SPLITS = ("train", "evaluation")

Prompt = str | tuple[Message, ...]


@dataclasses.dataclass(frozen=True)
class Problem:
    """A prompt (text, or the turns of a chat) and its ground truth.

    `source` names the data set it came from; `metadata` carries whatever else the row held, for logs and analysis.
    """

    prompt: Prompt
    answer: str
    source: str = ""
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)


class ProblemSource(Protocol):
    """A config value that yields problems. Any frozen dataclass with this method works."""

    def load(self) -> tuple[tuple[Problem, ...], tuple[str, ...]]:
        """(the problems, one line for every row left out and why)."""


def split_of(digest: bytes, one_in: int) -> str:
    """The split of a made-up question with this hash of its text: one in so many is for evaluation.

    The text alone decides, so the splits never share a question, whatever the seeds and counts are.
    """
    return SPLITS[int.from_bytes(digest, "big") % one_in == 0]


def parse_prompt(value: Any) -> Prompt:
    """A string, or a list of {"role", "content"} with string values, as a `Prompt`.

    Raises:
        ValueError: it is neither, or there is nothing in it.
    """
    if isinstance(value, str):
        if not value.strip():
            raise ValueError("the prompt is empty")
        return value
    if not isinstance(value, list):
        raise ValueError(f"the prompt is a {type(value).__name__}; expected text or a list of {{role, content}}")
    if not value:
        raise ValueError("the prompt is empty")
    return tuple(_parse_message(turn) for turn in value)


def _parse_message(turn: Any) -> Message:
    fields = [turn.get(name) for name in ("role", "content")] if isinstance(turn, dict) else [None, None]
    if not all(isinstance(field, str) for field in fields):
        raise ValueError(f"a message must be {{role: text, content: text}}, got {str(turn)[:80]!r}")
    return Message(*fields)


def parse_answer(value: Any) -> str:
    """A ground truth as text; a missing one, NaN among them, is "" (which sources report and drop).

    Numbers are written out, a whole one without a point: tables hold integers as floats once one of them is missing,
    and a response says 5, not 5.0.

    Raises:
        ValueError: a list, a mapping, a truth value or an infinity: there is no one text to compare with.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and math.isinf(value):
        raise ValueError(f"the ground truth is {value}; expected text or a finite number")
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"the ground truth is a {type(value).__name__}; expected text or a number")
    return str(value)


def as_messages(prompt: Prompt) -> list[dict[str, str]]:
    """The prompt as chat turns, which is what chat templates take; text becomes one user turn."""
    turns = (Message("user", prompt),) if isinstance(prompt, str) else prompt
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def as_text(prompt: Prompt) -> str:
    """The prompt as plain text; the turns of a chat are joined by blank lines, without their roles."""
    return prompt if isinstance(prompt, str) else "\n\n".join(turn.content for turn in prompt)
