"""The position of a run: the number of steps done, and the position in its phases."""

from __future__ import annotations

import dataclasses

from prerl_jax.core.phases import Phases, following
from prerl_jax.core.types import TrainState


@dataclasses.dataclass(frozen=True)
class Position:
    """The position of a run in its phases, as Python integers.

    Attributes:
      step: steps done.
      phase: the index of the current phase; the number of phases when the run is over.
      phase_step: steps done in this phase.
    """

    step: int
    phase: int
    phase_step: int

    @classmethod
    def of(cls, state: TrainState) -> Position:
        """Reads the position from a state. Waits for the device."""
        return cls(int(state.step), int(state.phase), int(state.phase_step))

    def next(self, phases: Phases) -> Position:
        """The position after one more step, if no guard ends the phase."""
        return Position(self.step + 1, *following(phases, self.phase, self.phase_step))

    @property
    def phase_begins(self) -> bool:
        """Whether the next step is the first one of a phase."""
        return self.phase_step == 0

    def next_phase(self) -> Position:
        """The beginning of the next phase, after the same number of steps."""
        return Position(self.step, self.phase + 1, 0)

    @property
    def phase_start(self) -> int:
        """The number of steps that were done when the current phase began."""
        return self.step - self.phase_step
