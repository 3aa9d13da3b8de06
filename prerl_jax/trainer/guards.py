"""The guards of a run under way: what they have measured in the current phase, and what they decide.

What they have measured is in the checkpoints, not read again from metrics.jsonl: a checkpoint is what every process of
a resume reads whole, and it has the values that are not finite, which JSON lines do not. The measurements before a
checkpoint are all in it, those after it are made again, so a resumed run decides as if nothing had been.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from prerl_jax.core.guards import EndPhase, Guard, Reaction, RollBack, Warn
from prerl_jax.core.phases import Phase

_NAMES = ("reward", "accuracy", "solved_groups", "unsolved_groups", "length", "truncated", "sampler_logprob")
_NAMES += ("kept_fraction", "trained_fraction", "draws", "mixed_groups", "tokens", "skipped")
OF_ROLLOUTS = frozenset(f"train/{name}" for name in _NAMES)
"""The train/ metrics that there are of a step without a trained token, too: the others are means over those."""


@dataclasses.dataclass(frozen=True)
class Decision:
    """What the guards say of a step."""

    reaction: Reaction | None
    """EndPhase(), RollBack(), or None to go on."""
    ended: tuple[str, ...]
    """The guards that ask for it, and when."""
    warned: tuple[str, ...]
    """Those that warn from this step on, and when."""
    good: int | None
    """The newest step whose parameters the guards have seen to be good; only with RollBack."""
    metrics: dict[str, float]
    """By guard: measurements in a row for which its condition has held."""


@dataclasses.dataclass
class Watch:
    """What becomes of guards over a run; all of it goes into its checkpoints."""

    phase: str = ""
    """The one that `values` are of."""
    values: dict[str, list[tuple[int, float]]] = dataclasses.field(default_factory=dict)
    """By metric: (step, value) of its measurements in the current phase, that at the phase's beginning first."""
    ended: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    """By phase that a guard has ended: its steps, and what was said of it."""
    warned: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    """By phase: what its guards have warned of."""

    @classmethod
    def of(cls, saved: Mapping[str, Any] | None) -> Watch:
        """From what `saved` gave, or from the beginning."""
        saved = saved or {}
        values = {name: [tuple(pair) for pair in pairs] for name, pairs in saved.get("values", {}).items()}
        warned = {name: list(said) for name, said in saved.get("warned", {}).items()}
        return cls(saved.get("phase", ""), values, dict(saved.get("ended", {})), warned)

    def saved(self) -> dict[str, Any]:
        """As JSON."""
        return dataclasses.asdict(self)

    def enter(self, phase: Phase | None, step: int, evaluated: Mapping[str, float]) -> None:
        """A phase begins after this step, with parameters that have been evaluated so."""
        self.phase, self.values = phase.name if phase else "", {}
        for guard in phase.guards if phase else ():
            if guard.metric in evaluated:
                self.values[guard.metric] = [(step, evaluated[guard.metric])]

    def look(self, phase: Phase, number: int, metrics: Mapping[str, float]) -> Decision:
        """Takes in the metrics of a step, and decides.

        Raises ValueError for a guard on a metric that steps of this phase do not have, with those that they have.
        """
        if phase.name != self.phase:  # the config has changed
            self.enter(phase, number - 1, {})
        for guard in phase.guards:
            _require(guard, phase, metrics)
        if not metrics.get("train/tokens", 1.0):
            metrics = {n: v for n, v in metrics.items() if n in OF_ROLLOUTS or not n.startswith("train/")}
        for name in dict.fromkeys(guard.metric for guard in phase.guards if guard.metric in metrics):
            self.values.setdefault(name, []).append((number, metrics[name]))
        held = {guard: self._held(guard) for guard in phase.guards}
        tripped = [g for g in phase.guards if held[g] >= g.patience and g.metric in metrics]
        back = [g for g in tripped if isinstance(g.reaction, RollBack)]
        ends = back or [g for g in tripped if isinstance(g.reaction, EndPhase)]
        warns = [g for g in tripped if isinstance(g.reaction, Warn) and held[g] == g.patience]
        ended, warned = (tuple(f"{g} at step {number}" for g in guards) for guards in (ends, warns))
        if warned:
            self.warned.setdefault(phase.name, []).extend(warned)
        good = min((self._good(g) for g in back), default=None)
        shown: dict[str, float] = {}
        for guard in phase.guards:
            name = f"train/guard/{guard.metric}/{type(guard.condition).__name__.lower()}"
            shown[name] = max(shown.get(name, 0.0), float(held[guard]))
        return Decision(ends[0].reaction if ends else None, ended, warned, good, shown)

    def needed(self, phase: Phase) -> tuple[int, ...]:
        """The newest step that each guard may still go back to, whatever the next one shows."""
        return tuple(self._good(guard) for guard in phase.guards if isinstance(guard.reaction, RollBack))

    def _held(self, guard: Guard) -> int:
        return guard.held([value for _, value in self.values.get(guard.metric, ())])

    def _good(self, guard: Guard) -> int:
        """The newest step after which the parameters were measured, and were not such that the condition held.

        -1, before any step, where all that has been measured in the phase is bad, or nothing has been.
        """
        values = self.values.get(guard.metric, [])
        good = values[: len(values) - self._held(guard)]
        return good[-1][0] - _measured_after(guard) if good else -1


def _measured_after(guard: Guard) -> int:
    """Steps that the metric lags behind: those of training are of the parameters that the step began with."""
    return 0 if guard.metric.startswith("eval/") else 1


def _require(guard: Guard, phase: Phase, metrics: Iterable[str]) -> None:
    kind = guard.metric.partition("/")[0] + "/"
    there = sorted(name for name in metrics if name.startswith(kind))
    if guard.metric not in there and there:  # of evaluation and alignment there may be none in this step
        raise ValueError(
            f"phase {phase.name!r} has a guard on {guard.metric}, which its steps do not measure; they measure "
            f"{', '.join(there)}."
        )
