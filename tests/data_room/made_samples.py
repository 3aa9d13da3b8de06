"""The rows of the sample files that ship with the package: generated problems in the layouts of published data sets.

`PYTHONPATH=. python tests/data_room/made_samples.py` writes them anew.
"""

from __future__ import annotations

import json
from pathlib import Path

from prerl_jax import FiveWayWordProblems, Instructions, LogicalDeduction, WordProblems

FOLDER = Path(__file__).parents[2] / "prerl_jax" / "samples"
FIELDS = {"count": 24, "split": "evaluation", "instructions": Instructions()}


def word_problems() -> str:
    """JSON lines, as GSM8K has them."""
    problems, _ = WordProblems(**FIELDS, seed=1000).load()
    rows = [{"question": p.prompt, "answer": f"{p.metadata['solution']}\n#### {p.answer}"} for p in problems]
    return "".join(json.dumps(row) + "\n" for row in rows)


def five_way() -> str:
    """A JSON array with the options in one text, as MathQA has it."""
    rows = []
    for problem in FiveWayWordProblems(**FIELDS, seed=1001).load()[0]:
        question, *options = problem.prompt.split("\n")
        texts = [f"{option[1].lower()} ) {option[4:]}" for option in options]
        rows.append({"Problem": question, "options": " , ".join(texts), "correct": problem.answer.lower()})
    return json.dumps(rows, indent=1) + "\n"


def deduction() -> str:
    """An object with a list, as BIG-Bench-Hard has it."""
    problems, _ = LogicalDeduction(**FIELDS, seed=1002).load()
    return json.dumps({"examples": [{"input": p.prompt, "target": f"({p.answer})"} for p in problems]}, indent=1) + "\n"


SAMPLES = {"word_problems.jsonl": word_problems, "five_way.json": five_way, "deduction.json": deduction}
"""The name of each file, and what makes its text."""

if __name__ == "__main__":
    for name, text in SAMPLES.items():
        (FOLDER / name).write_text(text(), "utf-8")
