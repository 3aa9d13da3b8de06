"""The lines of Python that the instructions of a compiled program come from, read from the tables at its head."""

from __future__ import annotations

import re


def frames(text: str) -> dict[int, str]:
    """{number of a stack frame: "file.py:12 function"}; empty where the program has no such tables."""
    tables = {key: _table(text, key) for key in ("FileNames", "FunctionNames", "FileLocations", "StackFrames")}
    found = {}
    for number, frame in tables["StackFrames"].items():
        location = tables["FileLocations"].get(_number(frame, "file_location_id"), "")
        file = tables["FileNames"].get(_number(location, "file_name_id"), "").strip('"').rpartition("/")[2]
        function = tables["FunctionNames"].get(_number(location, "function_name_id"), "").strip('"')
        found[number] = f"{file}:{_number(location, 'line')} {function}"
    return found


def _table(text: str, name: str) -> dict[int, str]:
    found = re.search(rf"^{name}\n((?:\d+ .*\n)*)", text, re.MULTILINE)
    rows = (line.partition(" ") for line in found[1].splitlines()) if found else ()
    return {int(number): row for number, _, row in rows}


def _number(row: str, key: str) -> int:
    found = re.search(rf"\b{key}=(\d+)", row)
    return int(found[1]) if found else 0
