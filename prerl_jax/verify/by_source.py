"""A verifier for each source of problems."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from prerl_jax.data.problems import Problem
from prerl_jax.verify.batch import Answer, Verifier, answers_of, asked_by, check_problem, require_verifier, written


class NoVerifierError(ValueError):
    """A source of problems has no verifier."""


@dataclasses.dataclass(frozen=True)
class BySource:
    """`BySource({"gsm8k": GSM8KAnswer(), "aime": IntegerAnswer()})`: the verifier of the source of a problem.

    Attributes:
        verifiers: the verifier of each source, by the name in `Problem.source`. A mapping, or pairs; kept as pairs.
        default: the verifier of all other sources; None: there is none, and a problem of another source ends a run
            before its first step.

    Raises ValueError if there is no verifier, a source is named twice, or what it has is no verifier.
    """

    verifiers: Mapping[str, Verifier] | tuple[tuple[str, Verifier], ...]
    default: Verifier | None = None

    def __post_init__(self) -> None:
        pairs = tuple(self.verifiers.items() if isinstance(self.verifiers, Mapping) else self.verifiers)
        object.__setattr__(self, "verifiers", pairs)
        sources = [source for source, _ in pairs]
        if not sources or len(set(sources)) < len(sources):
            raise ValueError(f"BySource needs a verifier for 1 source or more, and one for each; got {sources}.")
        for source, verifier in pairs:
            require_verifier(verifier, f"BySource's verifier of the source {source!r}")
        if self.default is not None:
            require_verifier(self.default, "BySource's default")

    def delegates(self, problem: Problem | None = None) -> tuple[Verifier, ...]:
        """The verifier of a problem; all of them for None. Raises NoVerifierError for a source without one."""
        verifiers = dict(self.verifiers)
        if problem is None:
            return (*verifiers.values(), *([] if self.default is None else [self.default]))
        verifier = verifiers.get(problem.source, self.default)
        if verifier is None:
            have = ", ".join(map(repr, verifiers))
            raise NoVerifierError(
                f"the source {problem.source!r} has no verifier; there are verifiers for {have}. "
                "Add one for this source to BySource, or set its default."
            )
        return (verifier,)

    def verify_batch(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[Answer]:
        """What the verifiers of B problems return for their responses. Each verifier is asked once.

        Raises NoVerifierError for a source without a verifier.
        """
        rows_of: dict[int, list[int]] = {}
        asked = [self.delegates(problem)[0] for problem in problems]
        for row, verifier in enumerate(asked):
            rows_of.setdefault(id(verifier), []).append(row)
        answers: list[Answer] = [None] * len(responses)
        for rows in rows_of.values():
            found = answers_of(asked[rows[0]], [problems[row] for row in rows], [responses[row] for row in rows])
            for row, answer in zip(rows, found, strict=True):
                answers[row] = answer
        return answers

    def check(self, problem: Problem) -> None:
        """Raises ValueError if the problem's verifier cannot verify it, or NoVerifierError if it has none."""
        check_problem(self.delegates(problem)[0], problem)

    def write(self, problem: Problem) -> str | None:
        """What the problem's verifier writes."""
        return written(self.delegates(problem)[0], problem)


def unused_sources(verifier: Verifier, problems: Sequence[Problem]) -> tuple[str, ...]:
    """The sources that a `BySource` among the verifiers names, and that no problem has, such as a mistyped one."""
    named = [source for one in asked_by(verifier) if isinstance(one, BySource) for source in dict(one.verifiers)]
    have = {problem.source for problem in problems}
    return tuple(dict.fromkeys(source for source in named if source not in have))
