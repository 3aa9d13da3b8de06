r"""Takes the decoration off an answer: LaTeX wrappers, Markdown, math delimiters, and units."""

from __future__ import annotations

import re

LONGEST = 1000
"""Characters of the longest text that is read as an answer."""
TEXT = r"(?:text(?:bf|it|rm|sf|tt|sc|up|normal)?|mathrm|mbox|hbox|emph)"
"""The LaTeX commands, as a pattern, for words and upright letters."""
STYLE = rf"(?:{TEXT}|math(?:bf|it|sf|tt|normal)|boldsymbol|bm|underline)"
r"""Those, and the commands that only change how a formula looks, such as \mathbf."""
_SIGNS = {
    **{code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)},  # full-width ASCII, as in ５
    **dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212\ufe63"), "-"),
    **dict.fromkeys(map(ord, "\u00a0\u2002\u2003\u2007\u2009\u202f\u3000"), " "),
    **{ord("\N{GREEK SMALL LETTER PI}"): r"\pi ", ord("\N{INFINITY}"): r"\infty ", ord("\N{UNION}"): r"\cup "},
    **{
        ord("\N{MULTIPLICATION SIGN}"): r"\times ",
        ord("\N{MIDDLE DOT}"): r"\cdot ",
        ord("\N{PLUS-MINUS SIGN}"): r"\pm ",
    },
    **{ord("\N{LESS-THAN OR EQUAL TO}"): r"\le ", ord("\N{GREATER-THAN OR EQUAL TO}"): r"\ge "},
    **{ord("\N{VULGAR FRACTION ONE HALF}"): r"\frac{1}{2}", ord("\N{VULGAR FRACTION ONE QUARTER}"): r"\frac{1}{4}"},
    ord("\N{VULGAR FRACTION THREE QUARTERS}"): r"\frac{3}{4}",
    **dict.fromkeys(map(ord, "\u2018\u2019"), "'"),
    **dict.fromkeys(map(ord, "\u2205\u00d8"), r"\emptyset "),
    ord("°"): r"^\circ",
}
_WRAPPED = re.compile(
    rf"\\(?:{STYLE}|boxed|fbox|(?:text|math)?color(?:box)?(?:\[\w*\])?\s*\{{[^{{}}]*\}})\s*\{{(.*)\}}", re.DOTALL
)
_SPACES = re.compile(r"(\\\\)|\\[,;: ]|\\q?quad(?![A-Za-z])|~|\\?\$(?![0-9])|(?<![0-9])\\?\$|\\[()\[\]]")
_BOLD = re.compile(r"(?<![\w)])(\*\*|[*`])([^*`\n]+)\1(?![\w(])")
_UNIT = re.compile(
    rf"(?:\s*+\\{TEXT}\s*+\{{\s*+([A-Za-z][A-Za-z .'/²³-]*+)\}}"
    r"|\s++([A-Za-z]{3,}+(?: [A-Za-z]++)*+|cm|mm|km|kg|mg|ml|mL|ft|in|mi|yd|oz|lb|hr|Hz|eV))"
    r"(?:\s*+\^\s*+\{?-?[0-9]\}?|[²³])?\.?\Z"
)
_NO_UNIT = re.compile(r"\b(?:or|and|not|if|to|than|when|where|unless|but|mod|pi|sqrt)\b", re.IGNORECASE)


def respelled(text: str) -> str:
    r"""The text with one spelling for a sign: full-width signs as ASCII, the minus U+2212 as "-", π as "\pi"."""
    return text.translate(_SIGNS)


def undecorated(text: str) -> str:
    r"""An answer without what is around it: Markdown's stars, dollars, \boxed{...}, \text{...}, a full stop.

    Only wrappers of the whole answer are taken off. A text longer than `LONGEST` is returned as it is.
    """
    text = text.strip()
    if len(text) > LONGEST:
        return text
    text = re.sub(r",\\!\s*", ",", respelled(text)).replace(r"\!", "").replace("{,}", ",")
    text = text.replace(r"\varnothing", r"\emptyset")
    text = _BOLD.sub(r"\2", _SPACES.sub(r"\1 ", text))
    for _ in range(8):
        text = text.strip(" \t\n*`").removesuffix(".").strip()
        wrapped = _WRAPPED.fullmatch(text)
        if not wrapped or not balanced(wrapped[1]):
            return text
        text = wrapped[1]
    return text


def balanced(text: str) -> bool:
    """Whether every brace that is closed in the text has been opened in it, and the other way round."""
    depth = 0
    for brace in re.findall("[{}]", text):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            return False
    return depth == 0


def without_unit(text: str) -> str:
    r"""The text without a unit at its end, in \text{...} or after a space: "5 \text{ cm}^2", "18 dollars"."""
    found = _UNIT.search(text, max(0, len(text) - 60))
    if found is None or _NO_UNIT.search(found[1] or found[2]):
        return text
    return text[: found.start()].rstrip() or text
