"""Only what follows a response's thought counts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from prerl_jax.data.problems import Problem
from prerl_jax.verify.batch import Answer, Verifier, answers_of, check_problem, require_verifier, written
from prerl_jax.verify.judgement import Judgement


@dataclasses.dataclass(frozen=True)
class AfterThinking:
    """`AfterThinking(BoxedAnswer())`: verifies what follows the last "</think>" of a response.

    Attributes:
        verifier: verifies that text.
        marker: the text that ends a thought.
        required: whether a response without the marker is wrong: its thought has no end. Set it where the prompt ends
            with "<think>", so that every response begins with a thought. By default such a response counts as a whole,
            as that of a model that did not think.

    Raises ValueError for an empty marker, or for what is no verifier.
    """

    verifier: Verifier
    marker: str = "</think>"
    required: bool = False

    def __post_init__(self) -> None:
        require_verifier(self.verifier, "AfterThinking.verifier")
        if not self.marker:
            raise ValueError("AfterThinking's marker is empty; name the text that ends a thought, such as '</think>'.")

    def delegates(self, problem: Problem | None = None) -> tuple[Verifier, ...]:
        """The verifier."""
        return (self.verifier,)

    def verify_batch(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[Answer]:
        """What the verifier returns for the texts after the thoughts of B responses."""
        rows = [row for row, response in enumerate(responses) if self.marker in response or not self.required]
        texts = [responses[row].rpartition(self.marker)[2] for row in rows]
        answers: list[Answer] = [Judgement(0.0, "wrong", format_ok=False)] * len(responses)
        for row, answer in zip(rows, answers_of(self.verifier, [problems[row] for row in rows], texts), strict=True):
            answers[row] = answer
        return answers

    def check(self, problem: Problem) -> None:
        """Raises ValueError if the verifier cannot verify the problem."""
        check_problem(self.verifier, problem)

    def write(self, problem: Problem) -> str | None:
        """What the verifier writes, after the marker."""
        text = written(self.verifier, problem)
        return None if text is None else self.marker + text
