"""AdamW with the learning rate of the phase. Its state has the same structure for every rate.

    theta <- theta - eta(phase_step) (m_hat / (sqrt(v_hat) + eps) + lambda theta),   gradients clipped to a global norm

So the moments carry over from one phase to the next. Every parameter is decayed, norms and biases included, as the
published code does.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from prerl_jax.core.types import Array, Schedule


def adamw(
    learning_rate: float | Schedule,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    max_grad_norm: float | None = 1.0,
) -> optax.GradientTransformationExtraArgs:
    """The optimizer of one phase: AdamW (Loshchilov and Hutter, arXiv 1711.05101) after clipping.

    Args:
      learning_rate: a rate, or a Schedule of `phase_step`, the steps done in the phase. The train step passes
        `phase_step` to `update`.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added to the root of the second moment.
      weight_decay: lambda.
      max_grad_norm: global norm that gradients are clipped to; None for no clipping.

    Returns:
      an optax transformation; its state has the same structure for every learning rate.

    Raises ValueError in `update` for a Schedule without `phase_step`.
    """
    return optax.chain(
        optax.identity() if max_grad_norm is None else optax.clip_by_global_norm(max_grad_norm),
        optax.scale_by_adam(b1=b1, b2=b2, eps=eps),
        optax.add_decayed_weights(weight_decay),
        _scale_by_phase_rate(learning_rate),
    )


def rate_at(learning_rate: float | Schedule, phase_step: Array) -> Array:
    """The learning rate f32[] after `phase_step` i32[] steps of the phase."""
    return jnp.asarray(_rate(learning_rate, phase_step), jnp.float32)


def _rate(learning_rate: float | Schedule, phase_step: Any) -> Array | float:
    return learning_rate(phase_step) if callable(learning_rate) else learning_rate


def _scale_by_phase_rate(learning_rate: float | Schedule) -> optax.GradientTransformationExtraArgs:
    def update(updates, state, params=None, *, phase_step=None, **extra):
        del params, extra
        if callable(learning_rate) and phase_step is None:
            raise ValueError("A schedule needs update(..., phase_step=n), the steps done in the phase.")
        rate = _rate(learning_rate, phase_step)
        return jax.tree.map(lambda u: -rate * u, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
