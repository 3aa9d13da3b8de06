r"""Reads a number as answers write it, exactly: 1,000, -\frac{1}{2}, 2\frac12, 50\%, 3.2 \times 10^{-5}, 101_2."""

from __future__ import annotations

import dataclasses
import math
import re
from fractions import Fraction

from prerl_jax.verify.spelling import LONGEST, STYLE, respelled, undecorated, without_unit

_DIGITS, _EXPONENT, _SIGNIFICANT = 400, 400, 6
_PLAIN = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,3}(?: [0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
_START = re.compile(rf"([-+]?)\s*[$€£¥]?\s*([-+]?)\s*({_PLAIN})(?![0-9,.]*[0-9])")
_SCIENCE = re.compile(
    rf"([-+]?)\s*(?:({_PLAIN})\s*(?:\\times|\\cdot|[x*])\s*)?10\s*\^\s*(?:\{{\s*([-+]?[0-9]+)\s*\}}|([-+]?[0-9]+))"
    rf"|([-+]?)\s*({_PLAIN})[eE]([-+]?[0-9]+)"
)
_PART = r"(?:\{\s*(-?[0-9]+)\s*\}|\s*([0-9]))"
_RATIO = re.compile(rf"([-+]?)\s*(?:([0-9]*)\s*\\[dt]?frac{_PART}{_PART}|(-?[0-9]+)\s*/\s*(-?[0-9]+))")
_REPEATING = re.compile(r"([-+]?)\s*([0-9]*)\.([0-9]*)\s*\\(?:overline|bar|dot)(?:\s*\{\s*([0-9]+)\s*\}|\s*([0-9]))")
_CURRENCY = re.compile(r"\A(?:(?:US|CA|AU|NZ|SG|HK)D?|EUR|GBP|INR|JPY|CNY|RMB|CHF|Rs\.?)(?![A-Za-z])\s*")
_PARENTHESES = re.compile(r"\A\(\s*([^(),;]*)\)(?![\w(\\])")
_SQUARE = re.compile(r"\b(?:[cdkm]?m|ft|in|yd|mi)[23]\b")
_ARITHMETIC = re.compile(
    r"\s*(?:[+^_]|[-/]+(?!-*\s*[A-Za-z]{2})|:\s*[0-9]|\\(?:times|cdot|pm|div|frac|sqrt)|[*x]\s*[0-9])"
    r"|(?!m[23]\b)[A-Za-z]?[0-9]"
)
"""What follows a number that is the start of a calculation: " * 2", "/2", "-x"; but not "- that is it" or "/hour"."""
_BASE = re.compile(r"(.*[0-9])_\{?([0-9]{1,2})\}?", re.DOTALL)
_PERCENT = re.compile(r"(.*?)\s*(?:\\?%|percent)", re.DOTALL)
_DEGREES = re.compile(r"(.*?)\s*(?:\^\s*\{?\s*\\circ\s*\}?|degrees?)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Number:
    """A number that has been read.

    Attributes:
        written: the number before a percent sign, exactly.
        percent: whether a percent sign follows.
        base: the number's base where it is written, as in 101_2; `written` holds its digits. 0 where it is not.
        places: digits after the decimal point where it is a decimal number; else None.
    """

    written: Fraction
    percent: bool = False
    base: int = 0
    places: int | None = None

    @property
    def value(self) -> Fraction:
        """The number itself: 1/2 for 50 %."""
        return self.written / 100 if self.percent else self.written

    def __str__(self) -> str:
        return f"{self.written}{'%' if self.percent else ''}{f'_{self.base}' if self.base else ''}"


def read_number(text: str) -> Number | None:
    """The number that the whole text is, with or without decoration and a unit; None if it is anything else.

    A fraction that is a whole number, such as 10/2, is a division that has not been done, and no number. Neither is a
    text of more than 400 digits.
    """
    if len(text) > LONGEST:
        return None
    text = undecorated(text)
    for _ in range(2):  # once as it is, once without its unit
        if (number := _read(text)) is not None:
            return number
        text = undecorated(without_unit(text))
    return None


def _read(text: str) -> Number | None:
    if percent := _PERCENT.fullmatch(text):
        number = _read(percent[1])
        return None if number is None or number.percent else dataclasses.replace(number, percent=True)
    if degrees := _DEGREES.fullmatch(text):
        return _read(degrees[1])
    if based := _BASE.fullmatch(text):
        number = _read(based[1])
        return None if number is None or number.base else dataclasses.replace(number, base=int(based[2]))
    if plain := _START.fullmatch(text):
        return _decimal(plain)
    if science := _SCIENCE.fullmatch(text):
        return _scientific(science)
    if repeating := _REPEATING.fullmatch(text):
        return _periodic(repeating)
    return _fraction(text)


def _periodic(found: re.Match[str]) -> Number | None:
    whole, start, period = found[2] or "0", found[3], found[4] or found[5]
    if len(whole + start + period) > _DIGITS:
        return None
    tail = Fraction(int(period), 10 ** len(period) - 1)
    size = (int(whole + start) + tail) / 10 ** len(start)
    return Number(-size if found[1] == "-" else size)


def _decimal(found: re.Match[str]) -> Number | None:
    if found[1] and found[2]:
        return None
    digits = re.sub("[, ]", "", found[3])
    if len(digits) > _DIGITS:
        return None
    return Number(Fraction(found[1] + found[2] + digits), places=len(digits.partition(".")[2]))


def _scientific(found: re.Match[str]) -> Number | None:
    sign, mantissa = found[1] or found[5] or "", re.sub("[, ]", "", found[2] or found[6] or "1")
    exponent = found[3] or found[4] or found[7]
    if len(mantissa) > _DIGITS or len(exponent) > 5 or abs(int(exponent)) > _EXPONENT:
        return None
    return Number(Fraction(sign + mantissa) * Fraction(10) ** int(exponent))


def _fraction(text: str) -> Number | None:
    found = _RATIO.fullmatch(text)
    if found is None or len(text) > 2 * _DIGITS:
        return None
    sign, whole = -1 if found[1] == "-" else 1, int(found[2] or 0)
    above, below = (int(next(part for part in parts if part)) for parts in (found.group(3, 4, 7), found.group(5, 6, 8)))
    if below == 0 or above % below == 0 or (found[2] and (above < 0 or below < 0)):
        return None
    return Number(sign * (whole + Fraction(above, below)))


def leading_number(text: str) -> Number | None:
    """The number at the start of a text that goes on with words, such as "18 eggs"; None if there is none.

    None also if the sentence names a second, different number, or goes on with arithmetic: "18 or 19", "9 * 2".
    """
    line = next((line for line in respelled(text[:LONGEST]).split("\n") if line.strip()), "")
    if (number := read_number(line)) is not None:
        return number
    line = re.sub(rf"\\(?:boxed|{STYLE})\s*\{{|[{{}}]", " ", undecorated(line)).strip()
    line = _CURRENCY.sub("", _PARENTHESES.sub(r"\1", line))
    found = _START.match(line)
    number = _decimal(found) if found else None
    if found is None or number is None:
        return None
    rest = re.split(r"[.;!?](?:\s|$)", line[found.end() :].lstrip(), maxsplit=1)[0]
    if _ARITHMETIC.match(rest):
        return None
    rest = _SQUARE.sub("", rest)
    others = (read_number(other) for other in re.findall(rf"(?<![\^0-9])-?(?:{_PLAIN})", rest))
    if any(other is None or other.value != number.value for other in others):
        return None
    return dataclasses.replace(number, percent=rest.lstrip().startswith(("%", r"\%")))


def same_number(one: Number, other: Number) -> bool:
    r"""Whether two numbers are equal.

    50 % is both 50 and 0.5. A base counts where both have one. A decimal number of 6 digits or more is equal to a
    fraction that it is rounded or cut from: 0.333333 is 1/3, and 0.33 is not.
    """
    if one.base and other.base and one.base != other.base:
        return False
    if one.written == other.written or one.value == other.value:
        return True
    decimal, exact = (one, other) if one.places else (other, one)
    return exact.places is None and approximates(decimal, exact.value)


def within(one: Number, other: Number, tolerance: float) -> bool:
    """Whether two numbers of the same base differ by no more than the tolerance, which is read as written: 0.1."""
    if one.base != other.base or not math.isfinite(tolerance):
        return False
    left, right = (one.written, other.written) if one.percent == other.percent else (one.value, other.value)
    return abs(left - right) <= Fraction(str(tolerance))


def approximates(number: Number, value: Fraction) -> bool:
    """Whether a decimal number with 6 digits or more after its point is the value, rounded or cut to these digits."""
    if not number.places or number.places < _SIGNIFICANT:
        return False
    if abs(number.written) * 10**number.places < 10 ** (_SIGNIFICANT - 1):  # 0.000001 has one digit that says anything
        return False
    unit = Fraction(1, 10**number.places) / (100 if number.percent else 1)
    return abs(number.value - value) < unit
