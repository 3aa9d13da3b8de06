"""Prepares the text of a response for the counting of thoughts: without quotations, and with marked beginnings.

A quotation, or code in backticks, is not the speaker's own thought. `own_words` blanks it out.

Thoughts begin where a sentence or a clause begins. `mark` puts a mark there, in place of one space, so that they are
found without trying every character. The marks are white space for regular expressions, and no character moves.
"""

from __future__ import annotations

import re

SENTENCE, CLAUSE, CAPITAL = "\x1c\x1d\x1e"
"""The marks: a sentence begins (after ". ", a line break, a tag, or \\textbf{), a clause begins (after "but", "hmm", or
"..."), and a capitalised word follows within a sentence, which is a name or a sentence after a missing full stop."""
PUNCTUATION = ",:;)*(\u2014\u2013-"
"""A clause begins after these as well, if white space follows; after brackets and long dashes it need not."""

_QUOTED = re.compile(
    "|".join(
        (
            r"```[\s\S]*?```",
            r"`[^`\n]{1,200}`",
            r"\"[^\"\n]{1,200}\"",
            r"\u201c[^\u201c\u201d\n]{1,200}\u201d",  # typographic quotation marks, double and single
            r"\u2018[^\u2018\u2019\n]{1,200}\u2019(?!\w)",
            r"'(?<!\w')[^'\n]{1,200}'(?!\w)",
        )
    )
)
_AFTER = (
    *((end, CLAUSE) for end in ("... ", "\u2026 ", " but ", "mm ")),  # also after "hmm"
    *((end, SENTENCE) for end in ("\n", ". ", "! ", "? ", r"\textbf{", r"\textit{", r"\emph{")),
)
"""A mark takes the place of the last character of each of these."""
_CLOSED = re.compile(r"([.!?][\")\]*_$]{1,3}) ")
_TAG = re.compile(r"(</?[a-z]+)>")
_NAME = re.compile(r" (?=[A-Z][a-z])")


def own_words(text: str) -> str:
    """The text with quotations and code blanked out, and plain apostrophes. All characters keep their positions."""
    return _QUOTED.sub(_blank, text).replace("\u2019", "'")


def mark(words: str) -> str:
    """The text, as `own_words` returns it, in lower case and with its beginnings marked.

    A mark is put before the text, too, so position i becomes i + 1.
    """
    words = _TAG.sub(rf"\1{SENTENCE}", _CLOSED.sub(rf"\1{SENTENCE}", words))
    for end, sign in _AFTER:
        words = words.replace(end, end[:-1] + sign)
    words = _NAME.sub(CAPITAL, words)
    return SENTENCE + words.replace("\u0130", "I").lower()  # lower() makes two characters of this letter alone


def _blank(quotation: re.Match[str]) -> str:
    text = quotation[0]
    return text[0] + "\0" * (len(text) - 2) + text[-1]
