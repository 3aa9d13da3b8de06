"""Phrases that are a thought where a sentence or a clause begins with them, and how they are found in marked text.

A regular expression that looks for a beginning and then for one of many phrases is slow, because it tries every
character of a text. A `Finder` looks at beginnings only, and there at the phrases only that begin with the next word.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from prerl_jax.analysis.marked_text import CAPITAL, CLAUSE, SENTENCE

Spans = list[tuple[int, int]]
"""(start, end) of matches in a text."""

SEPARATOR = " / "
_MARKS = {"sentence": SENTENCE, "clause": CLAUSE + CAPITAL + "(\u2014\u2013"}
PLACES = {
    "sentence": ("sentence",),
    "clause": ("sentence", "clause"),
    "anywhere": ("sentence", "clause", "anywhere", "speaker"),
    "speaker": ("speaker",),
}
"""Where an opening of each place counts: what may begin a clause may begin a sentence, too."""

_JUNK = r"[ \t\r\x1d\x1e\"'*_#>\[$-]*+(?:\(?\w\)[ \x1d])?"  # emphasis, bullets, "(a) "
_LEADING = (
    r"(?:(?:but|and|oh|no(?! (?:good|luck|dice))|so|ah|ok|okay|alright|well|yes|yeah|now|also|because|since|please|maybe"
    r"|perhaps|anyway),?[ \x1d\x1e]+){0,2}"
)
_ALSO = (
    r"will|can|could|should|must|might|may|have|had|need\s+to|have\s+to|want\s+to|like\s+to|got\s+to|better|try\s+to"
    r"|try\s+and|now|just|quickly|also|then|next|carefully|really|always|simply|instead|probably|definitely|accidentally"
    r"|actually|seem\s+to|did|briefly|still|only"
)
_SPEAKER = rf"(let(?='s\b|\s+me\b|\s+us\b)|lets|i|we)(?:'ll|'ve|'d|'s|\s+me|\s+us)?(?:\s+(?:{_ALSO})){{0,4}}\s+"


@dataclasses.dataclass(frozen=True)
class Opening:
    """Phrases that are a thought where they stand at the beginning of a sentence or of a clause.

    Attributes:
      place: "sentence", "clause" (or a sentence), "anywhere", or "speaker": after the speaker, as in "let me", "we",
        "I should now" or "I may have".
      phrases: regular expressions for marked text (lower case), separated by " / ". Each begins with a word of the
        letters a to z. A space matches any white space.
      then: a regular expression that follows each phrase.

    Raises:
      ValueError: there is no such place, or a phrase does not begin with a word.
    """

    place: str
    phrases: str
    then: str = ""

    def __post_init__(self) -> None:
        if self.place not in PLACES:
            raise ValueError(f"{self} is at none of the places {', '.join(PLACES)}.")
        if wrong := [
            phrase for phrase in self.phrases.split(SEPARATOR) if not re.match(r"[a-z]+(?![a-z]|[*+?{|])", phrase)
        ]:
            raise ValueError(f"the phrases {wrong} do not begin with a word of the letters a to z, in lower case.")


Openings = tuple[Opening, ...]
_Rests = Sequence[tuple[int, re.Pattern[str]]]
"""Kinds, and what must follow the first word of their phrases."""
_Tried = Mapping[str, _Rests]
"""By the first word."""


@dataclasses.dataclass(frozen=True)
class Finder:
    """Finds the openings of several kinds; `finder` makes one.

    Attributes:
      beginning: matches every beginning. Its groups are the mark (None in the middle of a clause), the speaker (None if
        there is none), and a word.
      tried: for each mark, what is tried after the first word.
      spoken: what is tried after the first word that follows the speaker.
      kinds: the number of kinds.
    """

    beginning: re.Pattern[str]
    tried: Mapping[str | None, _Tried]
    spoken: _Tried
    kinds: int

    def find(self, marked: str) -> list[Spans]:
        """For each kind, where the first of its openings in each sentence is, in the positions of the unmarked text.

        Args:
          marked: a text as `marked_text.mark` returns it.
        """
        found: list[Spans] = [[] for _ in range(self.kinds)]
        counted: set[int] = set()  # the kinds that this sentence has already

        def try_(rests: _Rests, start: int, after: int) -> None:
            for kind, rest in rests:
                if kind not in counted and (match := rest.match(marked, after)):
                    counted.add(kind)
                    found[kind].append((start - 1, match.end() - 1))

        for match in self.beginning.finditer(marked):
            mark, speaker, word = match.groups()
            if mark == SENTENCE:
                counted.clear()
            if speaker:
                try_(self.spoken.get(word, ()), match.start(2), match.end(3))
                try_(self.tried[mark].get(speaker, ()), match.start(2), match.end(2))
            elif rests := self.tried[mark].get(word):
                try_(rests, match.start(3), match.end(3))
        return found


@functools.cache
def finder(kinds: tuple[Openings, ...]) -> Finder:
    """Finds these openings, those of each kind.

    Raises:
      ValueError: an opening is not a regular expression.
    """
    rests: dict[str, dict[str, dict[int, list[str]]]] = {
        place: defaultdict(lambda: defaultdict(list)) for place in PLACES
    }
    for kind, openings in enumerate(kinds):
        for opening in openings:
            for phrase in opening.phrases.split(SEPARATOR):
                word = re.match("[a-z]+", phrase)[0]  # type: ignore[index]  # a phrase begins with a word
                for place in PLACES[opening.place]:
                    rests[place][word][kind].append(f"(?:{phrase[len(word) :]})(?:{opening.then})")
    tried: dict[str, _Tried] = {
        place: {word: [(kind, _rest(tuple(ends))) for kind, ends in found.items()] for word, found in words.items()}
        for place, words in rests.items()
    }
    anywhere = "|".join(("let", "lets", "i", "we", *rests["anywhere"]))
    start = rf"(?:([{''.join(_MARKS.values())}])(?!{SENTENCE}){_JUNK}{_LEADING}| (?=(?:{anywhere})(?![a-z])))"
    by_mark = {mark: tried[place] for place, marks in _MARKS.items() for mark in marks} | {None: tried["anywhere"]}
    return Finder(re.compile(rf"{start}(?:{_SPEAKER})?([a-z]*)"), by_mark, tried["speaker"], len(kinds))


@functools.cache
def _rest(rests: tuple[str, ...]) -> re.Pattern[str]:
    """Matches what follows the first word of an opening, up to the edge of a word."""
    joined = re.sub(r"\[[^\]]*\]| ", lambda m: r"\s+" if m[0] == " " else m[0], "|".join(rests))
    try:
        return re.compile(rf"(?:{joined})(?<!\w\B)")
    except re.error as error:
        raise ValueError(f"the openings with {rests} are not regular expressions: {error}") from error
