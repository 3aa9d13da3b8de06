r"""Whether two mathematical answers are equal, by their form: numbers, words, lists, tuples, intervals, named values.

What is left, one expression on each side, is for a function that the caller gives.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable

from prerl_jax.verify.boxed import equivalent
from prerl_jax.verify.numbers import read_number, same_number
from prerl_jax.verify.spelling import STYLE, TEXT, undecorated

Compare = Callable[[str, str], bool | None]
"""(answer, gold) -> whether two expressions are equal; None if nobody knows."""
_DROPPED = re.compile(r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|limits)(?![A-Za-z])|\^\s*\{?\s*\\circ\s*\}?")
_TOKEN = re.compile(r"\\.|.", re.DOTALL)
_OPENING, _CLOSING = ("(", "[", "{", r"\{"), (")", "]", "}", r"\}")
_AND = re.compile(rf"\\{TEXT}\s*\{{[\s,]*(?:and|or)\s*\}}|(?<![\\A-Za-z])(?:and|or)(?![A-Za-z])")
_ORDER = re.compile(r"[<>]|\\[lg]e(?:q|qslant|qq)?(?![A-Za-z])|\\[lg]t(?![A-Za-z])")
_NAMED = re.compile(r"\s*(?=[A-Za-z\\])([^=<>+*/^,;-]{1,40}?)\s*(?:=|\\in(?![A-Za-z]))\s*([^=<>]+)", re.DOTALL)
_SUM = re.compile(
    r"\s*(?:[1-9][0-9]{0,5}\s*)?[A-Za-z](?:\s*[+-]\s*(?:[1-9][0-9]{0,5}\s*)?[A-Za-z]){1,7}\s*=\s*([^=<>]+)", re.DOTALL
)
_LOG = re.compile(r"\\log(?![A-Za-z]|\s*_)")
_TEXT = re.compile(rf"\\{STYLE}\s*\{{([^{{}}]*)\}}")
_WORDS = re.compile(r"[^\W\d_]+(?:(?: |(?<=[^\W\d_]{2})['-](?=[^\W\d_]{2}))[^\W\d_]+)*")
_UNIT_ONLY = re.compile(r"\\text\{ (?!(?:or|and|not|if)\b)[A-Za-z][A-Za-z .'/]*\}(?:\^\{?[23]\}?)?\.?\s*")


def tidy(text: str) -> str:
    r"""An answer without decoration, \left, \right and degree signs."""
    return _DROPPED.sub("", undecorated(text)).replace("dfrac", "frac").replace("tfrac", "frac").strip()


def same_answer(answer: str, gold: str, compare: Compare) -> bool | None:
    """Whether an answer is right; None if `compare` has to decide and does not know.

    Args:
        answer: the answer, see `tidy`.
        gold: the ground truth, see `tidy`.
        compare: compares two expressions that are no numbers, words or lists.
    """
    answer = unsummed(answer, gold)
    if same_spelling(answer, gold):
        return True
    number, truth = read_number(answer), read_number(gold)
    if number and truth:
        return same_number(number, truth)
    if _ORDER.search(answer) or _ORDER.search(gold):
        return compare(answer, gold)
    named, wanted_name = named_value(answer), named_value(gold)
    if named and wanted_name:
        return same_answer(named[1], wanted_name[1], compare) or compare(answer, gold)
    if (named or wanted_name) and answer.count("=") + gold.count("=") < 2:
        return same_answer(named[1] if named else answer, wanted_name[1] if wanted_name else gold, compare)
    given, wanted = read_form(answer), read_form(gold)
    if len(given.elements) != 1 or len(wanted.elements) != 1:
        return _same_elements(given, wanted, compare)
    if given.brackets != wanted.brackets and not {given.brackets, wanted.brackets} <= {"", "()", "{}"}:
        return False
    if (given.elements, wanted.elements) != ((answer,), (gold,)):
        return same_answer(given.elements[0], wanted.elements[0], compare)
    said, meant = _words(answer), _words(gold)
    if said and meant:
        return said == meant
    if _is_text(answer, said) or _is_text(gold, meant):
        return False
    return compare(answer, gold)


def same_spelling(answer: str, gold: str) -> bool:
    r"""The published string rule, except that it drops only a unit and a name: "5 \text{ or } 6" and 6=5 are not 5."""
    if not equivalent(answer, gold):
        return False
    if answer.replace(" ", "") == gold.replace(" ", ""):
        return True
    start = answer.find(r"\text{ ")
    left, equals, _ = answer.partition("=")
    return not (equals and re.search("[0-9]", left)) and (start < 0 or bool(_UNIT_ONLY.fullmatch(answer[start:])))


def named_value(text: str) -> tuple[str, str] | None:
    r"""The name and the value of "x = 5", "f(x) = 2x" or "x \in [1,2]"; None for anything else, such as 6 = 5."""
    found = _NAMED.fullmatch(text)
    return (found[1].replace(" ", ""), found[2].strip()) if found else None


def stated_value(text: str, truth: str) -> str:
    """The number that an answer gives to a name: 5 for "x = 5", 113 for "m+n = 113"; else the text as it is.

    "m+n = 113" is an equation, and not a name, if the truth is an equation.
    """
    text = unsummed(text, truth)
    named = named_value(text) if len(text) < 200 else None
    return named[1] if named and read_number(named[1]) else text


def unsummed(answer: str, gold: str) -> str:
    """The number on the right of "m+n = 113", a sum of letters, if the truth is no equation; else the answer."""
    found = None if "=" in gold or len(answer) >= 200 else _SUM.fullmatch(answer)
    return found[1].strip() if found and read_number(found[1]) else answer


def natural(answer: str, gold: str) -> str:
    r"""The answer with \ln for a \log without a base, if the truth has \ln and no \log."""
    return _LOG.sub(r"\\ln", answer) if r"\ln" in gold and r"\log" not in gold else answer


def _words(text: str) -> str | None:
    r"""The words that the text consists of, in lower case if there is more than one letter: "\text{(A)}" is A."""
    text = " ".join(undecorated(_TEXT.sub(r"\1", text)).split())
    text = text[1:-1].strip() if text.startswith("(") and text.endswith(")") else text
    if not _WORDS.fullmatch(text):
        return None
    return text.casefold() if len(text) > 1 else text


def _is_text(text: str, words: str | None) -> bool:
    """Whether words are no product of variables, such as xy."""
    return words is not None and ("text" in text or len(words) > 3)


@dataclasses.dataclass(frozen=True)
class Form:
    r"""A list, tuple, set or interval; one element for anything else.

    Attributes:
        brackets: the opening and the closing bracket: "()", "[)", "{}" for \{ and \}; "" for none.
        elements: what stands between the commas.
    """

    brackets: str
    elements: tuple[str, ...]


def read_form(text: str) -> Form:
    r"""The form of an answer. "and" and "or" are commas, and 1 \pm 2 outside of a tuple is the list 1 + 2, 1 - 2.

    A comma between digits separates, unless the text is one number, or has other commas that a space follows.
    """
    if read_number(text):
        return Form("", (text,))
    tokens = _TOKEN.findall(_AND.sub(",", text).strip())
    brackets = ""
    if tokens and tokens[0] in ("(", "[", r"\{") and tokens[-1] in (")", "]", r"\}") and _closes_last(tokens):
        brackets, tokens = (tokens[0] + tokens[-1]).replace("\\", ""), tokens[1:-1]
    elements = [element for element in _split(tokens) if element]
    if brackets in ("", "{}"):
        elements = [signed for element in elements for signed in _signs(element)]
    return Form(brackets, tuple(elements) or ("",))


def _closes_last(tokens: list[str]) -> bool:
    depth = 0
    for index, token in enumerate(tokens):
        depth += (token in _OPENING) - (token in _CLOSING)
        if depth == 0:
            return index == len(tokens) - 1
    return False


def _split(tokens: list[str]) -> list[str]:
    spaced = re.search(r"[,;]\s", "".join(tokens)) is not None
    depth, parts = 0, [""]
    for index, token in enumerate(tokens):
        depth += (token in _OPENING) - (token in _CLOSING)
        rest = "".join(tokens[index + 1 : index + 5])
        thousands = spaced and parts[-1][-1:].isdigit() and re.match(r"[0-9]{3}(?![0-9])", rest)
        if token in (",", ";") and depth == 0 and not thousands:
            parts.append("")
        else:
            parts[-1] += token
    return [part.strip() for part in parts]


def _signs(element: str) -> tuple[str, ...]:
    if len(re.findall(r"\\pm(?![A-Za-z])", element)) != 1:
        return (element,)
    return tuple(re.sub(r"^\s*\+|\\pm(?![A-Za-z])", sign, element) for sign in ("+", "-"))


def _same_elements(given: Form, wanted: Form, compare: Compare) -> bool | None:
    """Lists and sets in any order; tuples and intervals in theirs, where brackets count except around a point."""
    if len(given.elements) != len(wanted.elements):
        return False
    names = {named[0] for element in wanted.elements if (named := named_value(element))}
    if wanted.brackets in ("", "{}"):
        if given.brackets not in ("", "{}", "()"):
            return False
        if len(names) < 2 or any(named_value(element) for element in given.elements):
            return _same_set(given.elements, wanted.elements, compare)
    elif given.brackets != wanted.brackets and (given.brackets or wanted.brackets != "()"):
        return False
    return every(same_answer(one, other, compare) for one, other in zip(given.elements, wanted.elements, strict=True))


def _same_set(given: tuple[str, ...], wanted: tuple[str, ...], compare: Compare) -> bool | None:
    left, unknown = list(given), False
    for gold in wanted:
        verdicts: list[bool | None] = []
        for answer in left:
            verdicts.append(_same_name(answer, gold) and same_answer(answer, gold, compare))
            if verdicts[-1]:
                break
        if verdicts and verdicts[-1]:
            left.pop(len(verdicts) - 1)
        elif None in verdicts:
            unknown = True
        else:
            return False
    return None if unknown else True


def _same_name(answer: str, gold: str) -> bool:
    named, wanted = named_value(answer), named_value(gold)
    return not named or not wanted or named[0] == wanted[0]


def every(verdicts: Iterable[bool | None]) -> bool | None:
    """True if all are, False if one is, and else None."""
    known = True
    for verdict in verdicts:
        if verdict is False:
            return False
        known = known and verdict is not None
    return True if known else None
