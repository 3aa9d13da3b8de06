"""Phases: a run is a tuple of phases, and a phase is data.

PreRL, NSR, PSR, DSRL and plain RL differ only in the space, the advantage estimator and the aggregation (arXiv
2604.14142, sections 4 and 5). Most other algorithms differ in the objective as well. `recipes` and `baselines` have
them all. A new idea is a frozen dataclass with `__call__` and `traits`, used in a Phase.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from prerl_jax.core.advantages import GroupRelative, check_advantage, reads_values
from prerl_jax.core.aggregation import TokenMean
from prerl_jax.core.guards import Guard
from prerl_jax.core.objectives import ClippedPG
from prerl_jax.core.schedules import check_rate
from prerl_jax.core.spaces import PostTrainSpace
from prerl_jax.core.traits import ObjectiveTraits, RewardShapingTraits, SpaceTraits, check_traits
from prerl_jax.core.types import (
    AdvantageEstimator,
    Array,
    LossAggregation,
    Objective,
    RewardShaping,
    Schedule,
    Space,
    TrainState,
    ValueAdvantageEstimator,
)


@dataclasses.dataclass(frozen=True)
class InitialModel:
    """The reference is the model that the run began with: the config's, or that of the checkpoint it began from."""


@dataclasses.dataclass(frozen=True)
class PhaseStart:
    """The reference is the model at the beginning of the phase; in the first phase, the initial model."""


Reference = InitialModel | PhaseStart


@dataclasses.dataclass(frozen=True)
class Term:
    """One term of a mixed phase. The rows of all terms share a batch, so their losses and gradients add.

    Raises ValueError for a part without its traits, and for a coefficient out of range.

    Attributes:
      space: makes the rows of tokens.
      advantage: computes the advantages and selects the responses.
      aggregation: takes the mean over tokens.
      coefficient: of this term's loss: a number above 0, or a Schedule over the steps of the phase.
    """

    space: Space
    advantage: AdvantageEstimator = GroupRelative()
    aggregation: LossAggregation = TokenMean()
    coefficient: float | Schedule = 1.0

    def __post_init__(self):
        check_traits(self.space, SpaceTraits)
        check_advantage(self.advantage)
        if not callable(self.coefficient) and not 0 < self.coefficient < float("inf"):
            raise ValueError(f"Term.coefficient is {self.coefficient}; it must be above 0 and finite, or a Schedule.")


