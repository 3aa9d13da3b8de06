"""Rewards: one file per kind of answer. A verifier maps (problem, response text) to a number in [0, 1]."""

from prerl_jax.verify.batch import Verifier, check_all, verify_all
from prerl_jax.verify.boxed import BoxedAnswer
from prerl_jax.verify.exact import ExactMatch
from prerl_jax.verify.function import UserFunction
from prerl_jax.verify.gsm8k import GSM8KAnswer
from prerl_jax.verify.multiple_choice import MultipleChoice
from prerl_jax.verify.pool import InProcess, Pool, Verified, VerifierError, open_verify

__all__ = [
    "BoxedAnswer",
    "ExactMatch",
    "GSM8KAnswer",
    "InProcess",
    "MultipleChoice",
    "Pool",
    "UserFunction",
    "Verified",
    "Verifier",
    "VerifierError",
    "check_all",
    "open_verify",
    "verify_all",
]
