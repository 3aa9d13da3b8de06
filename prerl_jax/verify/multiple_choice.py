r"""Multiple choice: the letter that the response chooses.

It is, in this order: the letter in the last \boxed, if there is one; else of the last "answer is X" or "answer: X" (or
choice, or option); else of the whole response, if it is a letter ("B", "(B)") or starts with a marked one ("B. Paris").
A response that names several ("A or B", "A B", "A. B. C.", "A) 12 B) 13") chooses none. What follows "answer is X" is
read to the end of its line, without its reason: "The answer is B because (A) is too small" chooses B.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import NamedTuple

from prerl_jax.data.problems import Problem
from prerl_jax.verify.boxes import last_answers
from prerl_jax.verify.judgement import Judgement, right_or_wrong
from prerl_jax.verify.spelling import LONGEST, STYLE, respelled

_ONE_LETTER = re.compile(
    rf"(?:\\(?:{STYLE}|boxed)\s*+\{{|\*\*|(?<![A-Za-z0-9])(?:[\"'\u201c\[]|__?))"
    r"\s*+\(?([A-Za-z])\)?[.:]?\s*+(?:\}|\*\*|[\"'\u201d\]]|__?(?![A-Za-z0-9]))"
)
_MARKUP = re.compile(r"\\(?:[A-Za-z]{2,}+|[^A-Za-z])?|[{}$*`~\"\u201c\u201d]", re.DOTALL)
_REASON = r"(?:because|since|as|for|but|which|with|due|in|so|from|by|if|is|or|and)\b"
_REASONED = re.compile(r"\b(?:because|since|not|rather|instead|unlike|whereas|while)\b|\n")
_SENTENCE = re.compile(r"(?<!\s[A-Za-z])[.!?](?=\s|\Z)")
_GROUP = re.compile(r"\((?!\s*+[A-Za-z]\s*+\))[^()]*+\)")
_MAYBE = r"(?:maybe|perhaps|possibly|probably|also)"
_OR = rf"(?:or|and|alternatively|plus|as well as|(?:but )?{_MAYBE})"
_SAYS = r"(?:and|or|is|are|was|were|has|have|does|do|did|can|cannot|could|would|will|gives|fails|says|means)\b"
_BETWEEN = rf"(?:{_OR}|even|else|either|both|then|it|could|may|might|can|be|is|the|option|choice|answer|letter)"


@dataclasses.dataclass(frozen=True)
class MultipleChoice:
    """Right if the response chooses the letter of the answer.

    Attributes:
        letters: the possible letters, two or more distinct capitals. A response that chooses a letter which its problem
            does not offer is wrong.

    Raises ValueError for other letters.
    """

    letters: str = "ABCDEFGHIJ"

    def __post_init__(self) -> None:
        if not re.fullmatch("[A-Z]{2,}", self.letters) or len(set(self.letters)) < len(self.letters):
            raise ValueError(f"MultipleChoice needs two or more distinct capital letters, got {self.letters!r}")

    def __call__(self, problem: Problem, response: str) -> Judgement:
        """The judgement of one response; never raises on a response.

        Raises:
            ValueError: the problem's ground truth is not one of the letters.
        """
        gold, answer = self._gold(problem), choice(response, self.letters)
        return right_or_wrong(answer == gold, answer, format_ok=answer is not None)

    def check(self, problem: Problem) -> None:
        """Raises ValueError if the ground truth is not one of the letters."""
        self._gold(problem)

    def write(self, problem: Problem) -> str:
        """The letter in a box."""
        return rf"\boxed{{{self._gold(problem)}}}"

    def _gold(self, problem: Problem) -> str:
        gold = _marked(problem.answer, self.letters)
        if gold is None:
            raise ValueError(f"the ground truth is not one letter of {self.letters!r}: {problem}")
        return gold


def choice(response: str, letters: str) -> str | None:
    """The letter that the response chooses, or None."""
    if r"\boxed{" in response or last_answers(response):
        chosen = {_marked(box, letters) for box in last_answers(response)}
        return chosen.pop() if len(chosen) == 1 else None
    plain = _plain(response)
    *_, stated = (None, *_starts(letters).stated.finditer(plain))
    if stated is not None:
        after = plain[stated.end() : stated.end() + LONGEST]
        said = _REASONED.split(after, maxsplit=1)[0]
        return _only(_letter(stated), letters, after, _SENTENCE.split(said, maxsplit=1)[0], said)
    found = _starts(letters).whole.match(plain)
    return _only_of(found, plain[:LONGEST], letters)


def _marked(text: str, letters: str) -> str | None:
    """The letter that a box or a truth consists of, or starts with: "B", "(B)", "b", "B: Paris"."""
    if len(text) > LONGEST:
        return None
    plain = _plain(text)
    return _only_of(_starts(letters).boxed.match(plain), plain, letters)


def _only_of(found: re.Match[str] | None, plain: str, letters: str) -> str | None:
    if found is None:
        return None
    after = plain[found.end() :]
    return _only(_letter(found), letters, after, after, after)


def _only(letter: str, letters: str, after: str, sentence: str, listed: str) -> str | None:
    """The letter, or None if another one is named after it.

    Args:
        letter: the letter that was found.
        letters: the possible letters.
        after: the text that follows it, where another letter may be joined to it.
        sentence: the part of it where another letter in parentheses counts.
        listed: the part of it where another letter at the start of an option counts, as in "A) 12 B) 13".
    """
    others = _others(letters, letter)
    several = (
        others.joined.match(after)
        or others.bracketed.search(sentence)
        or others.listed.search(_GROUP.sub(" ", f" {listed}"))
    )
    return None if several else letter


def _letter(found: re.Match[str]) -> str:
    return next(letter for letter in found.groups() if letter).upper()


def _plain(text: str) -> str:
    r"""The text without markup; a letter in bold, in quotes or in \text{...} is put into parentheses."""
    return _MARKUP.sub(" ", _ONE_LETTER.sub(r" (\1) ", respelled(text))).strip()


class _Starts(NamedTuple):
    """Patterns that find a chosen letter: `stated` anywhere, `whole` and `boxed` at the start of a text."""

    stated: re.Pattern[str]
    whole: re.Pattern[str]
    boxed: re.Pattern[str]


@functools.cache
def _starts(letters: str) -> _Starts:
    capital, any_case = f"[{letters}]", f"[{letters}{letters.lower()}]"
    word = rf"(?![AI]\s++(?!{_REASON})[a-z])"  # "A number" and "I think" are no letters
    bare = rf"{word}({capital})(?![A-Za-z0-9'])"
    # Possessive repetitions (*+): a failed match is not retried with fewer characters, so hostile text costs little.
    parens = rf"\(\s*+({any_case})\s*+\)"
    return _Starts(
        stated=re.compile(
            r"(?i:answer|option|choice)\s*+(?:(?i:is)\b\s*+:?|:)\s*+(?i:option\b|choice\b)?\s*+"
            rf"(?:{parens}|{bare}|([{letters.lower()}])(?=\s?\)|\.?\s*+(?:\n|\Z)))"
        ),
        whole=re.compile(rf"{parens}|({capital})\s?[.:)](?=\s|\Z)|({any_case})[.:)]?\Z"),
        boxed=re.compile(
            rf"(?:(?i:the )?(?i:answer|option|choice)\b(?: is)?\s*+:?)?\s*+"
            rf"(?:{parens}|({any_case})\s?[.:)](?![A-Za-z0-9])|({any_case})\Z|({capital})(?=\s*+\())"
        ),
    )


class _Others(NamedTuple):
    """Patterns that find another letter: `joined` right after the chosen one, the others anywhere behind it."""

    joined: re.Pattern[str]
    bracketed: re.Pattern[str]
    listed: re.Pattern[str]


@functools.cache
def _others(letters: str, chosen: str) -> _Others:
    left = letters.replace(chosen, "")
    capital, small = f"[{left}]", f"[{left.lower().replace('i', '')}]"
    word = rf"(?![AI]\s++(?!{_REASON})[a-z])"
    one = rf"(?:\(\s*+(?:{capital}|{small})\s*+\)|{word}{capital}(?![A-Za-z0-9']))"
    end = r"(?=\s*+(?:[.:)?!|]|\Z|\n))"
    gap = rf"(?:[\s,]*+(?:{_BETWEEN}\b|\(?{chosen}\)?(?![A-Za-z0-9'])))*+\s*+"
    series = rf"{one}(?:\s*+(?:[,;/&+|-]|\b(?:or|and)\b)?\s*+(?:{one}))*+"
    return _Others(
        joined=re.compile(
            rf"[.):?!]?\s*+\(?(?:(?i:{_OR}\b)|[,;/&+|]|-++){gap}(?:{one}|{small}(?!\.[a-z]){end})"
            rf"|[\s.):?!(]*+{series}{end}"
            rf"|[ \t]*+{one}(?=\s*+(?:(?:[,;/&]|\b(?:or|and)\b)?\s*+{one}|(?:is|are)\b))"
        ),
        bracketed=re.compile(rf"(?<![A-Za-z0-9])\(\s*+(?:{capital}|{small})\s*+\)"),
        listed=re.compile(
            rf"(?<![A-Za-z0-9])(?<![A-Za-z] )\(\s*+(?:{capital}|{small})\s*+\)(?!\s*+(?:,|{_SAYS}))"
            rf"|(?<=[\s,;:/)])(?:{capital}|{small})\s?(?:[:)]|\.(?=\s++\S))(?![A-Za-z0-9])"
            rf"|(?<![A-Za-z]{{3}}\s)(?<=[\s.,;:/)]){capital}\s?\.(?=\s|\Z)"
        ),
    )
