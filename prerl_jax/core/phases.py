"""Phases: a run is a tuple of them, and each is data.

PreRL, NSR, PSR, DSRL and plain RL differ in the space, the credit and the weighing alone (paper arXiv 2604.14142,
sections 4 and 5), and most of their rivals in the objective as well; `recipes` has them all. A new idea is a frozen
dataclass with `__call__` put into a Phase.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from prerl_jax.core.advantages import GroupRelative
from prerl_jax.core.aggregation import TokenMean
from prerl_jax.core.guards import Guard
from prerl_jax.core.objectives import ClippedPG
from prerl_jax.core.schedules import check_rate
from prerl_jax.core.spaces import PostTrainSpace
from prerl_jax.core.types import (
    AdvantageEstimator,
    Array,
    LossAggregation,
    Objective,
    RewardShaping,
    Schedule,
    Space,
    TrainState,
)


@dataclasses.dataclass(frozen=True)
class InitialModel:
    """The model that the run began with: the config's, or that of the checkpoint it was begun from."""


@dataclasses.dataclass(frozen=True)
class PhaseStart:
    """The model as it was when the phase began; in the first phase, the initial model."""


Reference = InitialModel | PhaseStart


@dataclasses.dataclass(frozen=True)
class Term:
    """One of several parts of a mixed phase: their rows share a batch, so their losses and gradients add.

    Attributes:
      space: the token layout.
      credit: advantages and selection.
      weigh: the mean.
      coefficient: of this part's loss: a number, or a Schedule over the steps of the phase.
    """

    space: Space
    advantage: AdvantageEstimator = GroupRelative()
    aggregation: LossAggregation = TokenMean()
    coefficient: float | Schedule = 1.0

    def __post_init__(self):
        if not callable(self.coefficient) and not 0 < self.coefficient < float("inf"):
            raise ValueError(f"Term.coefficient is {self.coefficient}; it must be above 0 and finite, or a Schedule.")


