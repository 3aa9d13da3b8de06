"""Guards: conditions on a phase's metrics, and what happens when one holds.

A guard is data: a metric, a condition on the values m_1, m_2, ... that it had in this phase, and a reaction. A guard
trips when its condition has held for `patience` values in a row.

    Below, Above               m_n < value,  m_n > value
    FellBy, RoseBy             m_n < m_1 - amount,  m_n > m_1 + amount
    FellToRatio, RoseToRatio   m_n < ratio m_1,  m_n > ratio m_1
    Plateau                    no value of the last `patience` is above max(those before) + min_delta or below
                               min(those before) - min_delta

m_1 is the first value that is not NaN, usually that of the parameters that the phase began with: a metric of training
has it in the phase's first step, a metric of evaluation at the end of the phase before. A NaN makes no condition hold.
A condition of your own is a frozen dataclass with `__call__`. To switch to the next phase automatically, use
`Guard(metric, Plateau(...), EndPhase())`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Protocol


class Condition(Protocol):
    """A condition on the values of a metric."""

    def __call__(self, values: Sequence[float], /) -> bool:
        """Whether the condition holds. `values`: the metric's values in this phase, oldest first, at least one."""


def _finite(condition: Any) -> None:
    for field in dataclasses.fields(condition):
        value = getattr(condition, field.name)
        if not math.isfinite(value):
            raise ValueError(f"{type(condition).__name__}.{field.name} is {value}; it must be a finite number.")


def _first(values: Sequence[float]) -> float:
    """The first value that is not NaN; NaN if there is none."""
    return next((value for value in values if not math.isnan(value)), math.nan)


def _positive(condition: Any, name: str) -> None:
    _finite(condition)
    if not getattr(condition, name) > 0:
        raise ValueError(f"{type(condition).__name__}.{name} is {getattr(condition, name)}; it must be above 0.")


@dataclasses.dataclass(frozen=True)
class Below:
    """The metric is below a value.

    Attributes:
      value: the bound, finite.
    """

    value: float

    def __post_init__(self):
        _finite(self)

    def __call__(self, values: Sequence[float]) -> bool:
        return values[-1] < self.value


@dataclasses.dataclass(frozen=True)
class Above:
    """The metric is above a value.

    Attributes:
      value: the bound, finite.
    """

    value: float

    def __post_init__(self):
        _finite(self)

    def __call__(self, values: Sequence[float]) -> bool:
        return values[-1] > self.value


@dataclasses.dataclass(frozen=True)
class FellBy:
    """The metric is more than `amount` below the phase's first value.

    Attributes:
      amount: the difference, finite, in the metric's unit.
    """

    amount: float

    def __post_init__(self):
        _finite(self)

    def __call__(self, values: Sequence[float]) -> bool:
        return values[-1] < _first(values) - self.amount


@dataclasses.dataclass(frozen=True)
class RoseBy:
    """The metric is more than `amount` above the phase's first value.

    Attributes:
      amount: the difference, finite, in the metric's unit.
    """

    amount: float

    def __post_init__(self):
        _finite(self)

    def __call__(self, values: Sequence[float]) -> bool:
        return values[-1] > _first(values) + self.amount


@dataclasses.dataclass(frozen=True)
class FellToRatio:
    """The metric is below `ratio` times the phase's first value; for positive metrics.

    Attributes:
      ratio: the factor, above 0, usually below 1.
    """

    ratio: float

    def __post_init__(self):
        _positive(self, "ratio")

    def __call__(self, values: Sequence[float]) -> bool:
        return values[-1] < self.ratio * _first(values)


@dataclasses.dataclass(frozen=True)
class RoseToRatio:
    """The metric is above `ratio` times the phase's first value; for positive metrics.

    Attributes:
      ratio: the factor, above 0, usually above 1.
    """

    ratio: float

    def __post_init__(self):
        _positive(self, "ratio")

    def __call__(self, values: Sequence[float]) -> bool:
        return values[-1] > self.ratio * _first(values)


@dataclasses.dataclass(frozen=True)
class Plateau:
    """The metric has stopped moving: none of the last values is a new highest or a new lowest one.

    Attributes:
      patience: the number of last values that are compared with all values before them; above 0.
      min_delta: a new highest or lowest value differs from the old one by more than this; 0 or more.

    Raises:
      ValueError: `patience` is not above 0, or `min_delta` is below 0.
    """

    patience: int
    min_delta: float = 0.0

    def __post_init__(self):
        _positive(self, "patience")
        if self.min_delta < 0:
            raise ValueError(f"Plateau.min_delta is {self.min_delta}; it must be 0 or more.")

    def __call__(self, values: Sequence[float]) -> bool:
        before = [value for value in values[: -self.patience] if not math.isnan(value)]
        last = values[-self.patience :]
        if not before or any(math.isnan(value) for value in last):
            return False
        higher = max(last) > max(before) + self.min_delta
        lower = min(last) < min(before) - self.min_delta
        return not (higher or lower)


@dataclasses.dataclass(frozen=True)
class Warn:
    """Writes a warning; training continues."""


@dataclasses.dataclass(frozen=True)
class EndPhase:
    """Ends the phase after this step and keeps the parameters; the next phase begins."""


@dataclasses.dataclass(frozen=True)
class RollBack:
    """Ends the phase and restores parameters and optimizer of the last good checkpoint; steps and data continue.

    The last good checkpoint is the newest one that is no later than the last measurement at which the condition did not
    hold: what lies between two measurements is not known to be good. It is never older than the beginning of the phase.

    Attributes:
      every: steps between checkpoints for a roll-back, in addition to those of `checkpoints.every`; 0 or more, 0 saves
        none.

    Raises:
      ValueError: `every` is below 0.
    """

    every: int = 5

    def __post_init__(self):
        if self.every < 0:
            raise ValueError(f"RollBack.every is {self.every}; it must be 0 (no additional checkpoints) or more.")


Reaction = Warn | EndPhase | RollBack


@dataclasses.dataclass(frozen=True)
class Guard:
    """Watches a metric, and reacts when a condition holds.

    Raises ValueError for a metric of another kind, and for a patience below 1.

    Attributes:
      metric: its name in metrics.jsonl: `train/...`, `eval/...` or `alignment/...`.
      condition: a condition on the metric's values in this phase.
      reaction: Warn(), EndPhase() or RollBack().
      patience: the number of values in a row for which the condition must hold, at least 1.
    """

    metric: str
    condition: Condition
    reaction: Reaction = Warn()
    patience: int = 1

    def __post_init__(self):
        if self.metric.partition("/")[0] not in ("train", "eval", "alignment"):
            raise ValueError(
                f"A guard watches {self.metric!r}; it can watch metrics of train/, eval/ and alignment/, which are "
                "functions of the config. A metric that depends on time would end a resumed run at another step."
            )
        if self.patience < 1:
            raise ValueError(f"The guard on {self.metric} has a patience of {self.patience}; it must be 1 or more.")

    def held(self, values: Sequence[float]) -> int:
        """The number of last values for which the condition has held without a break; 0 if it does not hold now."""
        held = 0
        while held < len(values) and self.condition(values[: len(values) - held]):
            held += 1
        return held

    def __str__(self) -> str:
        condition: Any = self.condition
        fields = dataclasses.fields(condition) if dataclasses.is_dataclass(condition) else ()
        numbers = " ".join(f"{getattr(condition, field.name)}" for field in fields)
        return f"{self.metric} {type(self.condition).__name__.lower()} {numbers}".strip()
