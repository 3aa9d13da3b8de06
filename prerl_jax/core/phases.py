"""Phases: a run is a tuple of them, and each is data.

PreRL, NSR, PSR, DSRL and plain RL differ in the space, the credit and the weighing alone (paper arXiv 2604.14142,
sections 4 and 5); the recipes below are the paper's. A new idea is a frozen dataclass with `__call__` put into a Phase.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from prerl_jax.core.credit import GroupRelative, TokenMean
from prerl_jax.core.objectives import ClippedPG
from prerl_jax.core.spaces import PostTrainSpace, PreTrainSpace
from prerl_jax.core.types import Array, Credit, Objective, Schedule, Space, TrainState, Weigh

PRETRAIN_SCALE = 0.01
"""The published coefficient on losses in pre-train space. Under Adam it mostly disarms the gradient clipping."""


@dataclasses.dataclass(frozen=True)
class Term:
    """One of several parts of a mixed phase: their rows share a batch, so their losses and gradients add."""

    space: Space
    credit: Credit = GroupRelative()
    weigh: Weigh = TokenMean()


@dataclasses.dataclass(frozen=True)
class Phase:
    """What a stretch of training optimises.

    Attributes:
      name: stands in every line of the metrics; unique in a run.
      steps: rollout batches, skipped ones included; exactly so many.
      space, credit, weigh: what is trained on, see Term; unused where there are `terms`.
      objective: per-token loss.
      reset_optimizer: start the phase with fresh moments instead of carrying them over.
      learning_rate: a rate, or a Schedule over the steps of this phase; None for the run's.
      temperature: of sampling, and of the log-probabilities that are trained.
      terms: the parts of a mixed objective.
    """

    name: str
    steps: int
    space: Space = PostTrainSpace()
    credit: Credit = GroupRelative(normalize_std=True, keep="all")
    objective: Objective = ClippedPG(low=0.2, high=0.2, dual=10.0)
    weigh: Weigh = TokenMean(scale=1.0)
    reset_optimizer: bool = False
    learning_rate: float | Schedule | None = None
    temperature: float = 1.0
    terms: tuple[Term, ...] = ()

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"Phase {self.name!r} has {self.steps} steps; it needs at least 1. Leave it out instead.")
        if not self.temperature > 0:
            raise ValueError(f"Phase {self.name!r} trains at temperature {self.temperature}; it must be positive.")

    @property
    def parts(self) -> tuple[Term, ...]:
        """The terms, a plain phase being a mixture of one."""
        return self.terms or (Term(self.space, self.credit, self.weigh),)


Phases = tuple[Phase, ...]


def locate(phases: Phases, step: int) -> tuple[int, int]:
    """(index of the phase, steps done in it) once `step` rollout batches are done; (len(phases), 0) at the end.

    Raises ValueError outside the run's steps.
    """
    if not 0 <= step <= sum(phase.steps for phase in phases):
        raise _outside(phases, step)
    for index, phase in enumerate(phases):
        if step < phase.steps:
            return index, step
        step -= phase.steps
    return len(phases), 0


def phase_at(phases: Phases, step: int) -> Phase:
    """The phase that rollout batch `step` (from 0) belongs to; ValueError outside the run's steps."""
    index, _ = locate(phases, step)
    if index == len(phases):
        raise _outside(phases, step)
    return phases[index]


def _outside(phases: Phases, step: int) -> ValueError:
    total = sum(phase.steps for phase in phases)
    return ValueError(f"Step {step} is outside the {total} steps of the phases {[p.name for p in phases]}.")


def advance(phases: Phases, state: TrainState, end_early: Array | bool = False) -> TrainState:
    """Moves to the next phase where the current one has had its steps, or is ended early; traceable.

    Call it after every train step. Past the last phase, `state.phase` is `len(phases)`.
    """
    steps = jnp.asarray([phase.steps for phase in phases], jnp.int32)
    done = (state.phase_step >= steps[jnp.minimum(state.phase, len(phases) - 1)]) | end_early
    return dataclasses.replace(
        state,
        phase=jnp.where(done, jnp.minimum(state.phase + 1, len(phases)), state.phase),
        phase_step=jnp.where(done, 0, state.phase_step),
    )


def _rl(name: str, steps: int, keep: str, high: float) -> Phase:
    return Phase(name, steps, PostTrainSpace(), GroupRelative(True, keep), ClippedPG(low=0.2, high=high))


def _prerl(name: str, steps: int, keep: str, prefix: int | str | None) -> Phase:
    weigh = TokenMean(scale=PRETRAIN_SCALE)
    return Phase(name, steps, PreTrainSpace(prefix), GroupRelative(False, keep), ClippedPG(), weigh)


def grpo(*, steps: int) -> Phases:
    """GRPO as the paper's baseline has it: all samples, clip 0.2 / 0.28."""
    return (_rl("grpo", steps, "all", 0.28),)


def nsr_rl(*, steps: int) -> Phases:
    """Negative samples alone, in P(y|x)."""
    return (_rl("nsr_rl", steps, "negative", 0.2),)


def psr_rl(*, steps: int) -> Phases:
    """Positive samples alone, in P(y|x)."""
    return (_rl("psr_rl", steps, "positive", 0.2),)


def prerl(*, steps: int, prefix: int | str | None = "auto") -> Phases:
    """All samples, in P(y)."""
    return (_prerl("prerl", steps, "all", prefix),)


def nsr_prerl(*, steps: int, prefix: int | str | None = "auto") -> Phases:
    """Negative samples alone, in P(y): the warm-up that prunes wrong reasoning."""
    return (_prerl("nsr_prerl", steps, "negative", prefix),)


def psr_prerl(*, steps: int, prefix: int | str | None = "auto") -> Phases:
    """Positive samples alone, in P(y)."""
    return (_prerl("psr_prerl", steps, "positive", prefix),)


def dsrl(*, warmup: int, total: int, prefix: int | str | None = "auto") -> Phases:
    """Dual-space RL: `warmup` steps of NSR-PreRL, then GRPO up to `total` steps with the moments carried over."""
    if not 0 <= warmup <= total or total < 1:
        raise ValueError(f"dsrl needs 0 <= warmup <= total and total >= 1, got warmup={warmup}, total={total}.")
    first = nsr_prerl(steps=warmup, prefix=prefix) if warmup else ()
    second = (_rl("rl", total - warmup, "all", 0.2),) if total > warmup else ()
    return first + second
