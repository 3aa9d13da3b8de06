"""Phrases that are a thought where a sentence or a clause begins with them, and how they are found in marked text.

Regular expressions that look for a beginning and then for one of many phrases are slow, because they try every character
of a text. `find_openings` looks at the beginnings only, and tries only the phrases that begin with the word there.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections import defaultdict
from collections.abc import Sequence

from prerl_jax.analysis.marked_text import CAPITAL, CLAUSE, SENTENCE

Spans = list[tuple[int, int]]
"""(start, end) of matches in a text."""

PLACES = {"sentence": "\n" + SENTENCE, "clause": CLAUSE + CAPITAL + "(\u2014\u2013", "anywhere": ""}
"""Where an opening may be, from the strictest place on: the marks of that place and of all places before it."""
JUNK = r"[ \t\r\x1c-\x1f\"'*_#>\[$-]{0,8}(?:\(?\w[.)]\s)?"
"""What may stand between a mark and its first word: emphasis, bullets, "(a) "."""
LEADING = (
    r"(?:(?:but|and|oh|no|so|ah|ok|okay|alright|well|yes|yeah|uh|um|now|or|then|also|because|since|please),?\s+){0,2}"
)
"""Words that may stand before the thought."""


@dataclasses.dataclass(frozen=True)
class Opening:
    """Phrases that are a thought where they stand at the beginning of a sentence or of a clause.

    Attributes:
      place: "sentence", "clause" (which a sentence also begins), or "anywhere".
      phrases: regular expressions for marked text (lower case). Each begins with a word of plain letters, and a space in
        it matches any white space.
      then: a regular expression that follows each phrase.

    Raises:
      ValueError: there is no such place, no phrase, or a phrase that does not begin with a word.
    """

    place: str
    phrases: tuple[str, ...]
    then: str = ""

    def __post_init__(self) -> None:
        if self.place not in PLACES or not self.phrases:
            raise ValueError(f"{self} needs at least one phrase, and one of the places {', '.join(PLACES)}.")
        if wrong := [phrase for phrase in self.phrases if not re.match(r"[a-z]+(?![a-z]|[*+?{|])", phrase)]:
            raise ValueError(f"the phrases {wrong} do not begin with a word of the letters a to z, in lower case.")


Openings = tuple[Opening, ...]
_Table = dict[str | None, dict[str, list[tuple[int, tuple[str, ...]]]]]


def find_openings(marked: str, kinds: tuple[Openings, ...]) -> list[Spans]:
    """Finds the openings of several kinds in a text.

    Args:
      marked: a text as `marked_text.mark` returns it.
      kinds: the openings of each kind.

    Returns:
      For each kind, where the first of its openings in each sentence is, in the positions of the unmarked text.

    Raises:
      ValueError: an opening is not a regular expression.
    """
    beginning, table = _index(kinds)
    found: list[Spans] = [[] for _ in kinds]
    last = [0] * len(kinds)
    for match in beginning.finditer(marked):
        first = match.lastindex or 0
        for kind, rests in table[match[1]].get(match[first], ()):
            if hit := _rest(rests).match(marked, match.end()):
                start = match.start(first)
                if not found[kind] or _sentence_ends(marked, last[kind], start):
                    found[kind].append((start - 1, hit.end() - 1))
                last[kind] = start
    return found


def require_valid(openings: Openings) -> None:
    """Raises ValueError where one of them is not a regular expression."""
    for rests in {rests for words in _index((openings,))[1].values() for found in words.values() for _, rests in found}:
        _rest(rests)


def _sentence_ends(marked: str, start: int, end: int) -> bool:
    return any(marked.find(sign, start, end) >= 0 for sign in PLACES["sentence"])


@functools.cache
def _index(kinds: tuple[Openings, ...]) -> tuple[re.Pattern[str], _Table]:
    """An expression for all beginnings, and {its group 1, the mark: {its last group, the word: what may follow}}."""
    rests: dict[str, dict[str, dict[int, list[str]]]] = {p: defaultdict(lambda: defaultdict(list)) for p in PLACES}
    for kind, openings in enumerate(kinds):
        for opening in openings:
            for phrase in opening.phrases:
                word = re.match("[a-z]+", phrase)[0]  # type: ignore[index]  # __post_init__ has seen to it
                for place in _within(opening.place):
                    rests[place][word][kind].append(f"(?:{phrase[len(word) :]})(?:{opening.then})")
    table: _Table = {}
    for place, words in rests.items():
        tried = {word: [(kind, tuple(rest)) for kind, rest in kinds.items()] for word, kinds in words.items()}
        table |= dict.fromkeys(PLACES[place] or (None,), tried)
    marks = re.escape("".join(PLACES.values()))
    anywhere = "|".join(rests["anywhere"]) or "(?!)"
    return re.compile(rf"([{marks}]){JUNK}{LEADING}([a-z]+)| ((?:{anywhere})(?![a-z]))"), table


def _within(place: str) -> Sequence[str]:
    """The place, and the stricter ones."""
    return list(PLACES)[: list(PLACES).index(place) + 1]


@functools.cache
def _rest(rests: tuple[str, ...]) -> re.Pattern[str]:
    """Matches what follows the first word of an opening. It ends at the edge of a word."""
    joined = re.sub(r"\[[^\]]*\]| ", lambda m: r"\s+" if m[0] == " " else m[0], "|".join(rests))
    try:
        return re.compile(rf"(?:{joined})(?<!\w\B)")
    except re.error as error:
        raise ValueError(f"the openings with {rests} are not regular expressions: {error}") from error
