r"""Readers of published data sets: each takes the path of the downloaded files and returns a source of problems.

    DataSpec(train=gsm8k("gsm8k_train.jsonl"), evaluation=gsm8k("gsm8k_test.jsonl"), verifier=GSM8KAnswer(), ...)

Each is a `FileProblems` with the column map of its data set (`maps.py`) and with instructions that ask for the answer
in a format for which there is a verifier. The path is a file, or a tuple of files. Other instructions are an argument.
Other changes: `dataclasses.replace(gsm8k(path), deduplicate=True)`.
"""

from __future__ import annotations

import dataclasses

from prerl_jax.data import maps
from prerl_jax.data.columns import Columns
from prerl_jax.data.instructions import BOXED, CHOICE, HASHES, Instructions
from prerl_jax.data.options import Options, ShuffledOptions
from prerl_jax.data.sources import FileProblems, Paths

# --- benchmarks


def gsm8k(path: Paths, instructions: Instructions = HASHES) -> FileProblems:
    """GSM8K (Cobbe et al., 2021, arXiv 2110.14168); the answer is the number after "####" of the worked solution."""
    return FileProblems(path, maps.GSM8K, instructions, source="gsm8k")


def mathqa(path: Paths, instructions: Instructions = CHOICE) -> FileProblems:
    """MathQA (Amini et al., 2019, arXiv 1905.13319): five options in one text; the answer is a letter.

    On the hub, allenai/math_qa has only a script. regisss/math_qa is a copy with the same rows in parquet.
    """
    return FileProblems(path, maps.MATHQA, instructions, source="mathqa")


def aqua_rat(path: Paths, instructions: Instructions = CHOICE) -> FileProblems:
    """AQuA-RAT (Ling et al., 2017, arXiv 1705.04146): a list of five options; the answer is a letter."""
    return FileProblems(path, maps.AQUA_RAT, instructions, source="aqua_rat")


def logical_deduction(path: Paths, instructions: Instructions = CHOICE) -> FileProblems:
    """Logical deduction of BIG-Bench-Hard (Suzgun et al., 2022, arXiv 2210.09261), of three, five or seven objects.

    Other tasks of BIG-Bench-Hard whose targets are the letters of options have the same layout.
    """
    return FileProblems(path, maps.LOGICAL_DEDUCTION, instructions, rows="examples", source="logical_deduction")


def math500(path: Paths, instructions: Instructions = BOXED) -> FileProblems:
    """MATH-500 (Lightman et al., 2023, arXiv 2305.20050); the difficulty is the level, 1 to 5."""
    return FileProblems(path, maps.MATH500, instructions, source="math500")


def aime(path: Paths, instructions: Instructions = BOXED, source: str = "aime") -> FileProblems:
    """AIME with a column `answer`, which may be zero-padded: 025 is 25, and both are right."""
    return FileProblems(path, maps.AIME, instructions, source=source)


def aime_boxed(path: Paths, instructions: Instructions = BOXED, source: str = "aime") -> FileProblems:
    r"""AIME with a column `solution` that ends in a box, as math-ai/aime24 has it: "\boxed{204}"."""
    return FileProblems(path, maps.AIME_BOXED, instructions, source=source)


def amc(path: Paths, instructions: Instructions = BOXED, prompt: str = "problem") -> FileProblems:
    """AMC 2023; the answers are floats such as 27.0, which are read as 27.

    `prompt` is the column of the question, "problem" or, in math-ai/amc23, "question".
    """
    return FileProblems(path, dataclasses.replace(maps.AMC, prompt=prompt), instructions, source="amc")


def minerva(path: Paths, instructions: Instructions = BOXED) -> FileProblems:
    """Minerva's problems (Lewkowycz et al., 2022, arXiv 2206.14858); the answer is the last box of the solution."""
    return FileProblems(path, maps.MINERVA, instructions, source="minerva")


def olympiadbench(path: Paths, instructions: Instructions = BOXED) -> FileProblems:
    """OlympiadBench (He et al., 2024, arXiv 2402.14008), with unit and tolerance; the answer lists all that are asked.

    The context, where there is one, stands before the question.
    """
    return FileProblems(path, maps.OLYMPIADBENCH, instructions, source="olympiadbench")


def hendrycks_math(path: Paths, instructions: Instructions = BOXED) -> FileProblems:
    """MATH (Hendrycks et al., 2021, arXiv 2103.03874), as EleutherAI/hendrycks_math has it; empty boxes are dropped."""
    return FileProblems(path, maps.HENDRYCKS_MATH, instructions, source="math")


def math_eval(path: Paths, instructions: Instructions = BOXED, source: str = "") -> FileProblems:
    """lkevinzc/math-eval: a list of answers, any of which is right."""
    return FileProblems(path, maps.MATH_EVAL, instructions, source=source)


def mmlu_pro(path: Paths, instructions: Instructions = CHOICE) -> FileProblems:
    """MMLU-Pro (Wang et al., 2024, arXiv 2406.01574): up to ten options, letters to J; the source is the category."""
    return FileProblems(path, maps.MMLU_PRO, instructions, source="mmlu_pro")


def mmlu(path: Paths, instructions: Instructions = CHOICE) -> FileProblems:
    """MMLU (Hendrycks et al., 2020, arXiv 2009.03300), as cais/mmlu has it: four `choices`, the answer an index."""
    columns = Columns("question", "answer", options=Options("choices", answer="index"))
    return FileProblems(path, columns, instructions, source="mmlu")


