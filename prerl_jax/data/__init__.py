"""Problems: their sources, how they become prompt tokens, and the order in which a run trains on them."""

from prerl_jax.data.arithmetic import ChainSum
from prerl_jax.data.lab import Additions, Corpus
from prerl_jax.data.pipeline import Batches, make_batches
from prerl_jax.data.problems import Message, Problem, ProblemSource
from prerl_jax.data.prompts import ChatTemplate, Example, LengthReport, PlainText, encode, left_pad
from prerl_jax.data.sources import JsonlProblems, ParquetProblems

__all__ = [
    "Additions",
    "Batches",
    "ChainSum",
    "ChatTemplate",
    "Corpus",
    "Example",
    "JsonlProblems",
    "LengthReport",
    "Message",
    "ParquetProblems",
    "PlainText",
    "Problem",
    "ProblemSource",
    "encode",
    "left_pad",
    "make_batches",
]
