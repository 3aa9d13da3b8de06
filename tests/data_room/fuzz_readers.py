"""Bad files for every reader. `python tests/data_room/fuzz_readers.py 20000` prints what came of them.

Only ValueError and FileNotFoundError may come out of a reader, and with skip_bad_rows only what stops a file.
"""

from __future__ import annotations

import bz2
import collections
import copy
import dataclasses
import gzip
import json
import lzma
import random
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
from published import ROWS, writers

from prerl_jax.data.problems import as_text
from prerl_jax.data.sources import FileProblems

DEEP = json.loads("[" * 400 + "]" * 400)
VALUES = [
    None, "", " ", "x", "5", "$5$", "A", "(B)", "proof", "\ud800", "\x00", "\u2028", "é" * 50, "[", "{", '["a"]',
    "['a'", "#### ", "#### x", r"\boxed{", r"\boxed{}", r"\boxed{\boxed{2}}", "a ) 1 , b ) 2", "b ) 1", "1/0", "3/8",
    "Level ?", "1e999", "9" * 5000, "a" * 70_000, 0, 1, -1, 10**30, 10**400, 0.5, 1e308, float("nan"), float("inf"),
    True, False, [], [[]], [None], ["a", 1], ["a"] * 30, {}, {"value": 1}, {"label": ["A"], "text": ["a", "b"]}, DEEP,
    {"ground_truth": "1"}, '{"ground_truth": ["1"]}', '{"ground_truth": {}}', '{"ground_truth": "\\ud800"}',
    [{"role": "TOOL", "content": "a"}], [{"from": "human", "value": "a"}], [{"from": ["human"], "value": {}}],
    [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}, 5]}],
    [{"role": "user"}], [{"role": "user", "content": None}], [{"role": "assistant", "content": "a"}],
    "[{'content': 'a', 'role': 'user'}]", "[{'role': 'user'", "[{'role': " + "(" * 3000,
    "[{'role': " + "-" * 3000 + "1}]",
    "[{'role': 1" + "+1" * 9000 + "}]", '["' + "[" * 3000 + '"]', "(" * 3000, "{" * 3000, "-" * 3000, "[" * 100_000,
]  # fmt: skip
"""What stands where something else belongs."""


def mutated(random_: random.Random, row):
    """A row in which some values are bad, gone, or of another name."""
    row = copy.deepcopy(row)
    for _ in range(random_.choice((0, 1, 1, 1, 2, 3))):
        inner = row
        while inner:
            keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
            key = random_.choice(keys)
            if isinstance(inner[key], dict | list) and inner[key] and random_.random() < 0.6:
                inner = inner[key]
                continue
            change = random_.random()
            if change < 0.75:
                inner[key] = copy.deepcopy(random_.choice(VALUES))
            elif change < 0.9 or isinstance(inner, list):
                del inner[key]
            else:
                inner[f"{key}x"] = inner.pop(key)
            break
    return row


def disguised(random_: random.Random, content: bytes) -> bytes:
    """The bytes of a file as another program writes them: compressed, in another encoding, with other line ends."""
    text = content.decode("utf-8", errors="replace")
    return random_.choice(
        (
            bz2.compress,
            gzip.compress,
            lzma.compress,
            lambda data: data.replace(b"\n", random_.choice((b"\r\n", b"\r", b"\n\n", b", \n"))),
            lambda data: data.replace(b",", random_.choice((b";", b"|", b"\t", b", "))),
            lambda data: data.replace(b'"', b"'"),
            lambda data: data + data,
            lambda _: text.encode(random_.choice(("utf-8-sig", "utf-16", "utf-16-le", "utf-32-be"))),
            lambda _: text.encode("latin-1", errors="replace"),
        )
    )(content)


def damaged(random_: random.Random, content: bytes) -> bytes:
    """The bytes of a file: cut, with bytes changed, added, repeated or not in UTF-8."""
    data = bytearray(content)
    for _ in range(random_.choice((1, 1, 2, 5, 20))):
        at, kind = random_.randrange(len(data) + 1), random_.random()
        if kind < 0.3:
            data[at : at + random_.randrange(1, 4)] = random_.randbytes(random_.randrange(4))
        elif kind < 0.5:
            del data[at:]
        elif kind < 0.7:
            data[at:at] = random_.choice(
                (b"\n", b"\xff", b'"', b"{", b"]", b",", b"\\ud800", b"\x00", b"\r", b"[" * 2000)
            )
        elif kind < 0.85:
            data[at:at] = data[max(0, at - random_.randrange(60)) : at]
        else:
            data[at : at + random_.randrange(40)] = b""
    return bytes(data)


def outcome(source) -> str:
    """What a reader makes of a file: "read", or the kind of its error; another exception comes out."""
    try:
        problems, _ = source.load()
    except (ValueError, FileNotFoundError) as error:
        named = source.path in str(error)
        return type(error).__name__ if named else f"an error that does not name the file: {error!r}"
    for problem in problems:
        assert problem.answer.strip() or "tests" in problem.metadata  # a program has tests, and no answer
        (as_text(problem.prompt) + problem.answer).encode()
    return "read"


def cases(seed: int, count: int, folder: Path):
    """(name of the reader, the source, the file) of `count` bad inputs."""
    random_ = random.Random(seed)
    while count:
        name = random_.choice(sorted(ROWS))
        reader, row = ROWS[name]
        write = random_.choice(writers(name))
        path = folder / f"file.{random_.choice(('json', 'jsonl', 'csv', 'parquet', 'txt'))}"
        rows = [mutated(random_, row) if random_.random() < 0.5 else row for _ in range(random_.choice((1, 2, 3, 6)))]
        try:
            write(path, rows)
        except (pa.ArrowException, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            continue  # no such file can be written
        if random_.random() < 0.4:
            path.write_bytes(damaged(random_, path.read_bytes()))
        if random_.random() < 0.2:
            path.write_bytes(disguised(random_, path.read_bytes()))
        source = reader(str(path))
        if isinstance(source, FileProblems):
            source = dataclasses.replace(
                source, skip_bad_rows=random_.random() < 0.3, deduplicate=random_.random() < 0.3
            )
        yield name, source, path
        path.unlink()
        count -= 1


def main(count: int, seed: int) -> None:
    """Tries `count` inputs and prints how they ended."""
    ended, slowest, began = collections.Counter(), (0.0, ""), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for name, source, path in cases(seed, count, Path(folder)):
            start = time.perf_counter()
            try:
                ended[outcome(source)] += 1
            except BaseException:
                Path("bad_input").write_bytes(path.read_bytes())
                print(f"{name}: {source}; the file is in ./bad_input", flush=True)
                raise
            slowest = max(slowest, (time.perf_counter() - start, name))
    print(f"{count} inputs over {len(ROWS)} readers in {time.perf_counter() - began:.0f} s: {dict(ended)}; {slowest=}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