def gpqa(path: Paths, instructions: Instructions = CHOICE, seed: int = 0) -> FileProblems:
    """GPQA (Rein et al., 2023, arXiv 2311.12022): the right and three wrong options, listed in an order of the seed."""
    columns = dataclasses.replace(maps.GPQA, options=ShuffledOptions(maps.GPQA_WRONG, seed))
    return FileProblems(path, columns, instructions, source="gpqa")


# --- training sets

AS_IT_IS = Instructions()
"""For prompts that say themselves how to answer."""
ANSWER_LINE = Instructions(answer_format="Answer: {answer}")
"""For prompts that ask for a last line "Answer: ..." themselves."""


def dapo_math(path: Paths, instructions: Instructions = ANSWER_LINE) -> FileProblems:
    """DAPO-Math-17k (Yu et al., 2025, arXiv 2503.14476), where each problem stands 100 times: the first one is kept.

    Its prompts ask for a last line "Answer: ...", and not for a box.
    """
    return FileProblems(path, maps.DAPO_MATH, instructions, source="dapo_math", deduplicate=True)


def dapo_processed(path: Paths, instructions: Instructions = BOXED) -> FileProblems:
    """open-r1/DAPO-Math-17k-Processed: a bare question, and the answer in `solution`."""
    return FileProblems(path, maps.DAPO_PROCESSED, instructions, source="dapo_math")


def deepscaler(path: Paths, instructions: Instructions = BOXED) -> FileProblems:
    """DeepScaleR-Preview: a JSON array."""
    return FileProblems(path, maps.DEEPSCALER, instructions, source="deepscaler")


def polaris(path: Paths, instructions: Instructions = BOXED) -> FileProblems:
    """Polaris-Dataset-53K; the difficulty is the share of solved attempts: "3/8" is 0.375, and 1 is the easiest."""
    return FileProblems(path, maps.POLARIS, instructions, source="polaris")


def big_math(path: Paths, instructions: Instructions = BOXED) -> FileProblems:
    """Big-Math-RL-Verified (Albalak et al., 2025, arXiv 2502.17387).

    The difficulty is the share of attempts that Llama 3.1 8B solved: 1 is the easiest.
    """
    return FileProblems(path, maps.BIG_MATH, instructions, source="big_math")


def open_reasoner_zero(path: Paths, instructions: Instructions = BOXED) -> FileProblems:
    """Open-Reasoner-Zero's orz_math_57k (Hu et al., 2025, arXiv 2503.24290): each row is a pair of turns."""
    return FileProblems(path, maps.OPEN_REASONER_ZERO, instructions, source="open_reasoner_zero")


def skywork(path: Paths, instructions: Instructions = AS_IT_IS, difficulty: str = "") -> FileProblems:
    """Skywork-OR1-RL-Data (He et al., 2025, arXiv 2505.22312): the answer is a list in a text, any of it is right.

    Its prompts say themselves how to answer. `difficulty` is a model's column, such as
    "extra_info.model_difficulty.DeepSeek-R1-Distill-Qwen-7B": 0 is the easiest, 16 the hardest.
    """
    columns = dataclasses.replace(maps.SKYWORK, difficulty=difficulty)
    return FileProblems(path, columns, instructions, source="skywork")


def numina(path: Paths, instructions: Instructions = BOXED) -> FileProblems:
    """NuminaMath-1.5: without proofs, without answers that were not found, and only where both are marked as valid."""
    return FileProblems(path, maps.NUMINA, instructions, source="numina")


def openr1_math(path: Paths, instructions: Instructions = BOXED) -> FileProblems:
    """OpenR1-Math-220k: filtered as `numina`, as far as it has the columns for that."""
    return FileProblems(path, maps.OPENR1_MATH, instructions, source="openr1_math")


def deepmath(path: Paths, instructions: Instructions = BOXED) -> FileProblems:
    """DeepMath-103K (He et al., 2025, arXiv 2504.11456), without its solutions; the difficulty is a level to 9."""
    return FileProblems(path, maps.DEEPMATH, instructions, source="deepmath")


def deepmath_trl(path: Paths, instructions: Instructions = BOXED) -> FileProblems:
    """trl-lib/DeepMath-103K: the prompt as turns, the answer in `solution`."""
    return FileProblems(path, maps.DEEPMATH_TRL, instructions, source="deepmath")


def rlvr(
    path: Paths,
    instructions: Instructions = AS_IT_IS,
    data_sets: tuple[str, ...] = ("gsm8k", "math"),
    prompt: str = "messages",
) -> FileProblems:
    """allenai's RLVR mixtures (Tulu 3, arXiv 2411.15124): only the rows of these `data_sets`, each its own source.

    `prompt` is the column of the question, "messages" or "prompt".
    """
    columns = dataclasses.replace(maps.RLVR, prompt=prompt, keep=(("dataset", data_sets),))
    return FileProblems(path, columns, instructions, source="rlvr")


def intellect2(path: Paths, instructions: Instructions = AS_IT_IS, difficulty: str = "") -> FileProblems:
    """INTELLECT-2-RL-Dataset (arXiv 2505.07291), its mathematics: the answer is in the JSON text `verification_info`.

    `difficulty` is the column of a model's solve rate; 1 is the easiest.
    """
    columns = dataclasses.replace(maps.INTELLECT2, difficulty=difficulty)
    return FileProblems(path, columns, instructions, source="intellect2")


# --- programs


def programs(path: Paths, instructions: Instructions = AS_IT_IS, prompt: str = "prompt") -> FileProblems:
    """Programs with tests, for `CodeTests`: `prompt` is the question's column, `tests` is required, no answer is read.

    All other columns are kept beside the problem, such as a known right program in `solution`.
    """
    return FileProblems(path, dataclasses.replace(maps.PROGRAMS, prompt=prompt), instructions)
