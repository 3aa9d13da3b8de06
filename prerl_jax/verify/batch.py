"""Verifiers: what they are, and the answers that they give on many responses."""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from prerl_jax.data.problems import Problem
from prerl_jax.verify.judgement import Judgement, WrongAnswer, judged

Answer = Judgement | float | None
"""What a verifier returns: a judgement, a reward, or None where it does not know. See `judged`."""


_LONGEST_ERROR = 10_000
"""Characters of a problem, or of a traceback, in an error's message."""


class VerifierError(RuntimeError):
    """A verifier raised an exception, whose traceback is in the message, or returned what is no judgement."""


class SingleVerifier(Protocol):
    """A config value that verifies one response. Any frozen dataclass with this method works."""

    def __call__(self, problem: Problem, response: str) -> Answer:
        """A Judgement, a reward, or None for an unknown verdict."""


@runtime_checkable
class BatchVerifier(Protocol):
    """A config value that verifies many responses at once, such as a reward model or a remote judge.

    It may have an attribute `batch_size`, the most responses of one call. Without one, or with None, it gets all
    responses that are there. It must compare with `problem.alternatives`, too: only a `SingleVerifier` is asked about
    each acceptable answer in turn.
    """

    def verify_batch(self, problems: Sequence[Problem], responses: Sequence[str]) -> Sequence[Answer]:
        """For each of B responses: a Judgement, a reward, or None for an unknown verdict."""


Verifier = SingleVerifier | BatchVerifier
"""A verifier of one response or of many. It may also have `traits`, and be a `ChecksProblems`, a `WritesAnswers` and a
`Delegates`."""


@dataclasses.dataclass(frozen=True)
class VerifierTraits:
    """What a verifier declares about itself, in its class attribute `traits`.

    Attributes:
        needs_workers: whether it may hang or take too much memory on some responses, so that it must run in worker
            processes, which have a deadline and a limit on memory.
        imports: the modules that it imports when it is first called. Workers import them early, so that no response
            waits for them. They must start no thread when they are imported.
    """

    needs_workers: bool = False
    imports: tuple[str, ...] = ()


@runtime_checkable
class WritesAnswers(Protocol):
    """A verifier that can write a right response, to check before a run that right responses are accepted."""

    def write(self, problem: Problem) -> str | None:
        """The shortest response with the problem's answer in this verifier's format; None if it cannot write one."""


@runtime_checkable
class ChecksProblems(Protocol):
    """A verifier that can say before a run which problems it cannot verify."""

    def check(self, problem: Problem) -> None:
        """Raises ValueError if no response to this problem can be verified, such as for an answer of the wrong kind."""


@runtime_checkable
class Delegates(Protocol):
    """A verifier that asks other verifiers."""

    def delegates(self, problem: Problem | None = None) -> tuple[Verifier, ...]:
        """The verifiers that it asks about this problem; for None, about any problem."""


def traits_of(verifier: Verifier) -> VerifierTraits:
    """The traits of a verifier; for one that asks others, those of the others together."""
    if isinstance(verifier, Delegates):
        asked = [traits_of(one) for one in verifier.delegates()]
        imports = tuple(module for traits in asked for module in traits.imports)
        return VerifierTraits(any(traits.needs_workers for traits in asked), imports)
    traits: VerifierTraits = getattr(verifier, "traits", VerifierTraits())
    return traits


def check_problem(verifier: Verifier, problem: Problem) -> None:
    """Raises ValueError if the verifier says that it cannot verify responses to this problem."""
    if isinstance(verifier, ChecksProblems):
        verifier.check(problem)


def written(verifier: Verifier, problem: Problem) -> str | None:
    """The shortest right response, see `WritesAnswers`; None if the verifier cannot write one."""
    return verifier.write(problem) if isinstance(verifier, WritesAnswers) else None


