"""Rewards: one file for each kind of answer. A verifier maps (problem, response text) to a number in [0, 1]."""

from prerl_jax.verify.batch import ChecksProblems, Verifier, check_all, verify_all
from prerl_jax.verify.boxed import BoxedAnswer
from prerl_jax.verify.exact import ExactMatch
from prerl_jax.verify.function import FunctionVerifier
from prerl_jax.verify.gsm8k import GSM8KAnswer
from prerl_jax.verify.multiple_choice import MultipleChoice
from prerl_jax.verify.workers import InProcessVerifier, Verified, VerifierError, VerifierPool, open_verifier

__all__ = [
    "BoxedAnswer",
    "ChecksProblems",
    "ExactMatch",
    "FunctionVerifier",
    "GSM8KAnswer",
    "InProcessVerifier",
    "MultipleChoice",
    "Verified",
    "Verifier",
    "VerifierError",
    "VerifierPool",
    "check_all",
    "open_verifier",
    "verify_all",
]
