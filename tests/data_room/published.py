"""Rows of our own writing in the layouts of published data sets, and the writers of files with such rows."""

from __future__ import annotations

import csv
import functools
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from prerl_jax.data import layouts
from prerl_jax.data.sources import FileProblems, JsonlProblems, ParquetProblems

LOGIC = (
    "A shelf has a red, a green and a blue book. Red is left of green.\nOptions:\n(A) Red is first\n(B) Green is first"
)
TURNS = [{"role": "user", "content": "Solve 2x = 6. End with a line Answer: $Answer"}]
VERL = {
    "data_source": "own",
    "prompt": TURNS,
    "ability": "math",
    "reward_model": {"ground_truth": "3", "style": "rule"},
    "extra_info": {"index": "7", "model_difficulty": {"Distill-1.5B": 4}},
}
NUMINA = {
    "problem": "What is 2 + 3?",
    "solution": "It is 5.",
    "answer": "5",
    "problem_type": "Algebra",
    "question_type": "math-word-problem",
    "source": "own",
    "problem_is_valid": "Yes",
    "solution_is_valid": "Yes",
}

ROWS = {
    "FileProblems": (FileProblems, {"prompt": "1 + 1 = ?", "answer": "2"}),
    "JsonlProblems": (JsonlProblems, {"prompt": "1 + 1 = ?", "answer": "2", "source": "own", "metadata": {"level": 1}}),
    "ParquetProblems": (ParquetProblems, VERL),
    "gsm8k": (layouts.gsm8k, {"question": "Ann has 3 pens and buys 2. How many?", "answer": "3 + 2 = 5\n#### 1,005"}),
    "mathqa": (
        layouts.mathqa,
        {"Problem": "3 + 4 is", "options": "a ) 1,000 , b ) 7 , c ) rs . 5 , d ) none of these", "correct": "b"},
    ),
    "aqua_rat": (
        layouts.aqua_rat,
        {"question": "3 + 4 is", "options": ["A)5", "B)6", "C)7"], "rationale": "It is 7.", "correct": "C"},
    ),
    "logical_deduction": (layouts.logical_deduction, {"input": LOGIC, "target": "(A)"}),
    "math500": (
        layouts.math500,
        {
            "problem": "Half of 3?",
            "solution": r"\boxed{\frac{3}{2}}",
            "answer": r"\frac{3}{2}",
            "subject": "Algebra",
            "level": 2,
            "unique_id": "own/1",
        },
    ),
    "aime": (layouts.aime, {"id": 1, "problem": "5 times 5?", "solution": "25", "answer": "025", "url": "u"}),
    "aime_boxed": (layouts.aime_boxed, {"id": 1, "problem": "5 times 5?", "solution": r"\boxed{25}"}),
    "amc": (layouts.amc, {"id": 0, "problem": "A dozen?", "answer": 12.0, "url": "u"}),
    "minerva": (
        layouts.minerva,
        {"problem": "How long, in cm?", "solution": r"First \boxed{1}, so \boxed{1.6} cm", "type": "own", "idx": 4},
    ),
    "olympiadbench": (
        layouts.olympiadbench,
        {
            "id": 9,
            "subfield": "Algebra",
            "context": "Let n be whole.",
            "question": "Find all pairs.",
            "solution": ["Try."],
            "final_answer": ["$(1,8)$,$(2,7)$"],
            "is_multiple_answer": True,
            "unit": "$cm^2$",
            "answer_type": "Tuple",
            "error": "1e-1",
        },
    ),
    "hendrycks_math": (
        layouts.hendrycks_math,
        {"problem": "Half of 3?", "level": "Level 3", "type": "Algebra", "solution": r"so $\boxed{\frac{3}{2}}$."},
    ),
    "math_eval": (layouts.math_eval, {"problem": "Half of 1?", "answer": [r"\frac{1}{2}", "0.5"]}),
    "mmlu_pro": (
        layouts.mmlu_pro,
        {"question": "Which?", "options": list("qrstuvwxyz"), "answer": "J", "answer_index": 9, "category": "law"},
    ),
    "mmlu": (layouts.mmlu, {"question": "2 - 1?", "subject": "own", "choices": ["0", "1", "2", "3"], "answer": 1}),
    "gpqa": (
        layouts.gpqa,
        {
            "Question": "Which gas?",
            "Correct Answer": "neon",
            "Incorrect Answer 1": "iron",
            "Incorrect Answer 2": "gold",
            "Incorrect Answer 3": "zinc",
        },
    ),
    "dapo_math": (layouts.dapo_math, VERL),
    "dapo_processed": (layouts.dapo_processed, {"prompt": "2 + 2?", "solution": "4", "source_prompt": TURNS}),
    "deepscaler": (layouts.deepscaler, {"problem": "2 + 2?", "answer": "$4$", "solution": "It is 4."}),
    "polaris": (layouts.polaris, {"problem": "2 + 2?", "answer": "4", "difficulty": "3/8"}),
    "big_math": (
        layouts.big_math,
        {"problem": "2 + 2?", "answer": "4", "source": "own", "domain": ["Algebra"], "llama8b_solve_rate": None},
    ),
    "open_reasoner_zero": (
        layouts.open_reasoner_zero,
        [
            {"from": "human", "value": "2 + 2?"},
            {"from": "assistant", "ground_truth": {"value": "4", "pass_at_n": 0.5}},
        ],
    ),
    "skywork": (
        functools.partial(layouts.skywork, difficulty="extra_info.model_difficulty.Distill-1.5B"),
        VERL | {"reward_model": {"ground_truth": r'["\\frac{1}{2}", "0.5"]', "style": "rule"}},
    ),
    "numina": (layouts.numina, NUMINA),
    "openr1_math": (layouts.openr1_math, NUMINA | {"messages": TURNS, "generations": ["It is 5."]}),
    "deepmath": (
        layouts.deepmath,
        {"question": "Is 2 even?", "final_answer": "Yes", "difficulty": 4.5, "topic": "own", "r1_solution_1": "long"},
    ),
    "deepmath_trl": (layouts.deepmath_trl, {"prompt": TURNS, "solution": "3"}),
    "rlvr": (
        layouts.rlvr,
        {"messages": [*TURNS, {"role": "assistant", "content": "3"}], "ground_truth": ["3"], "dataset": ["MATH"]},
    ),
    "intellect2": (
        functools.partial(layouts.intellect2, difficulty="solve_rate"),
        {
            "prompt": "2 + 2?",
            "task_type": "verifiable_math",
            "verification_info": '{"ground_truth": "4"}',
            "solve_rate": 0.25,
        },
    ),
    "programs": (
        layouts.programs,
        {"prompt": "Write negate(x).", "tests": [{"call": "negate", "args": [3], "expected": -3}]},
    ),
}
"""For each reader: the reader, and a row of its layout."""


def json_lines(path: Path, rows: list) -> str:
    """Writes JSON lines; returns the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def json_array(path: Path, rows: list) -> str:
    """Writes one JSON array over several lines; returns the path."""
    path.write_text(json.dumps(rows, indent=1), "utf-8")
    return str(path)


def json_object(path: Path, rows: list) -> str:
    """Writes an object whose `examples` are the rows; returns the path."""
    path.write_text(json.dumps({"canary": "own", "examples": rows}), "utf-8")
    return str(path)


def parquet(path: Path, rows: list) -> str:
    """Writes parquet; returns the path."""
    pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


def csv_file(path: Path, rows: list) -> str:
    """Writes csv, lists and objects as JSON texts; returns the path."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(list(rows[0]))
        for row in rows:
            writer.writerow([json.dumps(v) if isinstance(v, list | dict) else v for v in row.values()])
    return str(path)


def writers(name: str) -> tuple:
    """The kinds of file that the reader reads."""
    if name == "JsonlProblems":
        return (json_lines,)
    if name == "ParquetProblems":
        return (parquet,)
    if name == "logical_deduction":
        return (json_object,)
    if name == "open_reasoner_zero":
        return (json_lines, json_array)
    return (json_lines, json_array, parquet, csv_file)
