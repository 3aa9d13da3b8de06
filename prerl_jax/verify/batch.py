"""Verifiers, and the rewards of a batch of responses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from prerl_jax.data.problems import Problem
from prerl_jax.verify.judgement import Judgement, judged

Answer = Judgement | float | None
"""What a verifier returns: a judgement, a reward, or None where it does not know. See `judged`."""
TRUNCATED = Judgement(0.0, "wrong", format_ok=False)
"""The judgement of a response that reached the length limit without a stop token."""


class Verifier(Protocol):
    """A config value that verifies one response. Any frozen dataclass with this method works.

    A verifier may also be a `ChecksProblems` and a `WritesAnswers`.
    """

    def __call__(self, problem: Problem, response: str) -> Answer:
        """A Judgement, a reward, or None for an unknown verdict."""


@runtime_checkable
class BatchVerifier(Protocol):
    """A config value that verifies many responses at once, such as a reward model or a remote judge."""

    def verify_batch(self, problems: Sequence[Problem], responses: Sequence[str]) -> Sequence[Answer]:
        """For each of B responses: a Judgement, a reward, or None for an unknown verdict."""


@dataclasses.dataclass(frozen=True)
class VerifierTraits:
    """What a verifier declares about itself, in its class attribute `traits`.

    Attributes:
        needs_workers: whether it may hang or take too much memory on some responses, so that it must run in worker
            processes, which have a deadline and a limit on memory.
    """

    needs_workers: bool = False


@runtime_checkable
class WritesAnswers(Protocol):
    """A verifier that can write a right response, to check before a run that right responses are accepted."""

    def write(self, problem: Problem) -> str:
        """The shortest response with the problem's answer in this verifier's format."""


@runtime_checkable
class ChecksProblems(Protocol):
    """A verifier that can say before a run which problems it cannot verify."""

    def check(self, problem: Problem) -> None:
        """Raises ValueError if no response to this problem can be verified, such as for an answer of the wrong kind."""


def verify_all(
    verifier: Verifier,
    problems: Sequence[Problem],
    responses: Sequence[str],
    truncated: Sequence[bool],
    before: Callable[[], None] = lambda: None,
) -> list[Judgement]:
    """The judgements of B responses.

    Args:
      verifier: verifies one response.
      problems: B, the problem of each response.
      responses: B texts.
      truncated: B flags: the response reached the length limit without a stop token. It is wrong whatever it contains,
        and it is not verified.
      before: is called before each response that is verified; an exception ends the call.

    Raises ValueError if lengths differ, or the verifier returns no judgement (see `judged`).
    """
    require_same_length(problems, responses, truncated)
    judgements = []
    for row, (problem, response) in enumerate(zip(problems, responses, strict=True)):
        if truncated[row]:
            judgements.append(TRUNCATED)
            continue
        before()
        judgements.append(judged(verifier(problem, response), verifier, problem))
    return judgements


def require_same_length(problems: Sequence[Problem], responses: Sequence[str], truncated: Sequence[bool]) -> None:
    """Raises ValueError if the lengths differ."""
    if not len(problems) == len(responses) == len(truncated):
        raise ValueError(
            f"{len(problems)} problems, {len(responses)} responses and {len(truncated)} truncation flags do not match"
        )


def require_truth(problem: Problem) -> None:
    """Raises ValueError if the problem's answer, the ground truth, is empty."""
    if not problem.answer.strip():
        raise ValueError(f"the ground truth is empty, which is an error in the data: {problem}")


def check_all(verifier: Verifier, problems: Sequence[Problem]) -> None:
    """Checks that a verifier can verify responses to these problems, if it is a `ChecksProblems`.

    Raises ValueError if it cannot, with the number of such problems, the index of the first one, and the remedy.
    """
    if not isinstance(verifier, ChecksProblems):
        return
    wrong: list[tuple[int, ValueError]] = []
    for index, problem in enumerate(problems):
        try:
            verifier.check(problem)
        except ValueError as error:
            wrong.append((index, error))
    if wrong:
        first, reason = wrong[0]
        raise ValueError(
            f"{verifier} cannot verify {len(wrong)} of the {len(problems)} problems; the first is problem {first} "
            f"(counted from 0): {reason}. Correct or remove these problems, or choose another data.verifier."
        )
