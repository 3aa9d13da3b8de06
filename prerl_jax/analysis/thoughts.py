"""Counts thoughts in the text of responses: per response, per step, and before and after.

There are two ways to count. `count_matches` takes one regular expression as it is. `count_thoughts` takes kinds of
thoughts, each with patterns or openings; `thought_patterns.py` has the default ones. Text in quotation marks or in
backticks is not the speaker's own thought, so nothing in it counts.

A pattern is a regular expression. It ignores case, `^` matches the beginning of any line, and a typographic apostrophe
counts as a plain one. Matches of one kind do not overlap; matches of two kinds may. An opening is a phrase that begins
a sentence or a clause, see `openings.py`; openings of one kind in one sentence count once.

A match of `count_matches` or of a pattern counts only if it begins and ends at the edge of a word. "wait" is found in
"Oh, wait!", but not in "await" or in "waiting". If the pattern ends with a character that is no letter, digit or
underscore, no edge is needed there: "wait," is found in "wait,no".
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

from prerl_jax.analysis.marked_text import mark, own_words
from prerl_jax.analysis.openings import Finder, Spans, make_finder
from prerl_jax.analysis.thought_patterns import THOUGHTS, Thought

Thoughts = tuple[Thought, ...]
"""Kinds of thoughts."""
_INSIDE_WORD = re.compile(r"\B\w")


def count_matches(pattern: str, texts: Sequence[str]) -> np.ndarray:
    """Counts the non-overlapping matches of a regular expression in each text.

    Args:
      pattern: the regular expression. Case matters, unless it begins with "(?i)".
      texts: N texts.

    Returns:
      i64[N].

    Raises:
      ValueError: the pattern is not a regular expression, or it matches the empty text.
    """
    matcher = _to_word_edge((pattern,))
    return np.array([len(_whole_words(matcher, text)) for text in texts], dtype=np.int64)


def count_thoughts(texts: Sequence[str], thoughts: Thoughts = THOUGHTS) -> dict[str, np.ndarray]:
    """Counts the thoughts of each kind in each text.

    Args:
      texts: N texts.
      thoughts: the kinds of thoughts.

    Returns:
      {name of the kind: i64[N]}.

    Raises:
      ValueError: a pattern is not a regular expression, or it matches the empty text.
    """
    counts = [[len(spans) for spans in found] for found in _spans(texts, thoughts)]
    table = np.array(counts, dtype=np.int64).reshape(len(texts), len(thoughts))
    return {thought.name: table[:, kind] for kind, thought in enumerate(thoughts)}


def find_thoughts(text: str, thoughts: Thoughts = THOUGHTS) -> list[tuple[str, int, int]]:
    """Finds the thoughts that `count_thoughts` counts, to look at them or to highlight them.

    Args:
      text: the text of a response.
      thoughts: the kinds of thoughts.

    Returns:
      [(name of the kind, start, end)], in the order of the text; text[start:end] is the match.

    Raises:
      ValueError: a pattern is not a regular expression, or it matches the empty text.
    """
    found = zip(thoughts, _spans([text], thoughts)[0], strict=True)
    return sorted(((thought.name, *span) for thought, spans in found for span in spans), key=lambda span: span[1:])


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How the counts of one kind of thoughts agree with labels.

    Attributes:
      found: thoughts that were counted.
      labelled: thoughts in the labels.
      agreed: the sum over the texts of the smaller one of the two.
    """

    found: int
    labelled: int
    agreed: int

    @property
    def precision(self) -> float:
        """The share of the counted thoughts that are in the labels; NaN if none was counted."""
        return self.agreed / self.found if self.found else math.nan

    @property
    def recall(self) -> float:
        """The share of the labelled thoughts that were counted; NaN if there are none."""
        return self.agreed / self.labelled if self.labelled else math.nan


def agreement(
    texts: Sequence[str], labels: Sequence[Mapping[str, int]], thoughts: Thoughts = THOUGHTS
) -> dict[str, Agreement]:
    """Compares the counts of thoughts with labels, to measure patterns of your own, or ours on your model's responses.

    Args:
      texts: N texts.
      labels: for each text, {name of a kind: number of its thoughts}; kinds without thoughts may be left out.
      thoughts: the kinds of thoughts.

    Returns:
      {name of the kind: its agreement}.

    Raises:
      ValueError: there are not as many labels as texts, or a pattern is not valid (see `count_thoughts`).
    """
    if len(labels) != len(texts):
        raise ValueError(f"there are {len(texts)} texts, but {len(labels)} labels.")
    found = count_thoughts(texts, thoughts)
    wanted = {name: np.array([label.get(name, 0) for label in labels], dtype=np.int64) for name in found}
    return {
        name: Agreement(int(n.sum()), int(wanted[name].sum()), int(np.minimum(n, wanted[name]).sum()))
        for name, n in found.items()
    }


