"""The problems that a verifier can verify."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from prerl_jax.data.problems import Problem
from prerl_jax.verify.batch import Verifier, check_problem
from prerl_jax.verify.by_source import NoVerifierError
from prerl_jax.verify.sandbox import IsolationError


def usable(verifier: Verifier, problems: Sequence[Problem]) -> tuple[tuple[Problem, ...], tuple[str, ...]]:
    """Drops the problems that a verifier cannot verify, such as those whose ground truth it cannot read.

    Args:
        verifier: a verifier; one that is no `ChecksProblems` can verify any problem.
        problems: the problems.

    Returns:
        (the problems that it can verify, in their order, each with the acceptable answers that it can read; for each
        dropped one, a line that says why).

    Raises:
        ValueError: it can verify none of them.
        NoVerifierError: a source has no verifier.
        IsolationError: this machine cannot isolate programs.
    """
    kept, dropped = [], []
    for index, problem in enumerate(problems):
        readable, reasons = [], []
        for answer in (problem.answer, *problem.alternatives):
            try:
                check_problem(verifier, dataclasses.replace(problem, answer=answer, alternatives=()))
                readable.append(answer)
            except (NoVerifierError, IsolationError):
                raise
            except ValueError as error:
                reasons.append(error)
        if readable:
            kept.append(dataclasses.replace(problem, answer=readable[0], alternatives=tuple(readable[1:])))
        else:
            dropped.append(f"problem {index} (counted from 0): {reasons[0]}")
    if dropped and not kept:
        raise ValueError(
            f"{verifier} cannot verify any of the {len(problems)} problems; {dropped[0]}. Correct the problems, or "
            "choose another data.verifier."
        )
    return tuple(kept), tuple(dropped)
