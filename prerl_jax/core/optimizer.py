"""AdamW whose state is the same tree whatever the phase's learning rate, so that its moments carry through a switch.

    theta <- theta - eta(phase_step) (m_hat / (sqrt(v_hat) + eps) + lambda theta),   gradients clipped to a global norm

Every parameter is decayed, norms and biases included, as the published code does.
"""

from __future__ import annotations

import jax
import optax

from prerl_jax.core.types import Schedule


def adamw(
    learning_rate: float | Schedule,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    max_grad_norm: float | None = 1.0,
) -> optax.GradientTransformationExtraArgs:
    """The optimizer of one phase.

    Args:
      learning_rate: a rate, or a schedule over `phase_step`, the steps done in the current phase, which the train step
        passes to `update`.
      max_grad_norm: global norm that gradients are clipped to; None for no clipping.
    """
    return optax.chain(
        optax.identity() if max_grad_norm is None else optax.clip_by_global_norm(max_grad_norm),
        optax.scale_by_adam(b1=b1, b2=b2, eps=eps),
        optax.add_decayed_weights(weight_decay),
        _scale_by_phase_rate(learning_rate),
    )


def _scale_by_phase_rate(learning_rate: float | Schedule) -> optax.GradientTransformationExtraArgs:
    def update(updates, state, params=None, *, phase_step=None, **extra):
        del params, extra
        if callable(learning_rate) and phase_step is None:
            raise ValueError("A schedule needs update(..., phase_step=n), the steps done in the phase.")
        rate = learning_rate(phase_step) if callable(learning_rate) else learning_rate
        return jax.tree.map(lambda u: -rate * u, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
