"""The problems that a verifier can verify."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

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
        ValueError: it can verify none of a source's problems.
        NoVerifierError: a source has no verifier.
        VerifierError: its `check` raised another exception.
        IsolationError: this machine cannot isolate programs.
    """
    kept: list[Problem] = []
    dropped: list[str] = []
    first: dict[str, str] = {}
    for index, problem in enumerate(problems):
        try:
            kept.append(readable(verifier, problem))
        except (NoVerifierError, IsolationError):
            raise
        except ValueError as error:
            dropped.append(f"problem {index} (counted from 0): {error}")
            first.setdefault(problem.source, dropped[-1])
    _require_all_sources(verifier, [problem.source for problem in problems], {one.source for one in kept}, first)
    return tuple(kept), tuple(dropped)


def readable(verifier: Verifier, problem: Problem) -> Problem:
    """A problem with those of its acceptable answers that a verifier can read.

    Raises:
        ValueError: it can read none of them; the error is that on `problem.answer`.
        NoVerifierError: the problem's source has no verifier.
        IsolationError: this machine cannot isolate programs.
        VerifierError: its `check` raised another exception.
    """
    if not problem.alternatives:
        check_problem(verifier, problem)
        return problem
    read: list[str] = []
    reasons: list[ValueError] = []
    for answer in (problem.answer, *problem.alternatives):
        try:
            check_problem(verifier, dataclasses.replace(problem, answer=answer, alternatives=()))
            read.append(answer)
        except (NoVerifierError, IsolationError):
            raise
        except ValueError as error:
            reasons.append(error)
    if not read:
        raise reasons[0]
    return dataclasses.replace(problem, answer=read[0], alternatives=tuple(read[1:]))


def _require_all_sources(verifier: Verifier, sources: Sequence[str], kept: set[str], first: Mapping[str, str]) -> None:
    """Raises ValueError if a source has lost all its problems; `first` has a line on the first one of each source."""
    counts = Counter(sources)
    for source in (one for one in counts if one not in kept):
        of = f" of source {source!r}" if len(counts) > 1 else ""
        leave_out = ", leave this source out" if of else ""
        raise ValueError(
            f"{verifier} cannot verify any of the {counts[source]} problems{of}; {first[source]}. Correct the "
            f"problems{leave_out}, or choose another verifier: data.verifier, or data.evaluation_verifier for "
            "data.evaluation."
        )
