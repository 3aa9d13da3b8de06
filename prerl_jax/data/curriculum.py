"""A curriculum: which problems a run draws from, by their difficulty and the number of batches drawn."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from prerl_jax.data.field_types import require_types
from prerl_jax.data.problems import Problem

Window = tuple[float, float]
"""(low, high) shares of the problems, ordered from easy to hard: (0, 0.3) is the easiest 30 %."""
EASY = ("low", "high")


@dataclasses.dataclass(frozen=True)
class Curriculum:
    """Draws from a window of the problems, ordered from easy to hard, that moves with the batches.

        Curriculum(steps=100)                                      the easiest 30 % first, all from batch 100 on
        Curriculum(steps=100, begin=(0.0, 0.2), end=(0.8, 1.0))    a window that moves from easy to hard
        Curriculum(between=(0.1, 0.9))                             only problems with such a difficulty

    The window's ends move on straight lines. While it moves, every batch is a random choice from the window of that
    batch, without repetition. Then the problems of the last window are shuffled, epoch by epoch. Each source of a
    mixture has a window of its own, because difficulties of two data sets cannot be compared.

    Attributes:
        steps: batches until the window is `end`, 0 or more. A step draws one batch, or several if its phase resamples.
        begin: the window of the first batch.
        end: the window from batch `steps` on.
        easy: "low" if a low `Problem.difficulty` is easy, as for levels; "high" for shares of solved attempts.
        between: the lowest and highest difficulty to keep, in the data's own scale; None keeps all.
        missing: the difficulty of problems that have none; None refuses them.

    Raises:
        ValueError: a field is outside these ranges.
    """

    steps: int = 0
    begin: Window = (0.0, 0.3)
    end: Window = (0.0, 1.0)
    easy: str = "low"
    between: tuple[float, float] | None = None
    missing: float | None = None

    def __post_init__(self) -> None:
        require_types(self)
        if self.steps < 0:
            raise ValueError(f"the curriculum's steps are {self.steps}; they must be 0 or more")
        for name in ("begin", "end"):
            low, high = getattr(self, name)
            if not 0 <= low < high <= 1:
                raise ValueError(
                    f"the curriculum's {name} is {(low, high)}; it must be (low, high) with 0 <= low < high <= 1"
                )
        if self.easy not in EASY:
            raise ValueError(f"the curriculum's easy is {self.easy!r}; it is one of {EASY}")
        if self.between is not None and not self.between[0] <= self.between[1]:
            raise ValueError(f"the curriculum's between is {self.between}; it must be (lowest, highest)")
        if self.missing is not None and not math.isfinite(self.missing):
            raise ValueError(f"the curriculum's missing is {self.missing}; it must be finite")

    def difficulties(self, problems: Sequence[Problem]) -> np.ndarray:
        """f64[problems]: the difficulty of each.

        Raises:
            ValueError: some have none, and `missing` is None.
        """
        found = [self.missing if problem.difficulty is None else problem.difficulty for problem in problems]
        without = [number for number, difficulty in enumerate(found) if difficulty is None]
        if without:
            raise ValueError(
                f"{len(without):,} of {len(found):,} problems have no difficulty, the first is problem {without[0]}: "
                f"{str(problems[without[0]].prompt)[:80]!r}. Name its column, Columns(difficulty=...), or say where "
                "such problems belong, Curriculum(missing=NUMBER)"
            )
        return np.asarray(found, np.float64)

    def kept(self, problems: Sequence[Problem]) -> np.ndarray:
        """bool[problems]: which have a difficulty within `between`.

        Raises:
            ValueError: some have no difficulty, or none is within it.
        """
        found = self.difficulties(problems)
        if self.between is None:
            return np.ones(len(found), bool)
        low, high = self.between
        inside = (low <= found) & (found <= high)
        if not inside.any():
            raise ValueError(
                f"no problem has a difficulty between {low:g} and {high:g}: they are {found.min():g} to {found.max():g}"
            )
        return inside

    def ranked(self, problems: Sequence[Problem]) -> np.ndarray:
        """i64[problems]: their numbers from easy to hard. Equally difficult ones stay in their order."""
        found = self.difficulties(problems)
        return np.argsort(found if self.easy == "low" else -found, kind="stable")

    def window(self, batch: int, size: int) -> tuple[int, int]:
        """(first, end) ranks of the window of a batch, counted from 0, among `size` problems."""
        moved = min(1.0, batch / self.steps) if self.steps else 1.0
        low, high = ((1 - moved) * a + moved * b for a, b in zip(self.begin, self.end, strict=True))
        return math.floor(low * size + 1e-9), math.ceil(high * size - 1e-9)
