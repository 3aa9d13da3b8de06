r"""Column maps of published data sets, and which of them fits a file.

`FileProblems(path, maps.POLARIS)` reads such a file. `layouts.py` has a reader for each, which also says how its
questions ask for the answer.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prerl_jax.data.columns import PROMPT_ANSWER, REST, VERL, Columns
from prerl_jax.data.golds import AllGold, AnyGold, BoxedGold, LetterGold, MarkedGold, NumberGold
from prerl_jax.data.instructions import Instructions
from prerl_jax.data.options import Options, ShuffledOptions
from prerl_jax.data.problems import Problem
from prerl_jax.data.values import columns_of

# --- benchmarks
GSM8K = Columns("question", "answer", MarkedGold("####", NumberGold()))
MATHQA = Columns("Problem", "correct", options=Options())
AQUA_RAT = Columns("question", "correct", options=Options())
LOGICAL_DEDUCTION = Columns("input", "target", LetterGold())
MATH500 = Columns("problem", "answer", difficulty="level", id="unique_id", metadata=("subject",))
AIME = Columns("problem", "answer", NumberGold())
AIME_BOXED = Columns("problem", "solution", BoxedGold(NumberGold()))
AMC = Columns("problem", "answer", NumberGold())
MINERVA = Columns("problem", "solution", BoxedGold(), id="idx", metadata=("type",))
OLYMPIADBENCH = Columns(
    "question",
    "final_answer",
    AllGold(),
    context="context",
    unit="unit",
    tolerance="error",
    id="id",
    metadata=("subfield", "answer_type", "is_multiple_answer"),
    optional=("subfield", "answer_type", "error"),
)
HENDRYCKS_MATH = Columns("problem", "solution", BoxedGold(), difficulty="level", metadata=("type",))
MATH_EVAL = Columns("problem", "answer", AnyGold())
MMLU_PRO = Columns("question", "answer", options=Options("options"), source="category", optional=("category",))
GPQA_WRONG = ("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
GPQA = Columns(
    "Question",
    "Correct Answer",
    options=ShuffledOptions(GPQA_WRONG),
)

# --- training sets
DAPO_MATH = Columns("prompt", "reward_model.ground_truth")
DAPO_PROCESSED = Columns("prompt", "solution")
DEEPSCALER = Columns("problem", "answer")
POLARIS = Columns("problem", "answer", difficulty="difficulty")
BIG_MATH = Columns("problem", "answer", source="source", difficulty="llama8b_solve_rate", metadata=("domain",))
OPEN_REASONER_ZERO = Columns("0.value", "1.ground_truth.value")
SKYWORK = Columns(
    "prompt",
    "reward_model.ground_truth",
    AnyGold(),
    source="data_source",
    metadata=("extra_info.*",),
    optional=("data_source", "extra_info"),
)
_SENTINELS = (("answer", ("proof", "notfound", "not found")), ("question_type", ("proof",)))
_BOTH_VALID = (("problem_is_valid", ("Yes",)), ("solution_is_valid", ("Yes",)))
NUMINA = Columns(
    "problem", "answer", source="source", metadata=("problem_type",), keep=_BOTH_VALID, drop=_SENTINELS,
    optional=("source", "problem_type"),
)  # fmt: skip
OPENR1_MATH = Columns(
    "problem", "answer", source="source", metadata=("problem_type",), keep=_BOTH_VALID, drop=_SENTINELS,
    optional=("source", "problem_type", "question_type", "problem_is_valid", "solution_is_valid"),
)  # fmt: skip
DEEPMATH = Columns("question", "final_answer", difficulty="difficulty", metadata=("topic",), optional=("topic",))
DEEPMATH_TRL = Columns("prompt", "solution")
RLVR = Columns("messages", "ground_truth", AnyGold(in_text=False), source="dataset")
INTELLECT2 = Columns(
    "prompt",
    "verification_info.ground_truth",
    AnyGold(in_text=False),
    keep=(("task_type", ("verifiable_math",)),),
    optional=("task_type",),
)
PROGRAMS = Columns(answer="", metadata=("tests", REST))

KNOWN = {
    "verl": VERL,
    "prompt_answer": PROMPT_ANSWER,
    "programs": PROGRAMS,
    "olympiadbench": OLYMPIADBENCH,
    "mathqa": MATHQA,
    "aqua_rat": AQUA_RAT,
    "mmlu_pro": MMLU_PRO,
    "gpqa": GPQA,
    "math500": MATH500,
    "minerva": MINERVA,
    "numina": NUMINA,
    "big_math": BIG_MATH,
    "polaris": POLARIS,
    "deepmath": DEEPMATH,
    "hendrycks_math": HENDRYCKS_MATH,
    "rlvr": RLVR,
    "intellect2": INTELLECT2,
    "open_reasoner_zero": OPEN_REASONER_ZERO,
    "gsm8k": GSM8K,
    "aime": AIME,
    "logical_deduction": LOGICAL_DEDUCTION,
    "deepscaler": DEEPSCALER,
    "dapo_processed": DAPO_PROCESSED,
}
"""The map of each layout, by the name of its reader. In capital letters it is the name of the map."""
_WITHOUT_READER = {"verl": "FileProblems(path, maps.VERL)", "prompt_answer": "FileProblems(path)"}
_QUESTIONS = ("prompt", "question", "problem", "messages", "conversations", "input", "instruction", "query", "0")
_ANSWERS = (
    *("answer", "final_answer", "expected_answer", "ground_truth", "target", "solution", "correct", "answerkey"),
    *("gold", "label", "output", "1"),
)
"""Names of columns in small letters, the best first. The places of a row that is a list are "0" and "1"."""
_LISTS = ("rows", "data", "examples")


def of_file(name: str) -> str:
    """What reads a file of a layout of `KNOWN`."""
    return _WITHOUT_READER.get(name, f"layouts.{name}(path)")


def of_stream(name: str) -> str:
    """What reads a stream of a layout of `KNOWN`."""
    return f"StreamProblems(folder, maps.{name.upper()})"


def remedy(columns: Columns, row: Any, has_values: bool = True, reader: Callable[[str], str] = of_file) -> str:
    """What an error says to do about a row that lacks columns: a name, a list, a reader, or a map that would do.

    Args:
        columns: the map that does not fit.
        row: a row, or the columns of a file as a row without values.
        has_values: whether it is a row with values.
        reader: says what reads a layout of `KNOWN`.
    """
    missing = columns.missing(row) if isinstance(row, Mapping) else []
    asked = {columns.prompt, columns.answer, *(columns.options.names if columns.options else ())}
    if missing and asked.isdisjoint(missing):
        return f"{_nearest(missing, row)}If rows may lack them: Columns(..., optional={tuple(missing)})"
    layouts = [name for name, known in KNOWN.items() if _fits(known, row, has_values)][:3]
    if layouts:
        return f"{_nearest(missing, row)}The layout fits {' or '.join(map(reader, layouts))}"
    have = {name.casefold(): name for name in row} if isinstance(row, Mapping) else {"0": "0", "1": "1"}
    prompt = next((have[name] for name in _QUESTIONS if name in have), "...")
    if prompt == "..." and (inside := _lists_inside(row)):
        also = "layouts.logical_deduction(path), or " if "examples" in inside else ""
        names = " or ".join(f'rows="{name}"' for name in inside)
        return f"The rows are in a list: use {also}FileProblems(path, ..., {names})"
    if "tests" in have:
        return f'{_nearest(missing, row)}Name the column of the question: layouts.programs(path, prompt="{prompt}")'
    answer = next((have[name] for name in _ANSWERS if name in have and have[name] != prompt), "...")
    named = f'FileProblems(path, Columns(prompt="{prompt}", answer="{answer}"))'
    alone = ". If other rows have them: skip_bad_rows=True leaves this one out" if has_values else ""
    return f"{_nearest(missing, row)}Name the columns, as in {named}{alone}"


def _lists_inside(row: Mapping[str, Any]) -> list[str]:
    """The names of the lists in a row that may be the rows of a file, three at most."""
    if len(row) == 1:
        return [name for name, value in row.items() if isinstance(value, list)]
    lists = [name for name, value in row.items() if isinstance(value, list) and _are_objects(value)]
    return [name for name in _LISTS if name in lists][:1] or lists[:3]


def _are_objects(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(value, Mapping) for value in values)


def _nearest(missing: Sequence[str], row: Any) -> str:
    """The columns that are nearly named like the missing ones, as a sentence; "" without any."""
    have = {name.casefold(): name for name in columns_of(row)} if isinstance(row, Mapping) else {}
    found = {name: difflib.get_close_matches(name.casefold(), have, 1, 0.75) for name in missing}
    pairs = [f"{have[near[0]]!r} for {name!r}" for name, near in found.items() if near]
    return f"Did you mean {', '.join(pairs)}? " if pairs else ""


def _fits(columns: Columns, row: Any, has_values: bool) -> bool:
    if not has_values:
        return not columns.missing(row)
    try:
        return isinstance(columns.problem(row, Instructions(), ""), Problem)
    except (ValueError, RecursionError):
        return False
