"""Texts of problems and responses, as a message shows them."""

from __future__ import annotations


def quoted(text: str) -> str:
    r"""The text in quotes and in one line, with its backslashes as they are: `\boxed{7}` can be copied.

    Characters that cannot be printed, and ends of lines, are escaped: "\n".
    """
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    return f'"{shown}"' if "'" in shown else f"'{shown}'"
