r"""Column maps of published data sets, and which of them fits a file.

`FileProblems(path, maps.POLARIS)` reads such a file. `layouts.py` has a reader for each, which also says how its
questions ask for the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prerl_jax.data.columns import PROMPT_ANSWER, REST, VERL, Columns
from prerl_jax.data.golds import AllGold, AnyGold, BoxedGold, LetterGold, MarkedGold, NumberGold
from prerl_jax.data.instructions import Instructions
from prerl_jax.data.options import Options, ShuffledOptions
from prerl_jax.data.problems import Problem

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
    "FileProblems(path, maps.VERL)": VERL,
    "FileProblems(path)": PROMPT_ANSWER,
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
"""The reader of each layout."""
_QUESTIONS = ("prompt", "question", "problem", "Question", "Problem", "input", "instruction", "query")
_ANSWERS = ("answer", "final_answer", "ground_truth", "target", "solution", "correct", "gold", "label", "output")


def fitting(row: Any, has_values: bool = True) -> str:
    """What an error says to do about a layout that does not fit: the reader, or the map, that would.

    Args:
        row: a row, or the columns of a file as a row without values.
        has_values: whether it is a row with values.
    """
    if isinstance(row, Mapping) and isinstance(row.get("examples"), list):
        return 'The rows are in a list: use logical_deduction(path), or FileProblems(path, ..., rows="examples")'
    if isinstance(row, Mapping) and len(row) == 1 and isinstance(next(iter(row.values())), list):
        return f'The rows are in a list: use FileProblems(path, ..., rows="{next(iter(row))}")'
    readers = [name for name, columns in KNOWN.items() if _fits(columns, row, has_values)][:3]
    if readers:
        return f"The layout fits {' or '.join(name if '(' in name else f'{name}(path)' for name in readers)}"
    have = list(row) if isinstance(row, Mapping) else []
    prompt = next((name for name in _QUESTIONS if name in have), "...")
    answer = next((name for name in _ANSWERS if name in have and name != prompt), "...")
    if "tests" in have:
        return f'Name the column of the question: programs(path, prompt="{prompt}")'
    return f'Name the columns: FileProblems(path, Columns(prompt="{prompt}", answer="{answer}"))'


def _fits(columns: Columns, row: Any, has_values: bool) -> bool:
    if not has_values:
        return not columns.missing(row)
    try:
        return isinstance(columns.problem(row, Instructions(), ""), Problem)
    except (ValueError, RecursionError):
        return False
