"""The guards of a run: their measurements in the current phase, their decisions, and roll-back.

Checkpoints save the measurements. Guards do not read them from metrics.jsonl: a resume reads the checkpoint on every
process, and JSON has no NaN and no infinity. A resumed run repeats the steps after its checkpoint and measures them
again, so it decides as an uninterrupted run does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from prerl_jax.core.guards import EndPhase, Guard, RollBack, Warn
from prerl_jax.core.phases import Phase
from prerl_jax.core.types import TrainState
from prerl_jax.runtime.checkpoints import Checkpoints
from prerl_jax.runtime.distributed import require_same
from prerl_jax.runtime.state import at_phase
from prerl_jax.trainer.critic import with_critic
from prerl_jax.trainer.position import Position
from prerl_jax.trainer.setup import Setup

OF_ROLLOUTS = frozenset(
    {
        "train/reward",
        "train/accuracy",
        "train/unknown",
        "train/solved_groups",
        "train/unsolved_groups",
        "train/zero_advantage_groups",
        "train/length",
        "train/truncated",
        "train/sampler_logprob",
        "train/kept_fraction",
        "train/trained_fraction",
        "train/sampled_batches",
        "train/mixed_groups",
        "train/tokens",
        "train/skipped",
        "train/learning_rate",
    }
)
"""The train/ metrics that are defined in a step without trained tokens. All others are means over trained tokens."""


@dataclasses.dataclass(frozen=True)
class Decision:
    """What the guards decide after a step.

    Attributes:
      reaction: EndPhase() or RollBack(); None to continue.
      ended: descriptions of the guards that end the phase.
      warned: descriptions of the guards that begin to warn at this step.
      good: the newest step that is good for every tripped RollBack guard; None if none tripped.
      metrics: for each guard, the number of measurements in a row for which its condition has held.
    """

    reaction: EndPhase | RollBack | None
    ended: tuple[str, ...]
    warned: tuple[str, ...]
    good: int | None
    metrics: dict[str, float]


@dataclasses.dataclass
class GuardState:
    """The state of a run's guards. Checkpoints save all of it.

    Attributes:
      phase: the phase that `values` belong to.
      values: by metric, (step, value) of each measurement in the current phase. The first one may be the evaluation at
        the phase's beginning.
      ended: phase name -> {"steps": its number of steps, "reason": text}, for phases that a guard ended.
      warned: phase name -> the warnings of its guards.
    """

    phase: str = ""
    values: dict[str, list[tuple[int, float]]] = dataclasses.field(default_factory=dict)
    ended: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    warned: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, saved: Mapping[str, Any] | None) -> GuardState:
        """The state that `saved` has returned; None for a run that begins."""
        saved = saved or {}
        values = {
            name: [(int(step), value) for step, value in pairs] for name, pairs in saved.get("values", {}).items()
        }
        warned = {name: list(texts) for name, texts in saved.get("warned", {}).items()}
        return cls(saved.get("phase", ""), values, dict(saved.get("ended", {})), warned)

    def saved(self) -> dict[str, Any]:
        """The state as JSON values."""
        return dataclasses.asdict(self)

    def enter(self, phase: Phase | None, step: int, evaluated: Mapping[str, float]) -> None:
        """Starts the measurements of a new phase; None at the end of the run.

        Args:
          phase: the phase that begins.
          step: steps done.
          evaluated: the evaluation of the parameters that the phase begins with.
        """
        self.phase, self.values = phase.name if phase else "", {}
        for guard in phase.guards if phase else ():
            if guard.metric in evaluated:
                self.values[guard.metric] = [(step, evaluated[guard.metric])]

    def decide(self, phase: Phase, step: int, metrics: Mapping[str, float]) -> Decision:
        """Adds the metrics of a step, and decides.

        Raises ValueError if a guard watches a metric that this phase does not measure; the message lists the metrics.
        """
        if phase.name != self.phase:  # the config has changed
            self.enter(phase, step - 1, {})
        for guard in phase.guards:
            _require_metric(guard, phase, metrics)
        if not metrics.get("train/tokens", 1.0):  # means over trained tokens do not exist in this step
            metrics = {n: v for n, v in metrics.items() if n in OF_ROLLOUTS or not n.startswith("train/")}
        for name in dict.fromkeys(guard.metric for guard in phase.guards if guard.metric in metrics):
            self.values.setdefault(name, []).append((step, metrics[name]))
        held = {guard: self._held(guard) for guard in phase.guards}
        tripped = [guard for guard in phase.guards if held[guard] >= guard.patience and guard.metric in metrics]
        back = [guard for guard in tripped if isinstance(guard.reaction, RollBack)]
        ends = back or [guard for guard in tripped if isinstance(guard.reaction, EndPhase)]
        warns = [guard for guard in tripped if isinstance(guard.reaction, Warn) and held[guard] == guard.patience]
        ended, warned = (tuple(f"{guard} at step {step}" for guard in guards) for guards in (ends, warns))
        if warned:
            self.warned.setdefault(phase.name, []).extend(warned)
        shown: dict[str, float] = {}
        for guard in phase.guards:
            name = f"train/guard/{guard.metric}/{type(guard.condition).__name__.lower()}"
            shown[name] = max(shown.get(name, 0.0), float(held[guard]))
        reaction = next((g.reaction for g in ends if isinstance(g.reaction, EndPhase | RollBack)), None)
        return Decision(reaction, ended, warned, min((self._good(guard) for guard in back), default=None), shown)

    def needed(self, phase: Phase) -> tuple[int, ...]:
        """The steps of the checkpoints that a guard may still roll back to, one for each RollBack guard."""
        return tuple(self._good(guard) for guard in phase.guards if isinstance(guard.reaction, RollBack))

    def _held(self, guard: Guard) -> int:
        return guard.held([value for _, value in self.values.get(guard.metric, ())])

    def _good(self, guard: Guard) -> int:
        """The newest step whose parameters were measured without the condition holding; -1 if the phase has none."""
        values = self.values.get(guard.metric, [])
        good = values[: len(values) - self._held(guard)]
        return good[-1][0] - _lag(guard) if good else -1


def _lag(guard: Guard) -> int:
    """How many steps older than the metric the measured parameters are.

    It is 1 for `train/` and `alignment/`, whose metrics of step n are measured on the parameters before step n.
    """
    return 0 if guard.metric.startswith("eval/") else 1


def _require_metric(guard: Guard, phase: Phase, metrics: Iterable[str]) -> None:
    kind = guard.metric.partition("/")[0] + "/"
    present = sorted(name for name in metrics if name.startswith(kind))
    if guard.metric not in present and present:  # evaluation and alignment are not measured at every step
        raise ValueError(
            f"phase {phase.name!r} has a guard on {guard.metric}, which its steps do not measure; they measure "
            f"{', '.join(present)}."
        )


def rollback_interval(phase: Phase) -> int:
    """Steps between the checkpoints that the phase's RollBack guards ask for; 0 for none."""
    every = [guard.reaction.every for guard in phase.guards if isinstance(guard.reaction, RollBack)]
    return min((n for n in every if n), default=0)