@dataclasses.dataclass(frozen=True)
class Phase:
    """What a stretch of training optimises.

    Attributes:
      name: stands in every line of the metrics; unique in a run.
      steps: rollout batches, skipped ones included; exactly so many, unless a guard ends the phase early.
      space, credit, weigh: what is trained on, see Term; with `terms`, each of these has its own.
      objective: per-token loss.
      reset_optimizer: start the phase with fresh moments instead of carrying them over.
      learning_rate: a rate, or a Schedule over the steps of this phase; None for the run's.
      temperature: of sampling, and of the log-probabilities that are trained.
      terms: the parts of a mixed objective.
      reward_shaping: what rewards become before credit is given; None leaves them.
      reference: the policy that the objective's or the reward shaping's KL divergence is from; None where neither has one.
      epochs: how often each rollout is trained on.
      minibatches: parts that the groups of a step are split into at random, anew in every epoch, with an update each.
        More updates than one are held against the policy before the first, which is scored beforehand.
      max_resamples: further draws of prompts at most, until no group's rewards are all equal; what is missing then stays.
      guards: what is watched after every step, and may end the phase.
    """

    name: str
    steps: int
    space: Space = PostTrainSpace()
    advantage: AdvantageEstimator = GroupRelative(normalize_std=True, keep="all")
    objective: Objective = ClippedPG(clip_low=0.2, clip_high=0.2, dual_clip=10.0)
    aggregation: LossAggregation = TokenMean(scale=1.0)
    reset_optimizer: bool = False
    learning_rate: float | Schedule | None = None
    temperature: float = 1.0
    terms: tuple[Term, ...] = ()
    reward_shaping: RewardShaping | None = None
    reference: Reference | None = None
    epochs: int = 1
    minibatches: int = 1
    max_resamples: int = 0
    guards: tuple[Guard, ...] = ()

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"Phase {self.name!r} has {self.steps} steps; it needs at least 1. Leave it out instead.")
        if self.steps % 1:
            raise ValueError(f"Phase {self.name!r} has {self.steps} steps; it needs a whole number of them.")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(
                f"Phase {self.name!r} trains at temperature {self.temperature}; it must be positive, and finite."
            )
        if self.learning_rate is not None:
            check_rate(f"Phase {self.name!r} has learning_rate", self.learning_rate)
        if self.epochs < 1 or self.minibatches < 1:
            raise ValueError(
                f"Phase {self.name!r} has epochs={self.epochs} and minibatches={self.minibatches}; both must be 1 or "
                "more."
            )
        if self.max_resamples < 0:
            raise ValueError(
                f"Phase {self.name!r} has max_resamples={self.max_resamples}; it must be 0 (no further draws) or more."
            )
        if self.terms:
            self._check_own_unset()
        for term in self.parts:
            self._check(term)

    def _check_own_unset(self) -> None:
        """What each term has of its own, the phase beside it would not use."""
        of_terms = [f for f in dataclasses.fields(self) if f.name in ("space", "advantage", "aggregation")]
        unused = {f.name: own for f in of_terms if (own := getattr(self, f.name)) != f.default}
        if unused:
            raise ValueError(
                f"Phase {self.name!r} has terms, and would not use its own "
                f"{', '.join(f'{name}={own}' for name, own in unused.items())}. Set that of a term "
                f"(terms.0.{next(iter(unused))}), or leave the terms out."
            )

    def _check(self, term: Term) -> None:
        if self.max_resamples and not getattr(term.advantage, "compares_groups", False):
            raise ValueError(
                f"Phase {self.name!r} draws again for groups whose rewards are all equal, and {term.advantage} learns "
                "from them, too: it does not compare a response with its group. Set max_resamples=0, or use another credit."
            )
        if getattr(term.advantage, "needs_values", False) and term.advantage != self.valued:
            raise ValueError(
                f"Phase {self.name!r} has two credits that read a critic's values, {self.valued} and {term.advantage}, "
                "and the critic would have two targets. Use the same in both terms, or a credit without a critic."
            )
        if getattr(self.objective, "needs_sampler", False) and not getattr(term.space, "given_prompt", False):
            raise ValueError(
                f"Phase {self.name!r} weighs tokens by the sampler's probability of them, and {term.space} scores "
                "another distribution than was sampled from. Use PostTrainSpace(), or leave TruncatedIS out."
            )
        if self.reward_shaping is not None and getattr(term.advantage, "judges", False):
            raise ValueError(
                f"Phase {self.name!r} shapes rewards by {self.reward_shaping}, and {term.advantage} takes a reward for a verdict: "
                "a right response could pass for a wrong one. Leave the shape out, or use another credit."
            )

    @property
    def parts(self) -> tuple[Term, ...]:
        """The terms, a plain phase being a mixture of one."""
        return self.terms or (Term(self.space, self.advantage, self.aggregation),)

    @property
    def valued(self) -> AdvantageEstimator | None:
        """The credit that reads a critic's values, of which a phase has no two different ones; None without."""
        return next((term.advantage for term in self.parts if getattr(term.advantage, "needs_values", False)), None)

    @property
    def updates(self) -> int:
        """Of the parameters, with every batch of rollouts."""
        return self.epochs * self.minibatches

    @property
    def scored_before(self) -> tuple[str, ...]:
        """Which log-probabilities are needed of every row before credit is given: "old_logprobs", "ref_logprobs".

        Those of the policy for a KL divergence in the reward and for several updates, those of the reference for the
        first of these; or for both, since rows that are scored once need not be scored with every update.
        """
        in_reward = getattr(self.reward_shaping, "needs_reference", False)
        if not in_reward and self.updates == 1:
            return ()
        return ("old_logprobs",) if self.reference is None else ("old_logprobs", "ref_logprobs")


Phases = tuple[Phase, ...]


def locate(phases: Phases, step: int) -> tuple[int, int]:
    """(index of the phase, steps done in it) once `step` rollout batches are done; (len(phases), 0) at the end.

    Of phases that all have had their steps: where a run with guards is, its state says.
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


def following(phases: Phases, index: int, done: int) -> tuple[int, int]:
    """`advance` on the host: (phase, steps done in it) after one more step, if nothing ends it early."""
    return (index, done + 1) if done + 1 < phases[index].steps else (index + 1, 0)


def steps_left(phases: Phases, index: int, done: int) -> int:
    """Steps that are left of a run at this place, if nothing ends a phase early."""
    return sum(phase.steps for phase in phases[index:]) - done


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
