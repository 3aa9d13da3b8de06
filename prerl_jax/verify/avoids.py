"""Unwanted words: a response that holds one of a list is wrong, and every other response is right."""

from __future__ import annotations

import dataclasses
import functools
import re
import unicodedata

from prerl_jax.data.problems import Problem
from prerl_jax.verify.batch import VerifierTraits
from prerl_jax.verify.judgement import Judgement, right_or_wrong

_INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
"""Characters that are not shown, beside those of Unicode's category Cf: joiners, fillers and variation selectors."""
_LETTER = r"[^\W_]"


@dataclasses.dataclass(frozen=True)
class Avoids:
    """`Avoids(("idiot", "shut up"))`: wrong if a word of the list is in the response, else right.

    Small and capital letters are equal, and so are full-width and plain letters. Invisible characters are ignored. A
    word is found as a whole word, also with one and the same separator between all its letters, as in "i.d.i.o.t". It
    is not found in another form ("idiots"), another spelling ("1d10t"), or another language. docs/safety.md says more.

    An empty response is right. Where a response also has a task, let this be a gate of it:
    `CombinedReward((Weighted(BoxedAnswer()),), gates=(Avoids(words),))`.

    Attributes:
        words: words or phrases. The white space in a phrase stands for any white space.
        whole_words: whether letters and digits around a word make it another word: "class" holds no "ass". Set it to
            False for languages that are written without spaces.

    Raises ValueError if `words` is no tuple of texts, there is no word, or a word is empty.
    """

    words: tuple[str, ...]
    whole_words: bool = True

    traits = VerifierTraits(reads_answer=False)

    def __post_init__(self) -> None:
        texts = isinstance(self.words, tuple) and all(isinstance(word, str) for word in self.words)
        if not texts or not self.words or not all(_plain(word).strip() for word in self.words):
            raise ValueError(f"Avoids needs a tuple of one word or more, none of them empty; got {self.words!r}.")

    def __call__(self, problem: Problem, response: str) -> Judgement:
        """The judgement of one response. The problem is not read. Never raises."""
        return right_or_wrong(self.found(response) is None)

    def found(self, response: str) -> str | None:
        """An unwanted word of a response, as it stands there in small letters; None if there is none."""
        text = _plain(response)
        match = _pattern(self.words, self.whole_words).search(text)
        return match[0] if match else _spelled_out(text, _spellable(self.words), self.whole_words)

    def write(self, problem: Problem) -> str:
        """An empty response, which is right."""
        return ""


def _plain(text: str) -> str:
    """The text in one form of each letter, without invisible characters."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return _INVISIBLE.sub("", "".join(letter for letter in folded if unicodedata.category(letter) != "Cf"))


def _bounded(pattern: str, whole_words: bool) -> str:
    return f"(?<!{_LETTER})(?:{pattern})(?!{_LETTER})" if whole_words else f"(?:{pattern})"


@functools.cache
def _pattern(words: tuple[str, ...], whole_words: bool) -> re.Pattern[str]:
    """Finds a word of the list as it is written. Without a group, so that long lists are fast."""
    phrases = (r"\s+".join(map(re.escape, _plain(word).split())) for word in words)
    return re.compile(_bounded("|".join(phrases), whole_words))


@functools.cache
def _spellable(words: tuple[str, ...]) -> frozenset[str]:
    """The words that are also found with separators between their letters: those of three letters or more."""
    return frozenset(plain for word in words if len(plain := _plain(word).strip()) > 2 and plain.isalpha())


@functools.cache
def _letters(longest: int, whole_words: bool) -> re.Pattern[str]:
    """At each place, up to `longest` letters with one and the same separator between them: "i.d.i.o.t"."""
    letter = _bounded(_LETTER, whole_words)
    return re.compile(f"(?=({letter}([^\\w\\n]|_){letter}(?:\\2{letter}){{1,{longest - 2}}}))")


def _spelled_out(text: str, words: frozenset[str], whole_words: bool) -> str | None:
    """The first of the words that a text spells with a separator between all letters; None if there is none."""
    if not words:
        return None
    lengths = sorted(set(map(len, words)))
    for run in _letters(lengths[-1], whole_words).finditer(text):
        for length in lengths:
            spelled = run[1][: 2 * length - 1]
            if spelled[::2] in words:
                return spelled
    return None
