"""Rewards: one file per kind of answer. A verifier maps (problem, response text) to a number in [0, 1]."""

from prerl_jax.verify.batch import Verifier, verify_all
from prerl_jax.verify.boxed import BoxedAnswer
from prerl_jax.verify.exact import ExactMatch
from prerl_jax.verify.function import UserFunction
from prerl_jax.verify.gsm8k import GSM8KAnswer
from prerl_jax.verify.multiple_choice import MultipleChoice

__all__ = [
    "BoxedAnswer",
    "ExactMatch",
    "GSM8KAnswer",
    "MultipleChoice",
    "UserFunction",
    "Verifier",
    "verify_all",
]
