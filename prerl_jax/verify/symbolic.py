r"""Whether two mathematical expressions are equal, by math-verify, with limits on what it is asked and on its time.

math-verify parses LaTeX into SymPy and compares the results. It would also accept an expression that nobody has worked
out, such as 2 + 3 or \int_0^5 1 dx for 5; these are refused here. Its own time limit is not used: it uses up a
process's only alarm, so that any other deadline would be lost.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import math
import re
import signal
import time
from collections.abc import Iterator
from fractions import Fraction
from types import ModuleType
from typing import Any, NoReturn

from prerl_jax.verify.numbers import approximates, read_number
from prerl_jax.verify.spelling import TEXT, without_unit

LONGEST, DEEPEST, MOST = 256, 12, 32
"""Characters, nested brackets and commas of the largest answer that is compared by anything but its spelling."""
LARGEST = 50_000.0
"""Bits of the largest number that an expression may contain."""
_WORK = r"\\(?:[dt]?binom|int|iint|oint|sum|prod|lim|gcd|lcm|max|min|det|[pb]?mod|operatorname|deg)(?![A-Za-z])|!"
_RATIO = re.compile(r"(?<![0-9.])([0-9]{1,99})\s*/\s*([0-9]{1,99})(?![0-9.])|\\frac\{([0-9]{1,99})\}\{([0-9]{1,99})\}")
_EXPONENT = re.compile(r"\^\s*[{(]?\s*-?[0-9]{5}")
_LARGE = re.compile(r"[0-9]{4}|\^")
_TEXT = re.compile(rf"\\{TEXT}\s*\{{([^{{}}]*)\}}")
_TOWER = re.compile(r"[0-9]\s*\}?\s*\^[\s{(]*[0-9]+[\s})]*\^")


class _TimeIsUp(BaseException):
    """Not an Exception, since math-verify and SymPy catch these."""


def too_complex(text: str) -> bool:
    """Whether an answer is longer, more deeply nested, or has more elements or larger exponents than is compared."""
    if len(text) > LONGEST or text.count(",") + text.count(";") >= MOST:
        return True
    depth = deepest = 0
    for sign in text:
        depth += (sign in "([{") - (sign in ")]}")
        deepest = max(deepest, depth)
    work = re.findall(_WORK, text)
    return deepest > DEEPEST or bool(_EXPONENT.search(text) or _TOWER.search(text) or (work and _LARGE.search(text)))


def same_expression(answer: str, gold: str) -> bool | None:
    """Whether an answer is equal to the ground truth, and worked out as far as it is.

    Args:
        answer: LaTeX, not `too_complex`.
        gold: LaTeX, not `too_complex`.

    Returns:
        True or False, as for numbers beyond `LARGEST`; None if the comparison needs too much memory or recursion.
    """
    answer, gold = without_unit(answer), without_unit(gold)
    number = read_number(gold)
    if number and (number.places or 0) < 6:  # the answer is no number as it is written, so it has not been worked out
        return False
    if answer.count("=") != gold.count("=") or _TEXT.findall(answer) != _TEXT.findall(gold):
        return False
    if not set(re.findall(_WORK, answer)) <= set(re.findall(_WORK, gold)):
        return False
    if _undone_divisions(answer) and not _undone_divisions(gold):
        return False
    try:
        given, wanted = _parse(answer), _parse(gold)
        if given is None or wanted is None or max(_bits(given), _bits(wanted)) > LARGEST:
            return False
        return _same(answer, gold, given, wanted)
    except (MemoryError, RecursionError):
        return None
    except Exception:  # SymPy cannot compare them, such as a set with a matrix
        return False


def _same(answer: str, gold: str, given: Any, wanted: Any) -> bool:
    for text, other in ((answer, wanted), (gold, given)):
        if (number := read_number(text)) and number.places:
            value = other.doit().evalf(40)
            return bool(value.is_Float) and approximates(number, Fraction(str(value)))
    if _unfinished(given) and not _unfinished(wanted):
        return False
    if not _is_relation(given) and not given.free_symbols <= wanted.free_symbols:
        return False
    same = _math_verify().verify(wanted, given, timeout_seconds=None, allow_set_relation_comp=True, raise_on_error=True)
    return bool(same)


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Ends its block after some seconds, and goes on behind it. It must be in a process's main thread.

    An alarm that was set before stays set: it comes at its own time, or right after the block.
    """
    start = time.monotonic()
    before = signal.signal(signal.SIGALRM, _end)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _TimeIsUp:
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - start), 0.001), interval)


