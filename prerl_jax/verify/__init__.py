"""Rewards: one file for each kind of answer. A verifier maps (problem, response text) to a judgement or a reward."""

from prerl_jax.verify.after_thinking import AfterThinking
from prerl_jax.verify.answer_line import AnswerLine
from prerl_jax.verify.avoids import Avoids
from prerl_jax.verify.batch import (
    BatchVerifier,
    ChecksProblems,
    Delegates,
    SingleVerifier,
    Verifier,
    VerifierError,
    VerifierTraits,
    WritesAnswers,
    traits_of,
    written,
)
from prerl_jax.verify.boxed import BoxedAnswer
from prerl_jax.verify.by_source import BySource, NoVerifierError, unused_sources
from prerl_jax.verify.code_tests import CodeTests
from prerl_jax.verify.combined import CombinedReward, Weighted
from prerl_jax.verify.exact import ExactMatch
from prerl_jax.verify.function import BatchFunctionVerifier, FunctionVerifier
from prerl_jax.verify.gsm8k import GSM8KAnswer
from prerl_jax.verify.in_process import InProcessVerifier
from prerl_jax.verify.integer import IntegerAnswer
from prerl_jax.verify.judgement import UNKNOWN, Judgement, Verdict, Verified, right_or_wrong
from prerl_jax.verify.math_answer import MathAnswer
from prerl_jax.verify.multiple_choice import MultipleChoice
from prerl_jax.verify.opening import open_verifier
from prerl_jax.verify.pattern import RegexAnswer
from prerl_jax.verify.sandbox import IsolationError, Sandbox, SandboxError
from prerl_jax.verify.usable import usable
from prerl_jax.verify.workers import VerifierPool

__all__ = [
    "UNKNOWN",
    "AfterThinking",
    "AnswerLine",
    "Avoids",
    "BatchFunctionVerifier",
    "BatchVerifier",
    "BoxedAnswer",
    "BySource",
    "ChecksProblems",
    "CodeTests",
    "CombinedReward",
    "Delegates",
    "ExactMatch",
    "FunctionVerifier",
    "GSM8KAnswer",
    "InProcessVerifier",
    "IntegerAnswer",
    "IsolationError",
    "Judgement",
    "MathAnswer",
    "MultipleChoice",
    "NoVerifierError",
    "RegexAnswer",
    "Sandbox",
    "SandboxError",
    "SingleVerifier",
    "Verdict",
    "Verified",
    "Verifier",
    "VerifierError",
    "VerifierPool",
    "VerifierTraits",
    "Weighted",
    "WritesAnswers",
    "open_verifier",
    "right_or_wrong",
    "traits_of",
    "unused_sources",
    "usable",
    "written",
]
