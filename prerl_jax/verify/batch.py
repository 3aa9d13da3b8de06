"""Verifiers: what they are, and the answers that they give on many responses."""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from prerl_jax.data.problems import Problem
from prerl_jax.verify.judgement import NEEDS_VERDICTS, Judgement, WrongAnswer, judged

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

    It may have an attribute `batch_size`, the most responses of one call, 1 or more. Without one, or with None, it gets
    all responses that are there. It must compare with `problem.alternatives`, too: only a `SingleVerifier` is asked
    about each acceptable answer in turn.
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
        reads_answer: whether its verdict depends on `Problem.answer`. One that does not read it is asked once about a
            problem with several acceptable answers.
    """

    needs_workers: bool = False
    imports: tuple[str, ...] = ()
    reads_answer: bool = True


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


def asked_by(verifier: Verifier, problem: Problem | None = None) -> tuple[Verifier, ...]:
    """The verifier, those that it asks, those that they ask, and so on, about a problem; for None, about any."""
    asked = verifier.delegates(problem) if isinstance(verifier, Delegates) else ()
    return (verifier, *(one for other in asked for one in asked_by(other, problem)))


def leaves_of(verifier: Verifier, problem: Problem | None = None) -> tuple[Verifier, ...]:
    """Those of `asked_by` that ask no others."""
    return tuple(one for one in asked_by(verifier, problem) if not isinstance(one, Delegates))


def traits_of(verifier: Verifier) -> VerifierTraits:
    """The traits of a verifier; for one that asks others, those of the others together."""
    found: list[VerifierTraits] = [getattr(leaf, "traits", VerifierTraits()) for leaf in leaves_of(verifier)]
    imports = tuple(module for traits in found for module in traits.imports)
    return VerifierTraits(
        needs_workers=any(traits.needs_workers for traits in found),
        imports=imports,
        reads_answer=any(traits.reads_answer for traits in found),
    )


def require_verifier(value: Any, name: str) -> None:
    """Raises ValueError if a value of a config, which the error names, is no verifier."""
    if isinstance(value, type):
        raise ValueError(f"{name} is the class {value.__name__}; make a verifier of it, with {value.__name__}(...).")
    if not (callable(value) or isinstance(value, BatchVerifier)):
        raise ValueError(f"{name} is {value!r}, which is no verifier: it has no __call__ and no verify_batch.")


def require_workers(verifier: Verifier, workers: int) -> None:
    """Raises ValueError if the verifier needs worker processes and there are none."""
    if traits_of(verifier).needs_workers and not workers:
        raise ValueError(
            f"{verifier} must run in worker processes, because it may hang or take too much memory on some responses. "
            "Set data.verify_workers to 1 or more, for instance data.verify_workers=4."
        )


def check_problem(verifier: Verifier, problem: Problem) -> None:
    """Raises ValueError if the verifier says that it cannot verify responses to this problem.

    Raises VerifierError if its `check` raised another exception.
    """
    if isinstance(verifier, ChecksProblems):
        try:
            verifier.check(problem)
        except (ValueError, VerifierError, MemoryError):
            raise
        except Exception as error:
            raise _failure("check", verifier, [problem]) from error


def written(verifier: Verifier, problem: Problem) -> str | None:
    """The shortest right response, see `WritesAnswers`; None if the verifier cannot write one.

    Raises VerifierError if its `write` raised an exception, or returned what is neither text nor None.
    """
    if not isinstance(verifier, WritesAnswers):
        return None
    try:
        text = verifier.write(problem)
    except (VerifierError, MemoryError):
        raise
    except Exception as error:
        raise _failure("write", verifier, [problem]) from error
    if not isinstance(text, str | None):
        raise VerifierError(
            f"write of {verifier} returned a {type(text).__name__}, {str(text)[:80]!r}, and not text or None"
            f"{on([problem])}."
        )
    return text


def answers_of(verifier: Verifier, problems: Sequence[Problem], responses: Sequence[str]) -> list[Answer]:
    """What a verifier returns for B responses, not yet checked by `judged`.

    Raises WrongAnswer if a `BatchVerifier` returns anything but a sequence of B values.
    """
    if not isinstance(verifier, BatchVerifier):
        return [_answer(verifier, problem, response) for problem, response in zip(problems, responses, strict=True)]
    if not responses:
        return []
    answers = verifier.verify_batch(problems, responses)
    is_text = isinstance(answers, str | bytes | bytearray)
    is_array = hasattr(answers, "shape") and len(answers.shape) > 0
    if is_text or not (isinstance(answers, Sequence) or is_array):
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
    if not problem.alternatives or not traits_of(verifier).reads_answer:
        return verifier(problem, response)
    answers, verdicts = [], []
    for acceptable in (problem.answer, *problem.alternatives):
        form = dataclasses.replace(problem, answer=acceptable, alternatives=())
        answers.append(verifier(form, response))
        verdicts.append(judged(answers[-1], verifier, form, any_reward=True).verdict)
        if verdicts[-1] == "right":
            return answers[-1]
    return answers[verdicts.index("unknown") if "unknown" in verdicts else 0]


def asked_judgements(
    verifier: Verifier,
    problems: Sequence[Problem],
    responses: Sequence[str],
    any_reward: bool,
    because: str = NEEDS_VERDICTS,
) -> list[Judgement]:
    """What a verifier returns for B responses, checked by `judged`, whose arguments these are.

    Raises WrongAnswer if it returned what is no judgement, and what the verifier raises.
    """
    answers = answers_of(verifier, problems, responses)
    return [judged(a, verifier, p, any_reward, because) for a, p in zip(answers, problems, strict=True)]


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
        return asked_judgements(verifier, problems, responses, any_reward)
    except (MemoryError, VerifierError):
        raise
    except WrongAnswer as error:
        raise VerifierError(str(error)) from error
    except Exception as error:
        raise _failure("", verifier, problems) from error


def _failure(method: str, verifier: Verifier, problems: Sequence[Problem]) -> VerifierError:
    """The error for the exception that is being handled, with its traceback."""
    what = f"{method} of {verifier}" if method else f"{verifier}"
    return VerifierError(f"{what} failed{on(problems)}:\n{traceback.format_exc()[-_LONGEST_ERROR:]}")


def on(problems: Sequence[Problem]) -> str:
    """ " on PROBLEM", for an error's message; of several problems the first."""
    more = f", or on another of the {len(problems)} that were verified with it" if len(problems) > 1 else ""
    return f" on {str(problems[0])[:_LONGEST_ERROR]}{more}" if problems else ""


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
