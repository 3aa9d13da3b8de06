"""The reference policy of the current phase. It is on the mesh only while a phase needs it.

Its parameters are sharded as the policy's, in the dtype that the model computes in. The model casts every parameter to
this dtype before it is used, so the log-probabilities are those of the float32 parameters, bit for bit.

    InitialModel   the parameters of step 0: the config's model, or the checkpoint that the run was started from
    PhaseStart     the parameters at the phase's first step, from the checkpoint of that step, which is never deleted

At that step itself, the run copies its own parameters. A resumed run therefore has the same reference.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp

from prerl_jax.core.params import merge_params
from prerl_jax.core.phases import InitialModel, Phase
from prerl_jax.core.types import Params, TrainState
from prerl_jax.runtime.checkpoint_address import CheckpointAddress
from prerl_jax.runtime.checkpoints import restore_params
from prerl_jax.runtime.distributed import share_errors
from prerl_jax.trainer.position import Position
from prerl_jax.trainer.setup import Setup


@dataclasses.dataclass
class References:
    """Loads and keeps one reference at a time.

    Attributes:
      setup: the run's model and mesh.
      checkpoints: the folder of the run's checkpoints.
      source: the checkpoint that the run was started from; None for the config's model.
    """

    setup: Setup
    checkpoints: Path = Path("checkpoints")
    source: CheckpointAddress | None = None
    _kept: tuple[int, Params] | None = dataclasses.field(default=None, init=False)
    _phase: str = dataclasses.field(default="", init=False)

    def of(self, phase: Phase, state: TrainState) -> Params | None:
        """Returns the reference of the state's phase, and loads it if necessary.

        If the phase has none, it frees the memory of the last one and returns None.

        Every process must call it. Raises ValueError where the checkpoint of the phase's first step is missing.
        """
        if phase.reference is None:
            self._kept = None
        elif self._kept is None or phase.name != self._phase:
            position = Position.of(state)
            wanted = 0 if isinstance(phase.reference, InitialModel) else position.phase_start
            if self._kept is None or self._kept[0] != wanted:
                self._kept = None  # the memory may not have room for two
                policy = merge_params(state.params, state.frozen)
                self._kept = (wanted, self._cast(policy if wanted == position.step else self._read(wanted, phase)))
        self._phase = phase.name
        return None if self._kept is None else self._kept[1]

    def _read(self, step: int, phase: Phase) -> Params:
        folder: Path = self.checkpoints
        saved: int | None = step
        if step == 0:
            if self.source is None:
                with share_errors("loading the reference model"):
                    return self.setup.load_params()
            folder, saved = self.source.checkpoints, self.source.step
        try:
            return restore_params(folder, self.setup.model.abstract_params(), saved).state
        except ValueError as error:
            raise ValueError(f"phase {phase.name!r} compares with {phase.reference}: {error}") from error

    def _cast(self, params: Params) -> Params:
        """A copy in the compute dtype: the state's own parameters are donated to the train step."""
        dtype = self.setup.model.compute_dtype
        cast = jax.jit(
            lambda tree: jax.tree.map(lambda x: jnp.array(x, dtype, copy=True), tree),
            out_shardings=self.setup.model.shardings(),
        )
        return cast(params)