@dataclasses.dataclass(frozen=True)
class Phase:
    """A number of steps with one objective.

    Raises ValueError for a setting out of range, for a part without its traits, and for parts that exclude each other.

    Attributes:
      name: is written into every line of metrics.jsonl; unique in a run.
      steps: the number of rollout batches, skipped ones included, at least 1. A guard may end the phase earlier.
      space, advantage, aggregation: as in Term. With `terms`, each term has its own and these keep their defaults.
      objective: the loss of each token.
      reset_optimizer: start with fresh optimizer moments; by default they are carried over from the phase before.
      learning_rate: a rate, or a Schedule over the steps of this phase. None: the run's.
      temperature: of sampling, and of the log-probabilities that are trained; above 0.
      terms: the terms of a mixed objective; empty for one objective in one space.
      reward_shaping: changes the rewards that advantages are computed from. None: they stay as they are.
      reference: the policy that a KL divergence compares with. None: there is no such divergence.
      epochs: the number of times that each rollout is trained on, at least 1.
      minibatches: the number of minibatches of an epoch, with one update each, at least 1. Whole groups are assigned to
        minibatches at random, anew in every epoch. With several updates a step, the old log-probabilities are computed
        before the first update, and an objective that is right on policy alone, such as Reinforce(), is refused.
      max_resamples: the most further batches of prompts that a step samples to replace groups whose rewards are all
        equal (dynamic sampling, DAPO, arXiv 2503.14476). Groups that find no replacement stay, with advantages of 0,
        whatever an OverlongPenalty takes away; a KLPenalty still counts there. 0: none is sampled.
      guards: conditions on metrics that are checked after every step, and may end the phase.
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
        self._check_numbers()
        check_traits(self.objective, ObjectiveTraits)
        self._check_on_policy()
        if self.reward_shaping is not None:
            check_traits(self.reward_shaping, RewardShapingTraits)
        if self.terms:
            self._check_own_parts_unset()
        for term in self.all_terms:
            self._check_term(term)

    def _check_numbers(self) -> None:
        if self.steps < 1:
            raise ValueError(f"Phase {self.name!r} has {self.steps} steps; it needs at least 1. Or leave it out.")
        if self.steps % 1:
            raise ValueError(f"Phase {self.name!r} has {self.steps} steps; it needs a whole number of steps.")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"Phase {self.name!r} has temperature {self.temperature}; it must be above 0, and finite.")
        if self.learning_rate is not None:
            check_rate(f"Phase {self.name!r} has learning_rate", self.learning_rate)
        if self.epochs < 1 or self.minibatches < 1:
            raise ValueError(
                f"Phase {self.name!r} has epochs={self.epochs} and minibatches={self.minibatches}; both must be 1 or "
                "more."
            )
        if self.max_resamples < 0:
            raise ValueError(f"Phase {self.name!r} has max_resamples={self.max_resamples}; it must be 0 or more.")

    def _check_on_policy(self) -> None:
        if self.updates > 1 and self.objective.traits.on_policy:
            raise ValueError(
                f"Phase {self.name!r} has epochs={self.epochs} and minibatches={self.minibatches}, so {self.updates} "
                f"updates a step, and its objective {self.objective} has no ratio pi / pi_old: after the first update "
                "the responses are no longer those of the current policy, and the gradient would be wrong. Set "
                "epochs=1 and minibatches=1, or use an objective with a ratio, such as ClippedPG() or CISPO()."
            )

    def _check_own_parts_unset(self) -> None:
        """With terms, the phase's own space, advantage and aggregation would not be used."""
        of_terms = [f for f in dataclasses.fields(self) if f.name in ("space", "advantage", "aggregation")]
        unused = {f.name: own for f in of_terms if (own := getattr(self, f.name)) != f.default}
        if unused:
            raise ValueError(
                f"Phase {self.name!r} has terms, and would not use its own "
                f"{', '.join(f'{name}={own}' for name, own in unused.items())}. Set it in a term "
                f"(terms.0.{next(iter(unused))}), or leave the terms out."
            )

    def _check_term(self, term: Term) -> None:
        if self.max_resamples and not term.advantage.traits.compares_group:
            raise ValueError(
                f"Phase {self.name!r} has max_resamples={self.max_resamples}, to replace groups whose rewards are all "
                f"equal, and {term.advantage} learns from such groups too: it does not compare the responses of a "
                "group. Set max_resamples=0, or use another advantage estimator."
            )
        if reads_values(term.advantage) and term.advantage != self.value_advantage:
            raise ValueError(
                f"Phase {self.name!r} has two advantage estimators that read a critic's values, {self.value_advantage} "
                f"and {term.advantage}, so the critic would have two targets. Use the same estimator in both terms, or "
                "one without a critic."
            )
        if self.objective.traits.needs_sampler_logprobs and not term.space.traits.given_prompt:
            raise ValueError(
                f"Phase {self.name!r} weights tokens by the sampler's probabilities, and {term.space} scores another "
                "distribution than the sampler's. Use PostTrainSpace(), or leave TruncatedIS out."
            )
        if self.reward_shaping is not None and term.advantage.traits.needs_verdict:
            raise ValueError(
                f"Phase {self.name!r} shapes rewards by {self.reward_shaping}, and {term.advantage} reads whether a "
                "response is right or wrong, and not its reward: the shaping would have no effect, or make a right "
                "response wrong. Leave the reward shaping out, or use another advantage estimator."
            )

    @property
    def all_terms(self) -> tuple[Term, ...]:
        """The terms; a phase without `terms` has one, made of its own space, advantage and aggregation."""
        return self.terms or (Term(self.space, self.advantage, self.aggregation),)

    @property
    def value_advantage(self) -> ValueAdvantageEstimator | None:
        """The advantage estimator that reads a critic's values, of which a phase has at most one; None without."""
        return next((term.advantage for term in self.all_terms if reads_values(term.advantage)), None)

    @property
    def updates(self) -> int:
        """The number of updates of the parameters with each batch of rollouts."""
        return self.epochs * self.minibatches

    @property
    def logprobs_needed_before_update(self) -> tuple[str, ...]:
        """The log-probabilities of all rows that preparing a batch needs: some of "old_logprobs" and "ref_logprobs".

        A KL divergence in the reward and several updates a step both need those of the policy. With a reference, its
        log-probabilities are computed at the same time, so that they are not computed again in every update.
        """
        in_reward = self.reward_shaping is not None and self.reward_shaping.traits.needs_reference
        if not in_reward and self.updates == 1:
            return ()
        return ("old_logprobs",) if self.reference is None else ("old_logprobs", "ref_logprobs")


