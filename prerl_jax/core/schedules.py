"""Schedules: learning rates, or coefficients of terms, over the steps n = 0, 1, ... done in a phase.

    Linear    eta(n) = start + (end - start) min(n / steps, 1)
    Cosine    eta(n) = end + (start - end) (1 + cos(pi min(n / steps, 1))) / 2            (Loshchilov & Hutter 2017)
    Warmup    eta(n) = eta_then(0) (n + 1) / (steps + 1) for n < steps, eta_then(n - steps) afterwards

They are values that a config can hold, save and compare. The first step of a warm-up has a rate above 0; with a rate of
0 its rollouts would be of no use. A schedule starts anew in every phase. Any function i32[] -> f32[] of an importable
module is a schedule too. Those of optax are closures, which a saved config cannot name.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from prerl_jax.core.types import Array, Schedule


def _check(schedule: Linear | Cosine | Warmup, *rates: float) -> None:
    if schedule.steps < 1 or not all(0 <= rate < float("inf") for rate in rates):
        raise ValueError(f"{schedule} needs 1 step or more, and rates that are 0 or more and finite.")


def check_rate(what: str, rate: float | Schedule) -> None:
    """Raises ValueError for a number that is below 0 or not finite; the message begins with `what`."""
    if not callable(rate) and not 0 <= rate < float("inf"):
        raise ValueError(f"{what} {rate}; it must be 0 or more, and finite.")


@dataclasses.dataclass(frozen=True)
class Linear:
    """Goes from `start` to `end` in a straight line over `steps` steps, and stays at `end`.

    Attributes:
      start: the first rate, 0 or more.
      end: the last rate, 0 or more.
      steps: the number of steps of the line, at least 1.
    """

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        _check(self, self.start, self.end)

    def __call__(self, phase_step: Array) -> Array:
        """i32[] -> f32[]."""
        return self.start + (self.end - self.start) * jnp.minimum(phase_step / self.steps, 1.0)


@dataclasses.dataclass(frozen=True)
class Cosine:
    """Goes from `start` to `end` along half a cosine wave over `steps` steps, and stays at `end`.

    The form is that of SGDR without restarts (Loshchilov & Hutter 2017, arXiv 1608.03983).

    Attributes:
      start: the first rate, 0 or more.
      end: the last rate, 0 or more.
      steps: the number of steps of the half wave, at least 1.
    """

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        _check(self, self.start, self.end)

    def __call__(self, phase_step: Array) -> Array:
        """i32[] -> f32[]."""
        angle = jnp.pi * jnp.minimum(phase_step / self.steps, 1.0)
        return self.end + (self.start - self.end) * (1 + jnp.cos(angle)) / 2


@dataclasses.dataclass(frozen=True)
class Warmup:
    """Rises linearly to `then` over `steps` steps, and goes on with `then`.

    Attributes:
      steps: the number of steps of the warm-up, at least 1.
      then: a rate, 0 or more, or a schedule, whose step 0 is the first after the warm-up.
    """

    steps: int
    then: float | Schedule

    def __post_init__(self) -> None:
        _check(self, *(() if callable(self.then) else (self.then,)))

    def __call__(self, phase_step: Array) -> Array:
        """i32[] -> f32[]."""
        after = jnp.maximum(phase_step - self.steps, 0)
        rate = self.then(after) if callable(self.then) else self.then
        return rate * jnp.minimum((phase_step + 1) / (self.steps + 1), 1.0)
