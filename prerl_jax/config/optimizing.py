"""The specs of what is optimised beside the phases: the optimizers, and the critic."""

from __future__ import annotations

import dataclasses

from prerl_jax.config.fields import require_at_least, require_one_of
from prerl_jax.core.optimizer import MOMENTS
from prerl_jax.core.schedules import check_rate
from prerl_jax.core.types import Schedule
from prerl_jax.runtime.state import PLACEMENTS


@dataclasses.dataclass(frozen=True)
class OptimizerSpec:
    """AdamW (Loshchilov & Hutter 2019) over every parameter, after the gradient's global norm is clipped.

    Attributes:
      learning_rate: a rate, 0 or more, or a Schedule of the steps done in the phase: `Warmup`, `Cosine`, `Linear` or a
        function i32[] -> f32[]. `Phase.learning_rate` replaces it for one phase.
      b1: decay of the first moment per update, in [0, 1).
      b2: decay of the second moment per update, in [0, 1).
      eps: added to the root of the second moment, above 0. Where gradients are tiny it sets the size of a step, so do
        not change it lightly.
      weight_decay: decoupled weight decay, 0 or more. Each update subtracts `learning_rate * weight_decay` times the
        parameter.
      max_grad_norm: the global norm that gradients are clipped to, above 0; None does not clip.
      moments: dtype that both moments are stored in: "float32" or "bfloat16". bfloat16 takes half the memory. Moments
        are rounded at random, so that they are right on average. After 4,000 steps of random gradients with the
        default decays, a second moment is off by 4 percent and an element of an update by 2 percent (root mean square).
      placement: where the moments are between updates: "device" or "host". In the host's memory they take none of the
        device's while it samples, scores and aligns. Every update moves them to the device and back: it needs as much
        of the device's memory as before, and the numbers are the same.

    Raises:
      ValueError: a field is out of its range, or is not one of its choices.
    """

    learning_rate: float | Schedule = 1e-6
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01
    max_grad_norm: float | None = 1.0
    moments: str = "float32"
    placement: str = "device"

    def __post_init__(self) -> None:
        require_one_of("optimizer.moments", self.moments, MOMENTS)
        require_one_of("optimizer.placement", self.placement, PLACEMENTS)
        check_rate("optimizer.learning_rate is", self.learning_rate)
        for field, value in (("b1", self.b1), ("b2", self.b2)):
            if not 0 <= value < 1:
                raise ValueError(f"optimizer.{field} is {value}; it must be at least 0 and below 1.")
        require_at_least(0, "optimizer.", weight_decay=self.weight_decay)
        for field, number in (("eps", self.eps), ("max_grad_norm", self.max_grad_norm)):
            if number is not None and not number > 0:
                raise ValueError(f"optimizer.{field} is {number}; it must be above 0.")


@dataclasses.dataclass(frozen=True)
class CriticSpec:
    """The value model of PPO: a decoder like the policy. It starts as a copy of the policy with a head of zeros.

    Attributes:
      optimizer: the critic's own AdamW. A Schedule is of the steps done in the phase.
      value_clip: how far from its old value a new value still lowers the loss (the clipped value loss of PPO); above 0,
        or None for no clip. It has no effect where every rollout gets one update.

    Raises:
      ValueError: `value_clip` is not above 0.
    """

    optimizer: OptimizerSpec = OptimizerSpec(learning_rate=1e-5)
    value_clip: float | None = 0.5

    def __post_init__(self) -> None:
        if self.value_clip is not None and not self.value_clip > 0:
            raise ValueError(f"critic.value_clip is {self.value_clip}; it must be above 0, or None for no clip.")
