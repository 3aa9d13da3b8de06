"""The parameters that a phase is held against, on the mesh for as long as a phase asks for them.

They are sharded as the policy's and kept in the dtype that the model computes in: every parameter is cast to it before
it is used, so that their log-probabilities are those of the float32 parameters, bit for bit.

    InitialModel   the parameters of step 0: the config's model, or the checkpoint that the run was begun from
    PhaseStart     those of the step that the phase began after, in the checkpoint that is written there and always kept

Where the run is at that step its own parameters are copied; so a run and its resume have the same ones.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp

from prerl_jax.core.phases import InitialModel, Phase
from prerl_jax.core.types import Params, TrainState
from prerl_jax.runtime.checkpoints import restore_params
from prerl_jax.runtime.distributed import share_errors
from prerl_jax.trainer.setup import Setup
from prerl_jax.trainer.source import Source


@dataclasses.dataclass
class References:
    """Holds one reference at a time.

    Args:
      setup: of the run.
      checkpoints: its folder of them.
      source: the checkpoint that it was begun from; None for the config's model.
    """

    setup: Setup
    checkpoints: Path = Path("checkpoints")
    source: Source | None = None
    _held: tuple[int, Params] | None = dataclasses.field(default=None, init=False)
    """The step that they are of, and the parameters."""
    _phase: str = dataclasses.field(default="", init=False)

    def of(self, phase: Phase, state: TrainState) -> Params | None:
        """The reference of the phase that the state is in; None where it has none, and what was held is let go.

        Every process must call it. Raises ValueError for a phase whose first step left no checkpoint.
        """
        if phase.reference is None:
            self._held = None
        elif self._held is None or phase.name != self._phase:
            step = int(state.step)
            wanted = 0 if isinstance(phase.reference, InitialModel) else step - int(state.phase_step)
            if self._held is None or self._held[0] != wanted:
                self._held = None
                self._held = (wanted, self._cast(state.params if wanted == step else self._read(wanted, phase)))
        self._phase = phase.name
        return None if self._held is None else self._held[1]

    def _read(self, step: int, phase: Phase) -> Params:
        if step == 0 and self.source is None:
            with share_errors("loading the reference model"):
                return self.setup.load_params()
        folder, saved = self.checkpoints, step
        if step == 0:
            folder, saved = self.source.workdir / "checkpoints", self.source.step
        try:
            return restore_params(folder, self.setup.model.abstract_params(), saved).state
        except ValueError as error:
            raise ValueError(f"phase {phase.name!r} is held against {phase.reference}: {error}") from error

    def _cast(self, params: Params) -> Params:
        """A copy: the state's own parameters are donated to the train step."""
        dtype = self.setup.model.compute_dtype
        cast = jax.jit(
            lambda tree: jax.tree.map(lambda x: jnp.array(x, dtype, copy=True), tree),
            out_shardings=self.setup.model.shardings(),
        )
        return cast(params)