def _end(signum: int, frame: Any) -> NoReturn:
    raise _TimeIsUp


@functools.cache
def _math_verify() -> ModuleType:
    import math_verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its own time limit is off
    return math_verify


def load() -> None:
    """Imports math-verify, which takes a second or two."""
    _math_verify()


@functools.lru_cache(maxsize=256)
def _parse(text: str) -> Any:
    """The SymPy expression, not evaluated; None if the text is none."""
    library = _math_verify()
    config = library.LatexExtractionConfig(boxed_match_priority=0)
    units_kept = dataclasses.replace(config.normalization_config, units=False)  # it takes the m of 2m for a unit
    config = dataclasses.replace(config, normalization_config=units_kept)
    parsed = library.parse(rf"\boxed{{{text}}}", [config], fallback_mode="no_fallback", parsing_timeout=None)
    return parsed[0] if parsed else None


def _undone_divisions(text: str) -> bool:
    """Whether it has a fraction of integers that is an integer, such as 10/2."""
    pairs = ([int(part) for part in parts if part] for parts in _RATIO.findall(text))
    return any(below and above % below == 0 for above, below in pairs)


def _bits(node: Any) -> float:
    """A bound of log2 of the largest number in an expression, computed without evaluating it."""
    if hasattr(node, "is_Number") and node.is_Number:
        size = abs(node)
        return math.log2(float(size) + 2) if size < 10**300 else float(len(str(size))) * 4
    parts = [_bits(part) for part in (node.args if hasattr(node, "args") else node)] or [1.0]
    kind = type(node).__name__
    if kind in ("Pow", "exp"):
        base, exponent = parts if kind == "Pow" else (2.0, parts[0])
        return base * 2 ** min(exponent, 60)
    if kind in ("factorial", "factorial2", "binomial", "gamma"):
        return max(parts) * 2 ** min(max(parts), 60)
    return sum(parts)


def _unfinished(tree: Any) -> bool:
    """Whether an expression holds arithmetic that nobody has done: 2 + 3, x + x, 2^{10}, \\sqrt{25}, \\log_2 8, 3!."""
    import sympy

    return any(isinstance(node, sympy.Basic) and _is_work(node, sympy) for node in sympy.preorder_traversal(tree))


def _is_work(node: Any, sympy: ModuleType) -> bool:
    if isinstance(node, sympy.Integral | sympy.Sum | sympy.Product | sympy.Limit | sympy.Derivative):
        return True
    if isinstance(node, sympy.Add):
        return len(sympy.Add.make_args(sympy.Add(*node.args))) < len(node.args)
    if isinstance(node, sympy.Mul):
        factors = [part for part in node.args if part.is_Number and abs(part) != 1]
        plain = all(
            part.is_Number or (part.is_Pow and part.args[0].is_Number and part.args[1] == -1) for part in node.args
        )
        percent = any(isinstance(part, sympy.UnevaluatedExpr) for part in node.args)
        return len(factors) > 1 or (not plain and not percent and sympy.Mul(*node.args).is_Rational is True)
    if isinstance(node, sympy.Pow):
        base, exponent = node.args
        return exponent != -1 and base != 10 and bool(sympy.Pow(base, exponent).is_Rational)
    if isinstance(node, sympy.Function) and node.args:
        return bool(getattr(node.func(*node.args), "is_Rational", False))
    return False


def _is_relation(tree: Any) -> bool:
    return (hasattr(tree, "is_Relational") and bool(tree.is_Relational)) or type(tree).__name__ == "And"
