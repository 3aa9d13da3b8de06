"""Thoughts in the text of a response, counted by a regular expression.

A match counts only where it begins and ends at a word's edge: "wait" is found in "Oh, wait!" and neither in "await" nor
in "waiting". An end of the pattern that is no letter, digit or underscore needs no edge: "wait," is found in "wait,no".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np


def count_matches(pattern: str, texts: Sequence[str]) -> np.ndarray:
    """Non-overlapping matches of a regular expression in each text: i64[texts].

    Case matters unless the pattern says otherwise, with "(?i)" in front.

    Raises:
      ValueError: the pattern is not a regular expression, or it matches the empty text.
    """
    matcher = _at_word_edges(pattern)
    return np.array([sum(1 for _ in matcher.finditer(text)) for text in texts], dtype=np.int64)


def _at_word_edges(pattern: str) -> re.Pattern[str]:
    flags = re.match(r"(?:\(\?[aimsux]+\))?", pattern)[0]  # global flags may only stand in front of everything
    try:
        compiled = re.compile(pattern)
        # \B next to a word character: the word goes on. So neither the match's first nor its last word may go on.
        matcher = re.compile(rf"{flags}(?!\B\w)(?:{pattern[len(flags) :]})(?<!\w\B)")
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
    if compiled.search(""):
        raise ValueError(f"the regular expression {pattern!r} matches the empty text, so it would count everywhere")
    return matcher