def thoughts_by_step(
    completions: Iterable[Mapping[str, Any]], thoughts: Thoughts = THOUGHTS
) -> list[dict[str, float | int | str]]:
    """Averages the thoughts per response over the responses of each step.

    Args:
      completions: the lines of completions.jsonl, each with `step`, `phase` and `response`.
      thoughts: the kinds of thoughts.

    Returns:
      For each step, in order, {"step", "phase", "responses": how many, name of a kind: mean, ...}.

    Raises:
      ValueError: a pattern is not a regular expression, or it matches the empty text.
    """
    steps: dict[tuple[int, str], list[str]] = defaultdict(list)
    for line in completions:
        steps[line["step"], line["phase"]].append(line["response"])
    rows: list[dict[str, float | int | str]] = []
    for (step, phase), texts in sorted(steps.items()):
        means = {name: float(counts.mean()) for name, counts in count_thoughts(texts, thoughts).items()}
        rows.append({"step": step, "phase": phase, "responses": len(texts), **means})
    return rows


@dataclasses.dataclass(frozen=True)
class Change:
    """How the number of thoughts of one kind per response changed.

    Attributes:
      before: the mean before.
      after: the mean after.
    """

    before: float
    after: float

    @property
    def ratio(self) -> float:
        """after / before; infinite if there were none before, NaN if there are none at all."""
        if self.before == 0:
            return math.inf if self.after else math.nan
        return self.after / self.before


def thoughts_before_and_after(
    before: Sequence[str], after: Sequence[str], thoughts: Thoughts = THOUGHTS
) -> dict[str, Change]:
    """Compares the thoughts per response in two sets of responses to the same problems; the paper's "x 6.54".

    Args:
      before: the texts of responses before training.
      after: the texts of responses after training.
      thoughts: the kinds of thoughts.

    Returns:
      {name of the kind: its change}.

    Raises:
      ValueError: one of the sets is empty, or a pattern is not valid (see `count_thoughts`).
    """
    if not before or not after:
        raise ValueError(f"there is nothing to compare: {len(before)} responses before and {len(after)} after.")
    counts = [count_thoughts(texts, thoughts) for texts in (before, after)]
    return {name: Change(*(float(c[name].mean()) for c in counts)) for name in counts[0]}


def _spans(texts: Sequence[str], thoughts: Thoughts) -> list[list[Spans]]:
    """For each text and each kind, where its thoughts are in the text."""
    finder = _finder(thoughts) if any(thought.openings for thought in thoughts) else None
    found = []
    for text in texts:
        words = own_words(text)
        spans = [_matches(thought.patterns, words) for thought in thoughts]
        if finder:
            spans = [some + more for some, more in zip(spans, finder.find(mark(words)), strict=True)]
        found.append(spans)
    return found


@functools.cache
def _finder(thoughts: Thoughts) -> Finder:
    finder = make_finder(tuple(thought.openings for thought in thoughts))
    if thoughts != THOUGHTS:  # the tests see to ours
        finder.require_valid()
    return finder


def _matches(patterns: tuple[str, ...], words: str) -> Spans:
    if not patterns:
        return []
    return _whole_words(_to_word_edge(patterns, re.IGNORECASE | re.MULTILINE), words)


def _whole_words(matcher: re.Pattern[str], text: str) -> Spans:
    """The matches that begin at the edge of a word. A regular expression that looks for this edge itself is slow."""
    spans: Spans = []
    at: int | None = 0
    while at is not None:
        matches, at = matcher.finditer(text, at), None
        for match in matches:
            span = start, _ = match.span()
            if start and text[start - 1] not in " \n" and _INSIDE_WORD.match(text, start):
                at = start + 1
                break
            spans.append(span)
    return spans


@functools.cache
def _to_word_edge(patterns: tuple[str, ...], flags: int = 0) -> re.Pattern[str]:
    """One expression that matches any of the patterns up to the edge of a word. A single one may begin with flags."""
    flagged = re.match(r"\(\?[aimsux]+\)", patterns[0]) if len(patterns) == 1 else None
    inline = flagged[0] if flagged else ""
    for pattern in patterns:
        try:
            compiled = re.compile(pattern, flags)
        except re.error as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
        if compiled.search(""):
            raise ValueError(f"the regular expression {pattern!r} matches the empty text, so it would match everywhere")
    joined = patterns[0][len(inline) :] if len(patterns) == 1 else "|".join(f"(?:{pattern})" for pattern in patterns)
    try:
        # \B beside a word character means that a word continues.
        return re.compile(rf"{inline}(?:{joined})(?<!\w\B)", flags)
    except re.error as error:  # groups or flags of several patterns that conflict
        raise ValueError(f"{patterns} do not make one regular expression: {error}") from error
