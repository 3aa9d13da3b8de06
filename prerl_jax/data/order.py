"""The order of a run with a mixture or a curriculum: batch number -> numbers of problems, without a state."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from prerl_jax.data.curriculum import Curriculum
from prerl_jax.data.mixture import schedule
from prerl_jax.data.problems import Problem

WHOLE, MOVING = 0, 1
"""Words of random seeds: of a part's epochs, and of batches from a window that moves."""


class Order:
    """The numbers of the problems in each batch, a pure function of (arguments, batch number).

    Args:
        parts: the problems of each source. Their numbers go on from one part to the next.
        shares: the share of each part; their sum is 1.
        batch: problems of a batch, 1 or more.
        seed: the seed of all shuffles, from 0 to 2**32 - 1.
        curriculum: moves a window over each part; None draws from all.

    Raises:
        ValueError: a part, or a window of it, has fewer problems than a batch draws from it.
    """

    def __init__(
        self,
        parts: Sequence[Sequence[Problem]],
        shares: Sequence[Fraction],
        *,
        batch: int,
        seed: int,
        curriculum: Curriculum | None = None,
    ) -> None:
        self.batch, self.seed, self.curriculum = batch, seed, curriculum
        self._sizes = [len(part) for part in parts]
        self._shares = [str(share) for share in shares]
        self._offsets = np.cumsum([0, *self._sizes])
        self._places = schedule(shares)
        one_hot = self._places[None] == np.arange(len(parts))[:, None]
        self._served = np.concatenate([np.zeros((len(parts), 1), np.int64), one_hot.cumsum(axis=1)], axis=1)
        self._ranked = [np.arange(len(part)) if curriculum is None else curriculum.ranked(part) for part in parts]
        self._permutation = functools.lru_cache(2 * len(parts))(self._shuffled)
        self._check()

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the order, as JSON."""
        return {
            "size": sum(self._sizes),
            "batch": self.batch,
            "seed": self.seed,
            "parts": self._sizes,
            "shares": self._shares,
            "curriculum": "" if self.curriculum is None else str(self.curriculum),
        }

    def numbers(self, batch: int) -> np.ndarray:
        """i32[batch]: the numbers of the problems of a batch, which is counted from 0."""
        first, end = (self._drawn(n * self.batch) for n in (batch, batch + 1))
        taken = [
            self._offsets[part] + self._ranked[part][self._ranks(part, batch, int(first[part]), int(end[part]))]
            for part in range(len(self._sizes))
        ]
        draws = np.arange(batch * self.batch, (batch + 1) * self.batch) % len(self._places)
        found = np.empty(self.batch, np.int32)
        for part, numbers in enumerate(taken):
            found[self._places[draws] == part] = numbers
        return found

    def _drawn(self, count: int) -> np.ndarray:
        """i64[parts]: how many of the first `count` draws are each part's."""
        periods, rest = divmod(count, len(self._places))
        return periods * self._served[:, -1] + self._served[:, rest]

    def _window(self, part: int, batch: int) -> tuple[int, int]:
        size = self._sizes[part]
        return (0, size) if self.curriculum is None else self.curriculum.window(batch, size)

    def _ranks(self, part: int, batch: int, first: int, end: int) -> np.ndarray:
        """The ranks of draws `first` to `end` of a part."""
        low, high = self._window(part, batch)
        moving = 0 if self.curriculum is None else self.curriculum.steps
        if batch < moving:
            random = np.random.default_rng([self.seed, part, MOVING, batch])
            return low + random.choice(high - low, end - first, replace=False)
        size = high - low
        draws = np.arange(first, end) - int(self._drawn(moving * self.batch)[part])
        return low + np.array([self._permutation(part, size, n // size)[n % size] for n in draws.tolist()], np.int64)

    def _shuffled(self, part: int, size: int, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, part, WHOLE, epoch]).permutation(size)

    def _check(self) -> None:
        """Every batch finds enough distinct problems in each part."""
        starts = np.arange(len(self._places)) * self.batch
        most = np.max([self._drawn(int(n) + self.batch) - self._drawn(int(n)) for n in starts[:1000]], axis=0)
        for part, size in enumerate(self._sizes):
            what = f"part {part} of the mixture" if len(self._sizes) > 1 else "data.train"
            if size < most[part]:
                raise ValueError(
                    f"a batch of {self.batch} prompts draws up to {most[part]} problems from {what}, which has {size}; "
                    "lower sampling.prompts_per_step or the part's weight"
                )
            narrowest = min(high - low for low, high in (self._window(part, n) for n in self._moving()))
            if narrowest < most[part]:
                raise ValueError(
                    f"a batch draws up to {most[part]} problems from {what}, and the curriculum's window has "
                    f"{narrowest} of its {size}: widen begin or end, or lower sampling.prompts_per_step"
                )

    def _moving(self) -> range:
        return range(1 if self.curriculum is None else self.curriculum.steps + 1)
