"""Phrases that are a thought where a sentence or a clause begins with them, and how they are found in marked text.

A regular expression that looks for a beginning and then for one of many phrases is slow, because it tries every
character of a text. A `Finder` looks at beginnings only, and there at the phrases only that begin with the next word.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

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
    r"(?:(?:but|and|oh|no(?! (?:good|luck|dice))|so|ah|ok|okay|alright|well|yes|yeah|now|also|because|since|please"
    r"|maybe|perhaps|anyway),?[ \x1d\x1e]+){0,2}"
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


@dataclasses.dataclass(frozen=True)
class Tried:
    """What may follow a word that begins phrases of some kinds. Expressions are compiled when they are first needed.

    Attributes:
      rests: (number of the kind, the rests of its phrases) for each of these kinds.
    """

    rests: tuple[tuple[int, tuple[str, ...]], ...]

    @functools.cached_property
    def any(self) -> re.Pattern[str]:
        """Matches the rest of a phrase of any kind."""
        return _compiled([rest for _, rests in self.rests for rest in rests])

    @functools.cached_property
    def each(self) -> list[tuple[int, re.Pattern[str]]]:
        """(number of the kind, what matches the rest of its phrases) for each of these kinds."""
        return [(kind, _compiled(rests)) for kind, rests in self.rests]


@dataclasses.dataclass(frozen=True)
class Finder:
    """Finds the openings of several kinds; `finder` makes one.

    Attributes:
      beginning: matches every beginning. Its groups are the mark (a space in the middle of a clause), the speaker (None
        if there is none), and a word.
      first: for each mark, what is tried after the first word.
      spoken: what is tried after the first word that follows the speaker.
      kinds: the number of kinds.
    """

    beginning: re.Pattern[str]
    first: Mapping[str, Mapping[str, Tried]]
    spoken: Mapping[str, Tried]
    kinds: int

    def find(self, marked: str) -> list[Spans]:
        """For each kind, where the first of its openings in each sentence is, in the positions of the unmarked text.

        Args:
          marked: a text as `marked_text.mark` returns it.
        """
        found: list[Spans] = [[] for _ in range(self.kinds)]
        counted: set[int] = set()  # the kinds that this sentence has already

        def count(tried: Tried | None, start: int, after: int) -> None:
            if tried and (len(tried.rests) == 1 or tried.any.match(marked, after)):
                for kind, rest in tried.each:
                    if kind not in counted and (match := rest.match(marked, after)):
                        counted.add(kind)
                        found[kind].append((start - 1, match.end() - 1))

        for match in self.beginning.finditer(marked):
            mark, speaker, word = match.groups()
            if mark == SENTENCE:
                counted.clear()
            if speaker:
                count(self.spoken.get(word), match.start(2), match.end())
                count(self.first[mark].get(speaker), match.start(2), match.end(2))
            elif tried := self.first[mark].get(word):
                count(tried, match.start(3), match.end())
        return found

    def require_valid(self) -> None:
        """Raises ValueError where an opening is not a regular expression."""
        for words in (*self.first.values(), self.spoken):
            for tried in words.values():
                _ = tried.any


def finder(kinds: tuple[Openings, ...]) -> Finder:
    """Finds these openings, those of each kind."""
    rests: dict[str, dict[str, dict[int, list[str]]]] = {p: defaultdict(lambda: defaultdict(list)) for p in PLACES}
    for kind, openings in enumerate(kinds):
        for opening in openings:
            for phrase in opening.phrases.split(SEPARATOR):
                word = re.match("[a-z]+", phrase)[0]  # type: ignore[index]  # a phrase begins with a word
                for place in PLACES[opening.place]:
                    rests[place][word][kind].append(f"(?:{phrase[len(word) :]})(?:{opening.then})")
    tried = {
        place: {
            word: Tried(tuple((kind, tuple(ends)) for kind, ends in found.items())) for word, found in words.items()
        }
        for place, words in rests.items()
    }
    marks = "".join(_MARKS.values())
    first = {mark: tried[place] for place, some in _MARKS.items() for mark in some} | {" ": tried["anywhere"]}
    anywhere = _one_of({"let", "lets", "i", "we", *tried["anywhere"]})
    # The class of characters comes first, so that regular expressions skip all other characters fast.
    start = rf"([{marks} ])(?!{SENTENCE})(?:(?<= )(?={anywhere}(?![a-z]))|(?<! ){_JUNK}{_LEADING})"
    return Finder(re.compile(rf"{start}(?:{_SPEAKER})?([a-z]*)"), first, tried["speaker"], len(kinds))


def _one_of(words: Iterable[str]) -> str:
    """Matches one of the words. Words with the same first letter are tried together, which is faster."""
    letters = itertools.groupby(sorted(words), key=lambda word: word[0])
    return _any_of(letter + _any_of(word[1:] for word in group) for letter, group in letters)


def _any_of(patterns: Iterable[str]) -> str:
    return f"(?:{'|'.join(patterns)})"


def _compiled(rests: Iterable[str]) -> re.Pattern[str]:
    """Matches one of these, up to the edge of a word."""
    joined = re.sub(r"\[[^\]]*\]| ", lambda m: r"\s+" if m[0] == " " else m[0], _any_of(rests))
    try:
        return re.compile(rf"{joined}(?<!\w\B)")
    except re.error as error:
        raise ValueError(f"the openings with {rests} are not regular expressions: {error}") from error
