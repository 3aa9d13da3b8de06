"""Problems: their sources, how they become prompt tokens, and the order in which a run trains on them."""

from prerl_jax.data import layouts
from prerl_jax.data.arithmetic import ChainSum
from prerl_jax.data.columns import Columns
from prerl_jax.data.contamination import Contamination, Overlap
from prerl_jax.data.curriculum import Curriculum
from prerl_jax.data.golds import (
    AllGold,
    AnyGold,
    BoxedGold,
    LetterGold,
    MarkedGold,
    NumberGold,
    PlainGold,
)
from prerl_jax.data.hub import HubProblems
from prerl_jax.data.hub_files import HubFiles
from prerl_jax.data.instructions import BOXED, CHOICE, HASHES, Instructions
from prerl_jax.data.lab import Additions, Corpus
from prerl_jax.data.logical_deduction import DEDUCTION_SHOTS, LogicalDeduction
from prerl_jax.data.mixture import Mixture
from prerl_jax.data.options import Options, ShuffledOptions
from prerl_jax.data.pipeline import Batches, make_batches, make_ordered_batches
from prerl_jax.data.problems import Message, Problem, ProblemSource
from prerl_jax.data.prompts import ChatTemplate, Example, LengthReport, PlainText, encode, left_pad
from prerl_jax.data.reasoning_gym import ReasoningGym
from prerl_jax.data.sources import FileProblems, JsonlProblems, ParquetProblems
from prerl_jax.data.streams import IteratorProblems, ProblemStream, StreamProblems
from prerl_jax.data.word_problems import FIVE_WAY_SHOTS, WORD_PROBLEM_SHOTS, FiveWayWordProblems, WordProblems

__all__ = [
    "BOXED",
    "CHOICE",
    "DEDUCTION_SHOTS",
    "FIVE_WAY_SHOTS",
    "HASHES",
    "WORD_PROBLEM_SHOTS",
    "Additions",
    "AllGold",
    "AnyGold",
    "Batches",
    "BoxedGold",
    "ChainSum",
    "ChatTemplate",
    "Columns",
    "Contamination",
    "Corpus",
    "Curriculum",
    "Example",
    "FileProblems",
    "FiveWayWordProblems",
    "HubFiles",
    "HubProblems",
    "Instructions",
    "IteratorProblems",
    "JsonlProblems",
    "LengthReport",
    "LetterGold",
    "LogicalDeduction",
    "MarkedGold",
    "Message",
    "Mixture",
    "NumberGold",
    "Options",
    "Overlap",
    "ParquetProblems",
    "PlainGold",
    "PlainText",
    "Problem",
    "ProblemSource",
    "ProblemStream",
    "ReasoningGym",
    "ShuffledOptions",
    "StreamProblems",
    "WordProblems",
    "encode",
    "layouts",
    "left_pad",
    "make_batches",
    "make_ordered_batches",
]
