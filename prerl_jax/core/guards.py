"""Guards: what a phase watches while it trains, and what becomes of it when something goes wrong, or is done.

A guard is data: the metric that it watches, a condition on that metric's measurements m_1, m_2, ... in this phase, and
a reaction. It trips when its condition has held for `patience` measurements in a row.

    Below, Above   m_n < value,  m_n > value
    FellBy, RoseBy             m_n < m_1 - amount,  m_n > m_1 + amount
    FellToRatio, RoseToRatio   m_n < ratio m_1,  m_n > ratio m_1
    Plateau        of the last `patience` measurements none is above max(those before) + min_delta, and none below
                   min(those before) - min_delta: neither a new height nor a new depth

m_1 is the measurement of the parameters that the phase began with: a metric of training in its first step, one of the
evaluation at the end of the phase before it. A condition of one's own is a frozen dataclass with `__call__`. The
automatic switch is `Guard(metric, Plateau(...), EndPhase())`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Protocol


class Condition(Protocol):
    """(the measurements of a metric so far in this phase, the latest last; at least one) -> whether it holds now."""

    def __call__(self, values: Sequence[float]) -> bool: ...


def _finite(condition: object) -> None:
    for field in dataclasses.fields(condition):
        value = getattr(condition, field.name)
        if not math.isfinite(value):
            raise ValueError(f"{type(condition).__name__}.{field.name} is {value}; it must be a finite number.")


def _positive(condition: object, name: str) -> None:
    _finite(condition)
    if not getattr(condition, name) > 0:
        raise ValueError(f"{type(condition).__name__}.{name} is {getattr(condition, name)}; it must be above 0.")


@dataclasses.dataclass(frozen=True)
class Below:
    """The metric is below a value."""

    value: float

    def __post_init__(self):
        _finite(self)

    def __call__(self, values: Sequence[float]) -> bool:
        return values[-1] < self.value


@dataclasses.dataclass(frozen=True)
class Above:
    """The metric is above a value."""

    value: float

    def __post_init__(self):
        _finite(self)

    def __call__(self, values: Sequence[float]) -> bool:
        return values[-1] > self.value


@dataclasses.dataclass(frozen=True)
class FellBy:
    """The metric is more than `amount` below the phase's first value."""

    amount: float

    def __post_init__(self):
        _finite(self)

    def __call__(self, values: Sequence[float]) -> bool:
        return values[-1] < values[0] - self.amount


@dataclasses.dataclass(frozen=True)
class RoseBy:
    """The metric is more than `amount` above the phase's first value."""

    amount: float

    def __post_init__(self):
        _finite(self)

    def __call__(self, values: Sequence[float]) -> bool:
        return values[-1] > values[0] + self.amount


@dataclasses.dataclass(frozen=True)
class FellToRatio:
    """The metric, a positive one, is below this share of the phase's first value."""

    ratio: float

    def __post_init__(self):
        _positive(self, "ratio")

    def __call__(self, values: Sequence[float]) -> bool:
        return values[-1] < self.ratio * values[0]


@dataclasses.dataclass(frozen=True)
class RoseToRatio:
    """The metric, a positive one, is above so many times the phase's first value."""

    ratio: float

    def __post_init__(self):
        _positive(self, "ratio")

    def __call__(self, values: Sequence[float]) -> bool:
        return values[-1] > self.ratio * values[0]


@dataclasses.dataclass(frozen=True)
class Plateau:
    """The metric moves no further, up or down: no new highest or lowest value in the last measurements.

    Attributes:
      patience: how many of the last measurements are compared with those before them.
      min_delta: by how much a value must exceed the highest, or fall below the lowest, to be a new one.
    """

    patience: int
    min_delta: float = 0.0

    def __post_init__(self):
        _positive(self, "patience")
        if self.min_delta < 0:
            raise ValueError(f"Plateau.min_delta is {self.min_delta}; it must be 0 or more.")

    def __call__(self, values: Sequence[float]) -> bool:
        before, last = values[: -self.patience], values[-self.patience :]
        if not before:
            return False
        higher = max(last) > max(before) + self.min_delta
        lower = min(last) < min(before) - self.min_delta
        return not (higher or lower)


@dataclasses.dataclass(frozen=True)
class Warn:
    """Says so, and goes on."""


@dataclasses.dataclass(frozen=True)
class EndPhase:
    """Ends the phase after this step, with the parameters as they are; the next one follows."""


@dataclasses.dataclass(frozen=True)
class RollBack:
    """Ends the phase, with parameters and optimizer state of the last good checkpoint; steps and data go on.

    That is the newest one up to the parameters that were measured last without the condition holding: what lies between
    two measurements is not known to be good. At the earliest it is the phase's beginning.

    Attributes:
      every: steps of the phase between checkpoints for this, beside those of `checkpoints.every`; 0 saves none.
    """

    every: int = 5

    def __post_init__(self):
        if self.every < 0:
            raise ValueError(f"RollBack.every is {self.every}; it must be 0 (no checkpoints of its own) or more.")


Reaction = Warn | EndPhase | RollBack


@dataclasses.dataclass(frozen=True)
class Guard:
    """A metric, what must not become of it, and what is done if it does.

    Attributes:
      metric: as in metrics.jsonl: `train/...`, `eval/...` or `alignment/...`.
      condition: on its measurements in this phase.
      reaction: Warn(), EndPhase() or RollBack().
      patience: measurements in a row for which the condition must hold.
    """

    metric: str
    condition: Condition
    reaction: Reaction = Warn()
    patience: int = 1

    def __post_init__(self):
        if self.metric.partition("/")[0] not in ("train", "eval", "alignment"):
            raise ValueError(
                f"A guard watches {self.metric!r}; it can watch metrics of train/, eval/ and alignment/, which are "
                "functions of the config. What depends on time would end a resumed run elsewhere."
            )
        if self.patience < 1:
            raise ValueError(f"The guard on {self.metric} has a patience of {self.patience}; it must be 1 or more.")

    def held(self, values: Sequence[float]) -> int:
        """For how many of the last measurements the condition has held without a break; 0 is none."""
        held = 0
        while held < len(values) and self.condition(values[: len(values) - held]):
            held += 1
        return held

    def __str__(self) -> str:
        fields = dataclasses.fields(self.condition) if dataclasses.is_dataclass(self.condition) else ()
        numbers = " ".join(f"{getattr(self.condition, field.name)}" for field in fields)
        return f"{self.metric} {type(self.condition).__name__.lower()} {numbers}".strip()