def roll_back(
    setup: Setup, checkpoints: Checkpoints, begin: Callable[[], TrainState], state: TrainState, good: int
) -> tuple[TrainState, int]:
    """Restores the newest checkpoint up to step `good`, but keeps the counters of `state`.

    The data and the step number continue. Without such a checkpoint, the state of step 0 is loaded again. The arrays of
    `state` are deleted first, because the memory may not have room for both.

    Args:
      setup: the run's model and mesh.
      checkpoints: the run's checkpoints.
      begin: makes the state that the run began with.
      state: the current state.
      good: the newest step that is known to be good.

    Returns: (the state, the checkpoint's step).

    Raises CheckpointError where all these checkpoints are damaged, ValueError where the processes find different ones.
    """
    steps = [step for step in checkpoints.steps() if step <= good]
    require_same("what they find", f"the checkpoints up to step {good} are {steps}", "The workdir must be shared.")
    for leaf in jax.tree.leaves((state.params, state.frozen, state.opt_state, state.critic)):
        leaf.delete()
    found = checkpoints.read(setup.abstract_state(), good)
    restored, _ = with_critic(setup, begin() if found is None else found.state)
    counters: dict[str, Any] = {
        "step": state.step,
        "rng": state.rng,
        "phase": state.phase,
        "phase_step": state.phase_step,
    }
    return dataclasses.replace(restored, **counters), 0 if found is None else found.step


@dataclasses.dataclass(frozen=True)
class Reacted:
    """The result of the reaction of the guards.

    Attributes:
      state: the state to continue with.
      position: the position to continue at.
      reason: why the phase ended, as text; None if it continues.
      rolled_back: whether the state has the parameters of an earlier checkpoint.
    """

    state: TrainState
    position: Position
    reason: str | None = None
    rolled_back: bool = False


def react(
    setup: Setup,
    checkpoints: Checkpoints,
    begin: Callable[[], TrainState],
    guards: GuardState,
    decision: Decision,
    phase: Phase,
    before: Position,
    after: Position,
    state: TrainState,
) -> Reacted:
    """Carries out a decision: ends the phase, rolls back if it says so, and records why in the guards' state.

    Args:
      setup: the run's model and mesh.
      checkpoints: the run's checkpoints.
      begin: makes the state that the run began with.
      guards: the state of the guards.
      decision: what they have decided.
      phase: the phase of the step.
      before: the position before the step.
      after: the position after the step.
      state: the state after the step.
    """
    if decision.reaction is None:
        return Reacted(state, after)
    if not after.phase_begins:
        after = after.next_phase()
        state = at_phase(state, setup.mesh, after.phase)
    reason, rolled_back = f"guard {' and '.join(decision.ended)}", isinstance(decision.reaction, RollBack)
    if rolled_back:
        good = max(decision.good or 0, before.phase_start)  # not before the phase's first step
        state, restored = roll_back(setup, checkpoints, begin, state, good)
        reason += f" -> rolled back to step {restored}"
    guards.ended[phase.name] = {"steps": before.phase_step + 1, "reason": reason}
    return Reacted(state, after, reason, rolled_back)
