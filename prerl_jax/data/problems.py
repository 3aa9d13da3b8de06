"""Problems: a prompt and its ground truth, and the protocol of their sources."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Protocol

from prerl_jax.data.values import LONGEST_TEXT, parse_text


@dataclasses.dataclass(frozen=True)
class Message:
    """One turn of a chat.

    Attributes:
        role: who speaks: "user", "assistant" or "system".
        content: the text of the turn.
    """

    role: str
    content: str


SPLITS = ("train", "evaluation")
"""The splits of generated problems."""

Prompt = str | tuple[Message, ...]
"""Plain text, or the turns of a chat."""

GROUND_TRUTH = "the ground truth"
"""What `parse_answer` calls its value in an error, where it is not told another name."""

_ROLES = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "system": "system",
}
"""The names of roles in data files, in small letters, and the roles that they are."""
_LIST_OR_OBJECT = re.compile(r"\s*(?:\[.*\]|\{.*\})\s*\Z", re.DOTALL)
_MESSAGES = re.compile(r"""\s*\[\s*\{\s*['"](?:role|content|from|value)['"]\s*:""")


@dataclasses.dataclass(frozen=True)
class Problem:
    """A prompt and its ground truth.

    Attributes:
        prompt: plain text, or the turns of a chat.
        answer: the ground truth, which verifiers compare responses with. An answer of several parts, all of which are
            asked for, lists them: "69, 84", "(1,8,19), (2,7,13)". `golds.parts` splits it.
        source: the name of the data set; "" if there is none. Evaluations report accuracy by source.
        metadata: all other values of the row, for logs, verifiers and analysis.
        answer_format: how the prompt asks for the answer, with "{answer}" in its place, as in "#### {answer}"; "" where
            the source does not say. A run checks before it starts that its verifier accepts answers in this format.
        alternatives: further right answers. A response is right if it gives `answer` or any of them.
        unit: the unit of the answer, such as "km/h"; "" if the data has none. It is recorded only: no verifier of this
            package compares units with it.
        tolerance: the largest difference, in the answer's unit, of a number that is still right; None if the data has
            none. `MathAnswer` honours it.
        difficulty: how hard the problem is, in the data set's own scale, which may rise or fall with the difficulty
            (a level, a share of solved attempts); None if it is not known.
    """

    prompt: Prompt
    answer: str
    source: str = ""
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    answer_format: str = ""
    alternatives: tuple[str, ...] = ()
    unit: str = ""
    tolerance: float | None = None
    difficulty: float | None = None


class ProblemSource(Protocol):
    """A config value that yields problems. Any frozen dataclass with this method is one."""

    def load(self) -> tuple[tuple[Problem, ...], tuple[str, ...]]:
        """Loads the problems. Every call returns the same problems in the same order.

        Returns:
            (the problems; notes, which say what was dropped and why, a line each).
        """


def split_of(digest: bytes, one_in: int) -> str:
    """The split of a generated question. The text alone decides, so the splits never share a question.

    Args:
        digest: a hash of the question's text.
        one_in: one question in this many belongs to evaluation.

    Returns:
        "train" or "evaluation".
    """
    return SPLITS[int.from_bytes(digest, "big") % one_in == 0]


def parse_prompt(value: Any) -> Prompt:
    """Reads a prompt from a value of a data file.

    Args:
        value: a string; a list of {"role", "content"} or {"from", "value"}; or a string that holds such a list, as
            JSON or as Python writes it. A text that holds another list or object of texts or objects is an error. The
            roles are user or human, assistant or gpt or model, and system, in small or capital letters. The content
            is text, or a list of {"type": "text", "text"}. The assistant's turns at the end of a list are left out:
            the model answers there.

    Returns:
        The prompt.

    Raises:
        ValueError: the value is of another type, has another role, or is empty or too long.
    """
    if isinstance(value, str):
        value = _out_of_text(value)
    if isinstance(value, str):
        turns: tuple[Message, ...] = (Message("user", value),)
    elif isinstance(value, list):
        turns = tuple(_parse_message(turn) for turn in value)
    else:
        raise ValueError(f"the prompt is a {type(value).__name__}; expected text or a list of {{role, content}}")
    while turns and turns[-1].role == "assistant":
        turns = turns[:-1]
    length = sum(len(turn.content) for turn in turns)
    if not any(turn.content.strip() for turn in turns):
        raise ValueError("the prompt is empty")
    if length > LONGEST_TEXT:
        raise ValueError(
            f"the prompt has {length:,} characters, more than {LONGEST_TEXT:,}; remove the row, or name the column "
            "that holds the question"
        )
    return value if isinstance(value, str) else turns


def _out_of_text(text: str) -> str | list[Any]:
    """The messages that a text holds, not yet checked; else the text. "[1, 2]" is a text."""
    begins = _MESSAGES.match(text)
    if not begins and not _LIST_OR_OBJECT.match(text):
        return text
    try:
        found = parse_text(text, "the prompt holds messages in a text")
    except ValueError:
        if begins:
            raise
        return text
    turns = [found] if isinstance(found, dict) else found
    holds_turns = isinstance(turns, list) and any(isinstance(turn, dict | str) for turn in turns)
    return turns if holds_turns else text


def _parse_message(turn: Any) -> Message:
    fields = turn if isinstance(turn, dict) else {}
    role = fields.get("role") if fields.get("role") is not None else fields.get("from")
    content = fields.get("content") if fields.get("content") is not None else fields.get("value")
    content = _joined(content) if isinstance(content, list) else content
    if not isinstance(role, str) or not isinstance(content, str):
        raise ValueError(f"a message must be {{role: text, content: text}}, got {str(turn)[:80]!r}")
    if role.strip().casefold() not in _ROLES:
        raise ValueError(f"the role of a message must be user, assistant or system, got {role[:40]!r}")
    return Message(_ROLES[role.strip().casefold()], content)


def _joined(parts: list[Any]) -> str | None:
    """The text of a content in parts, such as [{"type": "text", "text": "Hi"}]; None if a part is no text."""
    texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
    found = [text for text in texts if isinstance(text, str)]
    return "".join(found) if len(found) == len(parts) else None


def parse_answer(value: Any, what: str = GROUND_TRUTH) -> str:
    """Reads a ground truth from a value of a data file.

    Args:
        value: a string, an integer, a finite float or Decimal, NaN or None. A whole float is written without a decimal
            point: tables hold integers as floats if one of them is missing, and a response says 5, not 5.0.
        what: says in the error what the value is.

    Returns:
        The ground truth as text; "" for None and NaN. Sources drop and report such rows.

    Raises:
        ValueError: the value is a list, a mapping, a bool or an infinity, so there is no single text to compare with.
    """
    if isinstance(value, Decimal) and value.is_finite():
        text = f"{value:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and math.isinf(value):
        raise ValueError(f"{what} is {value}; expected text or a finite number")
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        remedy = "; AnyGold() and AllGold() read lists" if isinstance(value, list) and what == GROUND_TRUTH else ""
        raise ValueError(f"{what} is a {type(value).__name__}; expected text or a number{remedy}")
    return str(value)


def as_messages(prompt: Prompt) -> list[dict[str, str]]:
    """The prompt as chat turns {"role", "content"}, as chat templates take them; text becomes one user turn."""
    turns = (Message("user", prompt),) if isinstance(prompt, str) else prompt
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def as_text(prompt: Prompt) -> str:
    """The prompt as plain text; the contents of chat turns are joined by blank lines."""
    return prompt if isinstance(prompt, str) else "\n\n".join(turn.content for turn in prompt)