Phases = tuple[Phase, ...]


def locate(phases: Phases, step: int) -> tuple[int, int]:
    """(index of the phase, steps done in it) once `step` rollout batches are done; (len(phases), 0) at the end.

    This holds if no guard ends a phase early; a run with guards reads its position from its state. Raises ValueError
    outside the run's steps.
    """
    if not 0 <= step <= sum(phase.steps for phase in phases):
        raise _outside(phases, step)
    for index, phase in enumerate(phases):
        if step < phase.steps:
            return index, step
        step -= phase.steps
    return len(phases), 0


def phase_at(phases: Phases, step: int) -> Phase:
    """The phase of a rollout batch.

    Args:
      phases: the phases of the run.
      step: the number of the rollout batch, counted from 0.

    Returns:
      The phase.

    Raises:
      ValueError: the run has no such step.
    """
    index, _ = locate(phases, step)
    if index == len(phases):
        raise _outside(phases, step)
    return phases[index]


def _outside(phases: Phases, step: int) -> ValueError:
    total = sum(phase.steps for phase in phases)
    return ValueError(f"Step {step} is outside the {total} steps of the phases {[p.name for p in phases]}.")


def following(phases: Phases, index: int, done: int) -> tuple[int, int]:
    """`advance` on the host: (phase index, steps done in it) after one more step, if no guard ends the phase early."""
    return (index, done + 1) if done + 1 < phases[index].steps else (index + 1, 0)


def steps_left(phases: Phases, index: int, done: int) -> int:
    """The number of steps left in the run after `done` steps of phase `index`, if no guard ends a phase early."""
    return sum(phase.steps for phase in phases[index:]) - done


def advance(phases: Phases, state: TrainState, end_early: Array | bool = False) -> TrainState:
    """Moves to the next phase if the current one has had all its steps, or if `end_early` (bool[]); traceable.

    Call it after every train step. After the last phase, `state.phase` is `len(phases)`.

    Args:
      phases: the phases of the run.
      state: its `phase` i32[] and `phase_step` i32[] say where the run is.
      end_early: bool[], whether the current phase ends now, for instance because of a guard.

    Returns:
      The state with the new `phase` and `phase_step`.
    """
    steps = jnp.asarray([phase.steps for phase in phases], jnp.int32)
    done = (state.phase_step >= steps[jnp.minimum(state.phase, len(phases) - 1)]) | end_early
    return dataclasses.replace(
        state,
        phase=jnp.where(done, jnp.minimum(state.phase + 1, len(phases)), state.phase),
        phase_step=jnp.where(done, 0, state.phase_step),
    )