def answers_of(verifier: Verifier, problems: Sequence[Problem], responses: Sequence[str]) -> list[Answer]:
    """What a verifier returns for B responses, not yet checked by `judged`.

    Raises WrongAnswer if a `BatchVerifier` returns anything but a sequence of B values.
    """
    if not isinstance(verifier, BatchVerifier):
        return [_answer(verifier, problem, response) for problem, response in zip(problems, responses, strict=True)]
    if not responses:
        return []
    answers = verifier.verify_batch(problems, responses)
    if isinstance(answers, str | bytes | Mapping) or not hasattr(answers, "__len__"):
        raise WrongAnswer(
            f"verify_batch of {verifier} returned a {type(answers).__name__}, {str(answers)[:80]!r}, and not a "
            f"sequence of {len(responses)} rewards or Judgements, one for each response."
        )
    if len(answers) != len(responses):
        raise WrongAnswer(
            f"verify_batch of {verifier} returned {len(answers)} values for {len(responses)} responses; it must return "
            "one for each response, in their order."
        )
    return list(answers)


def _answer(verifier: SingleVerifier, problem: Problem, response: str) -> Answer:
    """What a verifier returns for a response to a problem, of which any acceptable answer is right.

    This is the first answer whose verdict is right; without one, an unknown one; without one, that for
    `problem.answer`.
    """
    if not problem.alternatives:
        return verifier(problem, response)
    answers, verdicts = [], []
    for acceptable in (problem.answer, *problem.alternatives):
        form = dataclasses.replace(problem, answer=acceptable, alternatives=())
        answers.append(verifier(form, response))
        verdicts.append(judged(answers[-1], verifier, form, any_reward=True).verdict)
        if verdicts[-1] == "right":
            return answers[-1]
    return answers[verdicts.index("unknown") if "unknown" in verdicts else 0]


def judgements_of(
    verifier: Verifier, problems: Sequence[Problem], responses: Sequence[str], any_reward: bool = False
) -> list[Judgement]:
    """The judgements of B responses, by one call of a `BatchVerifier`, or by B calls of another verifier.

    Args:
        verifier: verifies them.
        problems: B, the problem of each response.
        responses: B texts.
        any_reward: whether numbers outside [0, 1] are accepted, see `judged`.

    Raises:
        VerifierError: the verifier raised an exception, or returned what is no judgement.
        MemoryError: there was too little memory.
    """
    try:
        answers = answers_of(verifier, problems, responses)
        return [judged(a, verifier, p, any_reward) for a, p in zip(answers, problems, strict=True)]
    except MemoryError:
        raise
    except WrongAnswer as error:
        raise VerifierError(str(error)) from error
    except Exception as error:
        raise VerifierError(f"{verifier} failed{on(problems)}:\n{traceback.format_exc()[-_LONGEST_ERROR:]}") from error


def on(problems: Sequence[Problem]) -> str:
    """ " on PROBLEM", for an error's message; of several problems the first."""
    more = f", or on another of the {len(problems)} that were verified with it" if len(problems) > 1 else ""
    return f" on {str(problems[0])[:_LONGEST_ERROR]}{more}" if problems else ""


def batches(verifier: Verifier, problems: Sequence[Problem], rows: Sequence[int]) -> list[list[int]]:
    """The batches in which responses are verified: each row alone, or rows together where a `BatchVerifier` is asked.

    The same verifiers are asked about all rows of a batch. So a response that ends its worker never takes a response
    with it that another verifier verifies.

    Args:
        verifier: verifies the responses.
        problems: the problems of all rows.
        rows: the rows to verify.
    """
    all_batches: list[list[int]] = []
    unfinished: dict[tuple[int, ...], list[int]] = {}
    for row in rows:
        leaves = _leaves(verifier, problems[row])
        size = min((_batch_size(leaf, len(rows)) for leaf in leaves if isinstance(leaf, BatchVerifier)), default=1)
        asked = tuple(id(leaf) for leaf in leaves)  # a user's verifier may have no hash
        if asked not in unfinished:
            unfinished[asked] = []
            all_batches.append(unfinished[asked])
        unfinished[asked].append(row)
        if len(unfinished[asked]) >= size:
            del unfinished[asked]
    return all_batches


def _leaves(verifier: Verifier, problem: Problem) -> tuple[Verifier, ...]:
    """The verifiers that ask no others, of those that are asked about a problem."""
    if not isinstance(verifier, Delegates):
        return (verifier,)
    return tuple(leaf for asked in verifier.delegates(problem) for leaf in _leaves(asked, problem))


def _batch_size(verifier: BatchVerifier, unlimited: int) -> int:
    size: int | None = getattr(verifier, "batch_size", None)
    return unlimited if size is None else size


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
