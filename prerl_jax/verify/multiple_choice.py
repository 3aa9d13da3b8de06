r"""Multiple choice: the letter that the response chooses.

It is, in this order: the letter in the last \boxed, if there is one; else of the last "answer is X" or "answer: X" (or
choice, or option); else of the whole response, if it is a letter ("B", "(B)") or starts with a marked one ("B. Paris").
A response that names several at once ("A or B", "A. B. C.") chooses none.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import NamedTuple

from prerl_jax.data.problems import Problem
from prerl_jax.verify.boxes import last_answers
from prerl_jax.verify.judgement import Judgement, right_or_wrong
from prerl_jax.verify.spelling import LONGEST, respelled

_ONE_LETTER = re.compile(
    r"(?:\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mathit|mathsf|mbox|boxed)\s*+\{|\*\*)"
    r"\s*+\(?([A-Za-z])\)?[.:]?\s*+(?:\}|\*\*)"
)
_MARKUP = re.compile(r"\\(?:[A-Za-z]++|.)|[{}$*`~]", re.DOTALL)
_REASON = r"(?:because|since|as|for|but|which|with|due|in|so|from|by|if|is|or|and)\b"


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
    plain, patterns = _plain(response), _patterns(letters)
    *_, stated = (None, *patterns.stated.finditer(plain))
    if stated is not None:
        several = patterns.joined.match(plain, stated.end())
        return None if several else _letter(stated)
    found = patterns.whole.match(plain)
    return _only(found, plain[:LONGEST], letters) if found else None


def _marked(text: str, letters: str) -> str | None:
    """The letter that a box or a truth consists of, or starts with: "B", "(B)", "b", "B: Paris"."""
    if len(text) > LONGEST:
        return None
    plain = _plain(text)
    found = _patterns(letters).boxed.match(plain)
    return _only(found, plain, letters) if found else None


def _only(found: re.Match[str], plain: str, letters: str) -> str | None:
    """The letter of a match at the start of a text; None if the text goes on with another one."""
    patterns = _patterns(letters)
    return (
        None
        if patterns.joined.match(plain, found.end()) or patterns.marked.search(plain, found.end())
        else _letter(found)
    )


def _letter(found: re.Match[str]) -> str:
    return next(letter for letter in found.groups() if letter).upper()


def _plain(text: str) -> str:
    r"""The text without markup; a letter in bold or in \text{...} is put into parentheses."""
    return _MARKUP.sub(" ", _ONE_LETTER.sub(r" (\1) ", respelled(text))).strip()


class _Patterns(NamedTuple):
    """Patterns for a set of letters: `stated`, `whole` and `boxed` find a letter, `joined` and `marked` another one."""

    stated: re.Pattern[str]
    whole: re.Pattern[str]
    boxed: re.Pattern[str]
    joined: re.Pattern[str]
    marked: re.Pattern[str]


@functools.cache
def _patterns(letters: str) -> _Patterns:
    capital, any_case = f"[{letters}]", f"[{letters}{letters.lower()}]"
    word = rf"(?![AI]\s++(?!{_REASON})[a-z])"  # "A number" and "I think" are no letters
    bare = rf"{word}({capital})(?![A-Za-z0-9'])"
    # Possessive repetitions (*+): a failed match is not retried with fewer characters, so hostile text costs little.
    parens = rf"\(\s*+({any_case})\s*+\)"
    return _Patterns(
        stated=re.compile(
            r"(?i:answer|option|choice)\s*+(?:(?i:is)\b\s*+:?|:)\s*+(?i:option\b|choice\b)?\s*+"
            rf"(?:{parens}|{bare}|([{letters.lower()}])(?=\s?\)|\.?\s*+(?:\n|\Z)))"
        ),
        whole=re.compile(rf"{parens}|({capital})\s?[.:)](?=\s|\Z)|({any_case})[.:)]?\Z"),
        boxed=re.compile(
            rf"(?:(?i:the )?(?i:answer|option|choice)\b(?: is)?\s*+:?)?\s*+"
            rf"(?:{parens}|({any_case})\s?[.:)](?![A-Za-z0-9])|({any_case})\Z)"
        ),
        joined=re.compile(
            rf"[.):]?\s*+(?:or\b|and\b|[,;/&+])\s*+(?:or\b|and\b)?\s*+(?:\(\s*+{any_case}\s*+\)|{word}{capital}\b)"
        ),
        marked=re.compile(
            rf"(?<![A-Za-z0-9])\(\s*+{capital}\s*+\)"
            rf"|(?:^|(?<=[\n.,;:/)] )|(?<=[\n.,;:/)])|(?<=\bor )|(?<=\band )){capital}\s?[.:)](?=\s|\Z)"
        ),
    )
