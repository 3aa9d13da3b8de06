"""Thoughts in the text of responses, counted by regular expressions: per response, per step, and before and after.

Two ways to count. `count_matches` takes one regular expression as it is. `count_thoughts` takes kinds of thoughts, each
a list of patterns (`thought_patterns.py` has the default ones), and reads a text as speech: case does not matter, `^`
is the beginning of any line, a typographic apostrophe is a plain one, and what stands in quotation marks or backticks
is not the speaker's own thought, so nothing in it counts. Matches of one kind do not overlap; of two kinds they may.

In both a match counts only where it begins and ends at a word's edge: "wait" is found in "Oh, wait!" and neither in
"await" nor in "waiting". An end of the pattern that is no letter, digit or underscore needs no edge: "wait," is found
in "wait,no".
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from prerl_jax.analysis.thought_patterns import THOUGHTS, Thought

Thoughts = tuple[Thought, ...]

_QUOTED = re.compile(
    "|".join(
        (
            r"\u201c[^\u201c\u201d\n]{1,200}\u201d",  # typographic quotation marks, double and single
            r"\u2018[^\u2018\u2019\n]{1,200}\u2019(?!\w)",
            r"\"[^\"\n]{1,200}\"",
            r"(?<!\w)'[^'\n]{1,200}'(?!\w)",
            r"`[^`\n]{1,200}`",
        )
    )
)


def count_matches(pattern: str, texts: Sequence[str]) -> np.ndarray:
    """Non-overlapping matches of a regular expression in each text: i64[texts].

    Case matters unless the pattern says otherwise, with "(?i)" in front.

    Raises:
      ValueError: the pattern is not a regular expression, or it matches the empty text.
    """
    matcher = _at_word_edges((pattern,))
    return np.array([sum(1 for _ in matcher.finditer(text)) for text in texts], dtype=np.int64)


def count_thoughts(texts: Sequence[str], thoughts: Thoughts = THOUGHTS) -> dict[str, np.ndarray]:
    """How many thoughts of each kind each text has: {kind: i64[texts]}.

    Raises:
      ValueError: a pattern is not a regular expression, or it matches the empty text.
    """
    spoken = [_own_words(text) for text in texts]
    return {
        thought.name: np.array([len(_found(thought, text)) for text in spoken], dtype=np.int64) for thought in thoughts
    }


def find_thoughts(text: str, thoughts: Thoughts = THOUGHTS) -> list[tuple[str, int, int]]:
    """[(kind, start, end)] in the order of the text: what `count_thoughts` counts, to look at or to mark."""
    spoken = _own_words(text)
    spans = [(thought.name, *match.span()) for thought in thoughts for match in _found(thought, spoken)]
    return sorted(spans, key=lambda span: span[1:])


def thoughts_by_step(
    completions: Iterable[Mapping[str, Any]], thoughts: Thoughts = THOUGHTS
) -> list[dict[str, float | int | str]]:
    """Means over the responses of each step: one row {"step", "phase", "responses", kind: mean, ...} a step, in order.

    Args:
      completions: lines of a run's completions.jsonl, each with `step`, `phase` and `response`.
      thoughts: what to count.
    """
    steps: dict[tuple[int, str], list[str]] = defaultdict(list)
    for line in completions:
        steps[line["step"], line["phase"]].append(line["response"])
    rows = []
    for (step, phase), texts in sorted(steps.items()):
        means = {name: float(counts.mean()) for name, counts in count_thoughts(texts, thoughts).items()}
        rows.append({"step": step, "phase": phase, "responses": len(texts), **means})
    return rows


@dataclasses.dataclass(frozen=True)
class Change:
    """Thoughts of one kind per response, before and after."""

    before: float
    after: float

    @property
    def ratio(self) -> float:
        """after / before: infinite where there were none before, NaN where there are none at all."""
        if self.before == 0:
            return math.inf if self.after else math.nan
        return self.after / self.before


def thoughts_before_and_after(
    before: Sequence[str], after: Sequence[str], thoughts: Thoughts = THOUGHTS
) -> dict[str, Change]:
    """How thoughts per response changed between two sets of responses to the same problems; the paper's "x 6.54".

    Raises ValueError where one of the sets is empty.
    """
    if not before or not after:
        raise ValueError(f"there is nothing to compare: {len(before)} responses before and {len(after)} after.")
    counts = [count_thoughts(texts, thoughts) for texts in (before, after)]
    return {name: Change(*(float(c[name].mean()) for c in counts)) for name in counts[0]}


def _found(thought: Thought, spoken: str) -> list[re.Match[str]]:
    return list(_at_word_edges(thought.patterns, re.IGNORECASE | re.MULTILINE).finditer(spoken))


def _own_words(text: str) -> str:
    """The text without what it quotes, every other character in its place."""
    text = _QUOTED.sub(lambda match: match[0][0] + "\0" * (len(match[0]) - 2) + match[0][-1], text)
    return text.replace("\u2019", "'")


@functools.cache
def _at_word_edges(patterns: tuple[str, ...], flags: int = 0) -> re.Pattern[str]:
    """One matcher of all the patterns; global flags may stand in front of one that is alone."""
    inline = re.match(r"(?:\(\?[aimsux]+\))?", patterns[0])[0] if len(patterns) == 1 else ""
    for pattern in patterns:
        try:
            compiled = re.compile(pattern, flags)
        except re.error as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
        if compiled.search(""):
            raise ValueError(f"the regular expression {pattern!r} matches the empty text, so it would count everywhere")
    joined = patterns[0][len(inline) :] if len(patterns) == 1 else "|".join(f"(?:{pattern})" for pattern in patterns)
    try:
        # \B next to a word character: the word goes on. So neither the match's first nor its last word may go on.
        return re.compile(rf"{inline}(?!\B\w)(?:{joined})(?<!\w\B)", flags)
    except re.error as error:  # groups or flags that do not stand beside one another
        raise ValueError(f"{patterns} do not make one regular expression: {error}") from error
