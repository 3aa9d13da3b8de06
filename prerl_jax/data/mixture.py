"""Mixtures: several sources of problems, each with its share of what a run trains on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from prerl_jax.data.field_types import fits
from prerl_jax.data.problems import Problem, ProblemSource

PERIOD = 100_000
"""The most draws after which a mixture's schedule repeats."""
DENOMINATOR = 1_000
"""The largest denominator of a weight that is no whole number."""


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Several sources, each with a weight: `Mixture(((gsm8k("a.jsonl"), 0.7), (mathqa("b.json"), 0.3)))`.

    Of the first n problems that a run draws, a source with the share w gives floor(n w) or ceil(n w), for every n. Each
    source is shuffled anew in each of its own epochs, so a small source repeats while a large one is in its first
    epoch. As `DataSpec.evaluation`, a mixture is the problems of all its sources, and the weights mean nothing.

    Attributes:
        parts: (source, weight) pairs. Weights are above 0: whole numbers, or fractions such as 0.125 or 1/3. They need
            not sum to 1.

    Raises:
        ValueError: there are fewer than two parts, one is no source with fixed problems, or a weight is not above 0 or
            needs more than three decimals.
    """

    parts: tuple[tuple[ProblemSource, float], ...]

    def __post_init__(self) -> None:
        if not isinstance(self.parts, tuple):
            raise ValueError(f"the parts of a mixture must be a tuple of (source, weight) pairs, got {self.parts!r}")
        if len(self.parts) < 2:
            raise ValueError(f"a mixture of {len(self.parts)} sources mixes nothing; name the source itself")
        for number, part in enumerate(self.parts):
            if not isinstance(part, tuple) or len(part) != 2:
                raise ValueError(f"part {number} of the mixture must be a pair (source, weight), got {part}")
            source = part[0]
            if isinstance(source, Mixture) or not fits(source, ProblemSource):
                raise ValueError(
                    f"part {number} of the mixture is {source}; a part is a source with fixed problems, not a mixture "
                    "or a stream"
                )
        _ = shares(self.weights)  # raises ValueError

    @property
    def weights(self) -> tuple[float, ...]:
        """The weight of each part."""
        return tuple(weight for _, weight in self.parts)

    def load(self) -> tuple[tuple[Problem, ...], tuple[str, ...]]:
        """Loads all parts.

        Returns:
            (the problems of all parts, in the order of the parts; their notes).
        """
        loaded = [source.load() for source, _ in self.parts]
        problems = tuple(problem for found, _ in loaded for problem in found)
        return problems, tuple(note for _, notes in loaded for note in notes)


def shares(weights: Sequence[float]) -> tuple[Fraction, ...]:
    """Weights as shares, whose sum is 1.

    Raises:
        ValueError: a weight is not above 0, or needs too many decimals.
    """
    exact = []
    for weight in weights:
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not math.isfinite(weight) or weight <= 0:
            raise ValueError(f"the weight {weight!r} of a mixture must be a finite number above 0")
        near = Fraction(weight).limit_denominator(DENOMINATOR)
        if near <= 0 or abs(near - Fraction(weight)) > 1e-9 * near:
            raise ValueError(
                f"the weight {weight!r} needs more than three decimals; write whole numbers, such as 2 : 7"
            )
        exact.append(near)
    found = tuple(weight / sum(exact) for weight in exact)
    period = math.lcm(*(share.denominator for share in found))
    if period > PERIOD:
        raise ValueError(
            f"the shares {', '.join(map(str, found))} of the mixture repeat only after {period:,} draws, more than "
            f"{PERIOD:,}; round the weights"
        )
    return found


def schedule(parts: Sequence[Fraction]) -> np.ndarray:
    """Which part gives each draw of a period.

    Draw k of a part with the share w has its earliest and latest place, floor(k / w) and ceil((k + 1) / w) - 1. Each
    place goes to the part that must be served first. Such a schedule exists for all shares (Baruah et al., 1996,
    Proportionate progress), and it serves each part floor(n w) or ceil(n w) times in the first n draws.

    Args:
        parts: the share of each part; their sum is 1.

    Returns:
        i32[period]: numbers of parts. The period is the least common denominator of the shares.
    """
    period = math.lcm(*(share.denominator for share in parts))
    counts = [int(share * period) for share in parts]
    served = [0] * len(parts)
    places = np.zeros(period, np.int32)
    for place in range(period):
        released = [n for n, count in enumerate(counts) if served[n] * period // count <= place]
        first = min(released, key=lambda n: -(-(served[n] + 1) * period // counts[n]))
        places[place] = first
        served[first] += 1
    return places
