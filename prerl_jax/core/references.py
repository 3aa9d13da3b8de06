"""Which policy a phase is held against: the reference of a KL term, or of a KL penalty in the reward, as data.

Both are named by what a run can always find again, so a resume compares with the very same parameters.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class InitialModel:
    """The model that the run began with: the config's, or that of the checkpoint it was begun from."""


@dataclasses.dataclass(frozen=True)
class PhaseStart:
    """The model as it was when the phase began; in the first phase, the initial model."""


Reference = InitialModel | PhaseStart
