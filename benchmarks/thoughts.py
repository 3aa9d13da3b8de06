"""Precision and recall of the counts of thoughts, by kind, and the milliseconds that counting costs.

    python benchmarks/thoughts.py [--quick] [--repetitions 21]

The texts of tests/data/thoughts.jsonl were labelled before they were counted. The phrases were tuned on those of origin
"tuning", and mended after each batch of origin "after" except for the last one, which is a fair test.

Responses of 24 kB are counted in all kinds, together with the default `evaluation.reflection`: "mixed" has problems of
MATH and labelled texts in turns, which is about as dense in thoughts as what a reasoning model writes; "labelled" has
the labelled texts only; the others repeat what costs most. The ratio is the median processor time of one in ms.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
from timing import Row, report

from prerl_jax.analysis.thoughts import agreement, count_matches, count_thoughts
from prerl_jax.config import EvaluationSpec

DATA = Path(__file__).resolve().parents[1] / "tests" / "data"
SIZE, TOGETHER = 24_000, 8
REPEATED = {
    "waits": "wait, ",
    "waits in one sentence": "wait ",
    "quotations": '"a" ',
    "one word": "we ",
    "orders": "let me check ",
}


def agreements(lines: list[dict], name: str) -> Iterator[Row]:
    """The precision and the recall of each kind on these texts."""
    found = agreement([line["text"] for line in lines], [line["thoughts"] for line in lines])
    for kind, one in found.items():
        note = f"{one.agreed} of {one.found} found and {one.labelled} labelled, in {len(lines)} texts"
        yield Row(f"thoughts/{name}/{kind}/precision", one.precision, ">= 0.9", note)
        yield Row(f"thoughts/{name}/{kind}/recall", one.recall, ">= 0.9", note)


def times(texts: dict[str, str], repetitions: int) -> Iterator[Row]:
    """The milliseconds for each text."""
    spec = EvaluationSpec()
    for name, text in texts.items():
        seconds = []
        for _ in range(repetitions + 1):  # the first one compiles the expressions
            start = time.thread_time()
            count_matches(spec.reflection, [text] * TOGETHER)
            found = count_thoughts([text] * TOGETHER, spec.thoughts)
            seconds.append((time.thread_time() - start) / TOGETHER)
        thoughts = sum(int(counts[0]) for counts in found.values())
        note = f"{len(text):,} characters, {thoughts} thoughts"
        yield Row(f"thoughts/ms/{name}", 1e3 * statistics.median(seconds[1:]), "<= 5", note)


def rows(repetitions: int) -> Iterator[Row]:
    """All rows of the table."""
    lines = [json.loads(line) for line in (DATA / "thoughts.jsonl").open(encoding="utf-8")]
    last = max(line["batch"] for line in lines)
    yield from agreements(lines, "all")
    yield from agreements([line for line in lines if line["batch"] == last], "last batch")
    labelled = [line["text"] for line in lines]
    problems = [row["prompt"][-1]["content"] for row in pq.read_table(DATA / "math_sample.parquet").to_pylist()]
    mixed = [text for pair in zip(problems * 3, labelled, strict=False) for text in pair]
    texts = {"mixed": "\n\n".join(mixed), "labelled": "\n\n".join(labelled)}
    texts |= {name: text * SIZE for name, text in REPEATED.items()}
    yield from times({name: text[:SIZE] for name, text in texts.items()}, repetitions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="each text three times")
    parser.add_argument("--repetitions", type=int, default=11)
    options = parser.parse_args()
    report(rows(3 if options.quick else options.repetitions))


if __name__ == "__main__":
    main()
