"""The table of docs/problems.md: published problem files, read and verified.

For each file: the problems that its reader reads and drops; the share of golds that the verifier accepts when they are
written in the format that the prompt asks for; the share of other problems' golds that it accepts, equal ones aside;
and the share of the published solutions that it accepts, where they end in that format.

    python benchmarks/problem_files.py ../shared/data
"""

from __future__ import annotations

import argparse
import dataclasses
import random
from collections.abc import Callable
from pathlib import Path

from prerl_jax import (
    BoxedAnswer,
    FileProblems,
    GSM8KAnswer,
    MultipleChoice,
    ParquetProblems,
    Problem,
    Verifier,
    layouts,
)
from prerl_jax.verify.batch import judgements_of

BOX = r"\boxed{{answer}}"
CHOICES = MultipleChoice("ABCDEFGHIJ")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A file of the table: its name, layout, reader and verifier, and the column with a worked solution."""

    file: str
    layout: str
    reader: Callable[[str], FileProblems | ParquetProblems]
    verifier: Verifier
    solution: str = ""


ENTRIES = (
    Entry("article/gsm8k_train.jsonl", "JSON lines", layouts.gsm8k, GSM8KAnswer(), "answer"),
    Entry("article/gsm8k_test.jsonl", "JSON lines", layouts.gsm8k, GSM8KAnswer(), "answer"),
    Entry("article/mathqa_test.json", "JSON array", layouts.mathqa, CHOICES),
    Entry("article/aqua_rat_test.json", "JSON lines", layouts.aqua_rat, CHOICES, "rationale"),
    Entry("article/bbh_logical_deduction_three_objects.json", "JSON object", layouts.logical_deduction, CHOICES),
    Entry("article/bbh_logical_deduction_five_objects.json", "JSON object", layouts.logical_deduction, CHOICES),
    Entry("article/bbh_logical_deduction_seven_objects.json", "JSON object", layouts.logical_deduction, CHOICES),
    Entry("math_sets/math500.jsonl", "JSON lines", layouts.math500, BoxedAnswer(), "solution"),
    Entry("math_sets/aime24.jsonl", "JSON lines", layouts.aime, BoxedAnswer(), "solution"),
    Entry("math_sets/amc23.jsonl", "JSON lines", layouts.amc, BoxedAnswer()),
    Entry("math_sets/minerva_math.jsonl", "JSON lines", layouts.minerva, BoxedAnswer(), "solution"),
    Entry("math_sets/olympiadbench.jsonl", "JSON lines", layouts.olympiadbench, BoxedAnswer()),
    Entry("math_train.parquet", "parquet, verl", ParquetProblems, BoxedAnswer()),
    Entry("aime_2024_20times.parquet", "parquet, verl", ParquetProblems, BoxedAnswer()),
    Entry("aime_2025_20times.parquet", "parquet, verl", ParquetProblems, BoxedAnswer()),
    Entry("amc2023_20times.parquet", "parquet, verl", ParquetProblems, BoxedAnswer()),
)


def accepted(verifier: Verifier, problem: Problem, response: str) -> bool:
    """Whether the response is right; any of the problem's answers counts."""
    (judgement,) = judgements_of(verifier, [problem], [response])
    return judgement.verdict == "right"


def written(problem: Problem, answer: str) -> str:
    """The answer in the format that the prompt asks for; verl's files ask for a box."""
    return (problem.answer_format or BOX).replace("{answer}", answer)


def share(right: list[bool]) -> str:
    """A share of Trues as a percentage, with the number of the minority where it is small."""
    if not right:
        return "-"
    wrong = len(right) - sum(right)
    return f"{sum(right) / len(right):.2%}" + (f" ({wrong} not)" if 0 < wrong <= 20 else "")


def solutions(entry: Entry, path: str) -> list[tuple[Problem, str]]:
    """The problems with their published solutions, where these end in the format that the prompt asks for."""
    if not entry.solution:
        return []
    source = entry.reader(path)
    assert isinstance(source, FileProblems)
    columns = dataclasses.replace(source.columns, metadata=(entry.solution,))
    problems, _ = dataclasses.replace(source, columns=columns).load()
    begin = (problems[0].answer_format or BOX).partition("{answer}")[0]
    pairs = [(problem, str(problem.metadata[entry.solution])) for problem in problems]
    return [(problem, text) for problem, text in pairs if begin in text]


def line(entry: Entry, folder: Path, others: int) -> str:
    """The table's line of a file; `others` golds of other problems are tried for each problem."""
    path = str(folder / entry.file)
    source = entry.reader(path)
    problems, notes = source.load()
    dropped = [note for note in notes if not note.startswith("prompts of")]
    own = [accepted(entry.verifier, problem, written(problem, problem.answer)) for problem in problems]
    pairs = [(problem, other) for problem in problems for other in random.Random(0).sample(problems, others)]
    foreign = [
        accepted(entry.verifier, problem, written(problem, other.answer))
        for problem, other in pairs
        if other.answer not in (problem.answer, *problem.alternatives)
    ]
    published = [accepted(entry.verifier, problem, text) for problem, text in solutions(entry, path)]
    reader = getattr(entry.reader, "__name__", str(entry.reader))
    cells = (
        f"`{entry.file}`",
        entry.layout,
        f"`{reader}`",
        f"`{type(entry.verifier).__name__}`",
        f"{len(problems):,}",
        f"{len(dropped):,}",
        f"{len({problem.prompt for problem in problems}):,}",
        share(own),
        f"{sum(foreign) / len(foreign):.2%}" if foreign else "-",
        f"{share(published)} of {len(published):,}" if published else "-",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder with the published files")
    parser.add_argument("--others", type=int, default=10, help="golds of other problems to try for each problem")
    parsed = parser.parse_args()
    head = "file | layout | reader | verifier | problems | dropped | distinct | own golds | other golds | solutions"
    print(f"| {head} |\n|{'---|' * 10}")
    for entry in ENTRIES:
        if (parsed.folder / entry.file).is_file():
            print(line(entry, parsed.folder, parsed.others), flush=True)


if __name__ == "__main__":
    main()
