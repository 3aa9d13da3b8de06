"""A step under way, and what is read off it when it is over."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from prerl_jax.config.schema import TrainConfig
from prerl_jax.core.phases import Phase
from prerl_jax.core.types import Rollouts
from prerl_jax.data import Example
from prerl_jax.data.problems import Problem, as_text
from prerl_jax.trainer.timing import Times, Work


@dataclasses.dataclass
class Step:
    """A step under way: what is known of it, in the order in which it is found out."""

    number: int
    """From 1."""
    phase: Phase
    phase_step: int
    """Steps of the phase that are done before it."""
    times: Times = dataclasses.field(default_factory=Times)
    key: jax.Array | None = None
    """Of what is drawn at random in preparing."""
    position: dict = dataclasses.field(default_factory=dict)
    """Of the data, after this step."""
    examples: list[Example] = dataclasses.field(default_factory=list)
    """This process's, in the order of its groups."""
    rollouts: Rollouts | None = None
    """This process's, verified."""
    drawn: list[Rollouts] = dataclasses.field(default_factory=list)
    """All that were sampled, by draw; those of a single draw are the rollouts."""
    counted: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Metrics of the first draw and of the number of draws, where there may be several."""
    responses: list[str] | None = None
    late: np.ndarray | None = None
    """bool: whether verification took too long, of the rows of all processes."""
    aligned: dict[str, jax.Array] = dataclasses.field(default_factory=dict)
    metrics: dict[str, Any] = dataclasses.field(default_factory=dict)
    """On the device, which may not have computed them yet."""
    work: Work | None = None
    ended: bool = False
    """Whether its phase ends with it."""
    evaluated: dict[str, float] = dataclasses.field(default_factory=dict)
    free: float | None = None
    """When the device was free of an evaluation after it."""
    guarded: dict[str, float] = dataclasses.field(default_factory=dict)
    """What the guards say of it, as metrics."""
    scalars: dict[str, float] = dataclasses.field(default_factory=dict)
    """All metrics, as numbers."""

    def wait_aligned(self) -> None:
        """Until its alignment is measured, where it is."""
        jax.block_until_ready(self.aligned)
        self.times.mark_once("aligned")

    def measured(self) -> dict[str, float]:
        """Its `train/` and `alignment/` metrics as numbers, when the device has computed them."""
        return scalars(jax.device_get(self.metrics | self.aligned))


def problems_of(examples: list[Example], group_size: int) -> list[Problem]:
    """The problem of every row."""
    return [example.problem for example in examples for _ in range(group_size)]


def completions(config: TrainConfig, step: Step) -> list[dict[str, Any]]:
    """A few of the step's responses, evenly spread over its groups."""
    problems = problems_of(step.examples, config.sampling.group_size)
    count = min(config.completions_per_step, len(problems))
    return [
        {
            "phase": step.phase.name,
            "prompt": as_text(problems[row].prompt),
            "answer": problems[row].answer,
            "response": step.responses[row],
            "reward": float(step.rollouts.rewards[row]),
            "truncated": bool(step.rollouts.truncated[row]),
        }
        for row in (i * len(problems) // count for i in range(count))
    ]


def scalars(metrics: dict[str, Any]) -> dict[str, float]:
    """Vectors by layer become one entry a layer."""
    flat = {}
    for name, value in metrics.items():
        if np.ndim(value):
            flat |= {f"{name}/{i}": float(v) for i, v in enumerate(value)}
        else:
            flat[name] = float(value)
    return flat


def due(every: int, number: int) -> bool:
    """Whether something that comes every so many steps, 0 being never, comes after this one."""
    return bool(every) and number % every == 0
