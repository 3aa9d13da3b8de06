"""Problems of a data set on the Hugging Face hub, read as its layout needs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping

from prerl_jax.data import layouts
from prerl_jax.data.columns import Columns
from prerl_jax.data.field_types import require_types
from prerl_jax.data.hub_files import HubFiles, dataset
from prerl_jax.data.instructions import Instructions
from prerl_jax.data.sources import FileProblems, Loaded

READERS: Mapping[str, Callable[[HubFiles], FileProblems]] = {
    "AI-MO/NuminaMath-1.5": layouts.numina,
    "AI-MO/aimo-validation-amc": layouts.amc,
    "BytedTsinghua-SIA/DAPO-Math-17k": layouts.dapo_math,
    "EleutherAI/hendrycks_math": layouts.hendrycks_math,
    "Hothan/OlympiadBench": layouts.olympiadbench,
    "HuggingFaceH4/MATH-500": layouts.math500,
    "HuggingFaceH4/aime_2024": layouts.aime,
    "Idavidrein/gpqa": layouts.gpqa,
    "Open-Reasoner-Zero/orz_math_57k": layouts.open_reasoner_zero,
    "POLARIS-Project/Polaris-Dataset-53K": layouts.polaris,
    "PrimeIntellect/INTELLECT-2-RL-Dataset": layouts.intellect2,
    "Skywork/Skywork-OR1-RL-Data": layouts.skywork,
    "SynthLabsAI/Big-Math-RL-Verified": layouts.big_math,
    "TIGER-Lab/MMLU-Pro": layouts.mmlu_pro,
    "agentica-org/DeepScaleR-Preview-Dataset": layouts.deepscaler,
    "allenai/RLVR-GSM": layouts.rlvr,
    "allenai/RLVR-GSM-MATH-IF-Mixed-Constraints": layouts.rlvr,
    "allenai/RLVR-MATH": layouts.rlvr,
    "allenai/math_qa": layouts.mathqa,
    "cais/mmlu": layouts.mmlu,
    "deepmind/aqua_rat": layouts.aqua_rat,
    "lkevinzc/math-eval": layouts.math_eval,
    "lukaemon/bbh": layouts.logical_deduction,
    "math-ai/aime24": layouts.aime_boxed,
    "math-ai/aime25": layouts.aime,
    "math-ai/amc23": functools.partial(layouts.amc, prompt="question"),
    "open-r1/DAPO-Math-17k-Processed": layouts.dapo_processed,
    "open-r1/OpenR1-Math-220k": layouts.openr1_math,
    "openai/gsm8k": layouts.gsm8k,
    "regisss/math_qa": layouts.mathqa,
    "trl-lib/DeepMath-103K": layouts.deepmath_trl,
    "zwhe99/DeepMath-103K": layouts.deepmath,
}
"""The readers of published data sets, by the names of their repositories."""


@dataclasses.dataclass(frozen=True)
class HubProblems:
    """Problems of a data set on the hub: `HubProblems("openai/gsm8k", "main", split="train")`.

    A data set of `READERS` is read by its reader, and another one as `FileProblems` reads files. A reader with other
    arguments, or for a copy under another name, takes the files in the place of a path:
    `layouts.gsm8k(HubFiles("me/gsm8k-copy", split="train"))`.

    Attributes:
        repo: "owner/name", or "owner/name@REVISION" with a branch, a tag or a commit. A run replaces it by the commit.
        subset: the name of the subset, which the hub calls a config, such as "main"; "" for the only one.
        split: such as "train".
        columns: which columns make a problem; None for those of the reader.
        instructions: what the prompt says besides the question; None for those of the reader.
        files: the names of the files, or patterns such as "data/part-*.parquet", instead of a subset and a split.

    Raises:
        ValueError: `repo` is not of that form, or a field has another type.
    """

    repo: str
    subset: str = ""
    split: str = "train"
    columns: Columns | None = None
    instructions: Instructions | None = None
    files: str | tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_types(self)
        dataset(self.repo)

    @property
    def source(self) -> FileProblems:
        """The source that reads the files."""
        reader = FileProblems if self.columns else READERS.get(dataset(self.repo).name, FileProblems)
        found = reader(self.hub_files)
        return dataclasses.replace(
            found, columns=self.columns or found.columns, instructions=self.instructions or found.instructions
        )

    @property
    def hub_files(self) -> HubFiles:
        """Its files."""
        return HubFiles(self.repo, self.subset, self.split, self.files)

    def load(self) -> Loaded:
        """Downloads the files that are not in the cache, and reads them.

        Returns:
            (the problems, in the order of the rows; notes: how many repeat a prompt, what was dropped and why).

        Raises:
            OSError: the repository is not there, or gated, or can neither be reached nor is it in the cache.
            ValueError: it has no such subset or split, or a file is of another layout, or has a malformed row.
        """
        return self.source.load()
