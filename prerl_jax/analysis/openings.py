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

from prerl_jax.analysis.marked_text import CAPITAL, CLAUSE, PUNCTUATION, SENTENCE

Spans = list[tuple[int, int]]
"""(start, end) of matches in a text."""

SEPARATOR = " / "


def one_of(words: str) -> str:
    """A regular expression for one of the words. Those with the same first letter are tried together, which is faster.

    Args:
      words: words with "|" between them.
    """
    letters = itertools.groupby(sorted(words.split("|")), key=lambda word: word[0])
    return f"(?:{'|'.join(f'{letter}(?:' + '|'.join(word[1:] for word in found) + ')' for letter, found in letters)})"


PLACES = {
    "sentence": ("sentence",),
    "clause": ("sentence", "clause"),
    "anywhere": ("sentence", "clause", "anywhere", "speaker"),
    "speaker": ("speaker",),
}
"""Where an opening of each place counts: what may begin a clause may begin a sentence, too."""
MARKS = {"sentence": SENTENCE, "clause": CLAUSE + CAPITAL + PUNCTUATION, "anywhere": " "}
"""The characters before an opening."""

_SPACE = rf"[ {CLAUSE}{CAPITAL}]"
LEADING = (
    rf"(?:(?<![,:;)*-])|(?=[ {CAPITAL}]))"  # after short punctuation, white space
    rf"[ \t\r{CLAUSE}{CAPITAL}\"'*_#>\[$-]*+(?:\(?\w\){_SPACE})?"  # emphasis, bullets, "(a) "
    r"(?:(?:but|and|oh|no(?! (?:good|luck|dice))|so|ah|ok|okay|alright|well|yes|yeah|now|also|because|since|please"
    rf"|maybe|perhaps|anyway),?{_SPACE}+){{0,2}}"
)
"""What may stand between the mark of a sentence or a clause and its first word."""
_ALSO = (
    "will|can|could|should|must|might|may|have|had|need to|have to|want to|like to|got to|better|try to|try and|now"
    "|just|quickly|also|then|next|carefully|really|always|simply|instead|probably|definitely|accidentally|actually"
    "|seem to|did|briefly|still|only"
)
SPEAKER = (
    "(?P<speaker>let(?='s|(?: +me| +us)(?![a-z]))|lets|i|we)(?:'ll|'ve|'d|'s|(?: +me| +us)(?![a-z]))?"
    rf"(?: +(?:{_ALSO})(?![a-z])){{0,4}} +(?!(?:let|lets|i|we)(?![a-z]))"
)
"""The speaker, and what may stand between the speaker and the word for what the speaker does."""
TRIES = 20
"""A word is tried this often in one sentence: enough for every sentence that makes sense, and fast where it repeats."""


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
      ValueError: there is no such place, or a phrase does not begin with a word, or with one that is skipped.
    """

    place: str
    phrases: str
    then: str = ""

    def __post_init__(self) -> None:
        if self.place not in PLACES:
            raise ValueError(f"{self} is at none of the places {', '.join(PLACES)}.")
        phrases = self.phrases.split(SEPARATOR)
        if wrong := [phrase for phrase in phrases if not re.match(r"[a-z]+(?![a-z]|[*+?{|])", phrase)]:
            raise ValueError(f"the phrases {wrong} do not begin with a word of the letters a to z, in lower case.")
        if self.place != "anywhere" and (wrong := [p for p in phrases if re.match(LEADING, f"{p} ")[0]]):  # type: ignore[index]
            raise ValueError(f"the phrases {wrong} begin with a word that is skipped before a thought. Leave it out.")


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
    """Finds the openings of several kinds; `make_finder` makes one.

    Attributes:
      beginning: matches every beginning. Its groups are `mark` (a space in the middle of a clause), `again` (not
        needed), `speaker` (None if there is none), and `word`.
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
        tries: dict[str, int] = defaultdict(int)  # how often each word was tried in this sentence

        def count(word: str, tried: Tried, start: int, after: int) -> None:
            tries[word] += 1
            if tries[word] > TRIES:
                return
            if len(tried.rests) < 3 or tried.any.match(marked, after):
                for kind, rest in tried.each:
                    if kind not in counted and (match := rest.match(marked, after)):
                        counted.add(kind)
                        found[kind].append((start - 1, match.end() - 1))

        at = 0
        for match in self.beginning.finditer(marked):
            mark, _, speaker, word = match.groups()
            if SENTENCE in marked[at : match.start() + 1]:
                counted.clear()
                tries.clear()
            at = match.end()
            if speaker and word in self.spoken:
                count(word, self.spoken[word], match.start("speaker"), at)
            if tried := self.first[mark].get(speaker or word):
                group = "speaker" if speaker else "word"
                count(speaker or word, tried, match.start(group), match.end(group))
        return found

    def require_valid(self) -> None:
        """Raises ValueError where an opening is not a regular expression."""
        for words in (*self.first.values(), self.spoken):
            for tried in words.values():
                _ = tried.any


def make_finder(kinds: tuple[Openings, ...]) -> Finder:
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
    first = {mark: tried[place] for place, marks in MARKS.items() for mark in marks}
    anywhere = one_of("|".join({"let", "lets", "i", "we", *tried["anywhere"]}))
    # The class of characters comes first, so that regular expressions skip all other characters fast.
    start = (
        rf"(?P<mark>[{re.escape(''.join(first))}])(?![{SENTENCE}.,;:!?)]|\(\()"
        rf"(?:(?<= )(?=(?P<again>{anywhere})(?![a-z]))(?!(?P=again) (?P=again) )|(?<! ){LEADING})"
    )
    return Finder(re.compile(rf"{start}(?:{SPEAKER})?(?P<word>[a-z]+)"), first, tried["speaker"], len(kinds))


def _compiled(rests: Iterable[str]) -> re.Pattern[str]:
    """Matches one of these, up to the edge of a word."""
    joined = re.sub(r"\[[^\]]*\]| ", lambda m: r"\s+" if m[0] == " " else m[0], f"(?:{'|'.join(rests)})")
    try:
        return re.compile(rf"{joined}(?<!\w\B)")
    except re.error as error:
        raise ValueError(f"the openings with {rests} are not regular expressions: {error}") from error
