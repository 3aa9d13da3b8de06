"""The problems that a verifier can verify."""

from __future__ import annotations

from collections.abc import Sequence

from prerl_jax.data.problems import Problem
from prerl_jax.verify.batch import Verifier, check_problem
from prerl_jax.verify.by_source import NoVerifierError


def usable(verifier: Verifier, problems: Sequence[Problem]) -> tuple[tuple[Problem, ...], tuple[str, ...]]:
    """Drops the problems that a verifier cannot verify, such as those whose ground truth it cannot read.

    Args:
        verifier: a verifier; one that is no `ChecksProblems` can verify any problem.
        problems: the problems.

    Returns:
        (the problems that it can verify, in their order; for each dropped one, a line that says why).

    Raises:
        ValueError: it can verify none of them.
        NoVerifierError: a source has no verifier.
    """
    kept, dropped = [], []
    for index, problem in enumerate(problems):
        try:
            check_problem(verifier, problem)
        except NoVerifierError:
            raise
        except ValueError as error:
            dropped.append(f"problem {index} (counted from 0): {error}")
        else:
            kept.append(problem)
    if dropped and not kept:
        raise ValueError(
            f"{verifier} cannot verify any of the {len(problems)} problems; {dropped[0]}. Correct the problems, or "
            "choose another data.verifier."
        )
    return tuple(kept), tuple(dropped)
