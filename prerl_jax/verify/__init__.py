"""Rewards: one file for each kind of answer. A verifier maps (problem, response text) to a number in [0, 1]."""

from prerl_jax.verify.batch import BatchVerifier, ChecksProblems, Verifier, WritesAnswers, check_all, verify_all
from prerl_jax.verify.boxed import BoxedAnswer
from prerl_jax.verify.code_tests import CodeTests
from prerl_jax.verify.exact import ExactMatch
from prerl_jax.verify.function import FunctionVerifier
from prerl_jax.verify.gsm8k import GSM8KAnswer
from prerl_jax.verify.judgement import UNKNOWN, Judgement, Verdict, Verified, right_or_wrong
from prerl_jax.verify.multiple_choice import MultipleChoice
from prerl_jax.verify.sandbox import Sandbox, SandboxError
from prerl_jax.verify.workers import InProcessVerifier, VerifierError, VerifierPool, open_verifier

__all__ = [
    "UNKNOWN",
    "BatchVerifier",
    "BoxedAnswer",
    "ChecksProblems",
    "CodeTests",
    "ExactMatch",
    "FunctionVerifier",
    "GSM8KAnswer",
    "InProcessVerifier",
    "Judgement",
    "MultipleChoice",
    "Sandbox",
    "SandboxError",
    "Verdict",
    "Verified",
    "Verifier",
    "VerifierError",
    "VerifierPool",
    "WritesAnswers",
    "check_all",
    "open_verifier",
    "right_or_wrong",
    "verify_all",
]
