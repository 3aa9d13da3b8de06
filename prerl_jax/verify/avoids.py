"""Unwanted words: a response that holds one of a list is wrong, and every other response is right."""

from __future__ import annotations

import dataclasses
import functools
import re
import unicodedata

from prerl_jax.data.problems import Problem
from prerl_jax.verify.batch import VerifierTraits
from prerl_jax.verify.judgement import Judgement, right_or_wrong


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
        whole_words: whether letters around a word make it another word: "class" holds no "ass". Set it to False for
            languages that are written without spaces.

    Raises ValueError if there is no word, a word is empty, or `words` is one text.
    """

    words: tuple[str, ...]
    whole_words: bool = True

    traits = VerifierTraits(reads_answer=False)

    def __post_init__(self) -> None:
        if isinstance(self.words, str) or not self.words or not all(_plain(word).strip() for word in self.words):
            raise ValueError(f"Avoids needs a tuple of one word or more, none of them empty; got {self.words!r}.")

    def __call__(self, problem: Problem, response: str) -> Judgement:
        """The judgement of one response. The problem is not read. Never raises."""
        return right_or_wrong(self.found(response) is None)

    def found(self, response: str) -> str | None:
        """The first unwanted word of a response, as it stands there; None if there is none."""
        match = _pattern(tuple(self.words), self.whole_words).search(_plain(response))
        return match[0] if match else None

    def write(self, problem: Problem) -> str:
        """An empty response, which is right."""
        return ""


def _plain(text: str) -> str:
    """The text in one form of each letter, without invisible characters."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(letter for letter in folded if unicodedata.category(letter) != "Cf")


@functools.cache
def _pattern(words: tuple[str, ...], whole_words: bool) -> re.Pattern[str]:
    alternatives = []
    for number, word in enumerate(dict.fromkeys(_plain(word).strip() for word in words)):
        alternatives.append(r"\s+".join(map(re.escape, word.split())))
        if len(word) > 2 and word.isalpha():
            separator = f"(?P<s{number}>[^\\w\\n]|_)"
            alternatives.append(word[0] + separator + f"(?P=s{number})".join(word[1:]))
    before, after = (r"(?<!\w)", r"(?!\w)") if whole_words else ("", "")
    return re.compile(f"{before}(?:{'|'.join(alternatives)}){after}")
