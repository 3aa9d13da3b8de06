"""Learning rates over the steps n = 0, 1, ... done in a phase, as values that a config can hold, save and compare.

    Linear    eta(n) = start + (end - start) min(n / steps, 1)
    Cosine    eta(n) = end + (start - end) (1 + cos(pi min(n / steps, 1))) / 2            (Loshchilov & Hutter 2017)
    Warmup    eta(n) = eta_then(0) (n + 1) / (steps + 1) for n < steps, eta_then(n - steps) from there on

The first step of a warm-up has a rate above 0: at 0 its rollouts would be sampled for nothing. A schedule begins anew
in every phase. Any function i32[] -> f32[] of an importable module is a schedule too; optax's are closures, which no
saved config can name.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from prerl_jax.core.types import Array, Schedule


def _check(schedule: Linear | Cosine | Warmup, *rates: float) -> None:
    if schedule.steps < 1 or not all(0 <= rate < float("inf") for rate in rates):
        raise ValueError(f"{schedule} needs 1 step or more, and rates that are 0 or more and finite.")


def check_rate(what: str, rate: float | Schedule) -> None:
    """Raises ValueError, saying `what` has it, for a rate that is a number below 0 or not finite."""
    if not callable(rate) and not 0 <= rate < float("inf"):
        raise ValueError(f"{what} {rate}; it must be 0 or more, and finite.")


@dataclasses.dataclass(frozen=True)
class Linear:
    """From `start` to `end` in a straight line over `steps` steps, and `end` from there on."""

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
    """From `start` to `end` along half a wave over `steps` steps, and `end` from there on."""

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
    """Up to `then` over `steps` steps: a rate, or a schedule, which begins where the warm-up ends."""

    steps: int
    then: float | Schedule

    def __post_init__(self) -> None:
        _check(self, *(() if callable(self.then) else (self.then,)))

    def __call__(self, phase_step: Array) -> Array:
        """i32[] -> f32[]."""
        after = jnp.maximum(phase_step - self.steps, 0)
        rate = self.then(after) if callable(self.then) else self.then
        return rate * jnp.minimum((phase_step + 1) / (self.steps + 1), 1.0)
