r"""The answers in the last boxes of a response, for verifiers that are more tolerant than the published rule."""

from __future__ import annotations

import re

from prerl_jax.verify.spelling import LONGEST

_BOX = re.compile(r"\\boxed\s*+(?:\{|(?![A-Za-z{]))")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_BARE_END = re.compile(r"[$\n]|\\\)|\\\]")
_LIST = re.compile(
    r"[\s$]*+(?:[,;][\s$]*+(?:(?:and|or)\b[\s$]*+)?|(?:and|or)\b[\s$]*+|\\(?:text|mbox)\{ *(?:and|or) *\}[\s$]*+)"
)
_MOST = 64


def last_answers(text: str) -> tuple[str, ...]:
    r"""The answers in the last boxes: several where boxes stand in a row as one list, such as "\boxed{3}, \boxed{5}".

    Boxes stand in a row if nothing is between them but a comma, a semicolon, "and" or "or", and dollar signs. In
    "\boxed{6} wait \boxed{5}" the last box alone counts. Empty boxes are no answers. A last box that is not closed
    makes the result empty: the response has broken off in the middle of its answer. "\boxed 5" holds the text up to a
    dollar sign or the end of the line.

    Returns:
        The answers, in their order, at most 64; empty if there is none.
    """
    boxes: list[str] = []
    end, follower = len(text), len(text)
    while len(boxes) < _MOST and (start := text.rfind(r"\boxed", 0, end)) >= 0:
        end = start
        opened = _BOX.match(text, start, follower)
        if opened is None:  # the word \boxed without a box
            continue
        box = _content(text, opened, follower)
        if box is None or (boxes and not _LIST.fullmatch(text, box[1], follower)):
            break
        boxes.append(box[0])
        follower = start
    return tuple(box for box in reversed(boxes) if box.strip())


def _content(text: str, opened: re.Match[str], limit: int) -> tuple[str, int] | None:
    """The content of a box, and where the box ends; None if it does not end before `limit`."""
    inside = opened.end()
    if not opened.group().endswith("{"):
        limit = min(limit, inside + LONGEST)
        found = _BARE_END.search(text, inside, limit)
        end = found.start() if found else limit
        return text[inside:end], end
    depth = 1
    for brace in _BRACE.finditer(text, inside, limit):
        if brace.group().startswith("\\"):  # "\{" is a sign, not a brace
            continue
        depth += 1 if brace.group() == "{" else -1
        if depth == 0:
            return text[inside : brace.end() - 1], brace.end()
    return None
