"""AdamW with the learning rate of the phase. Its state has the same structure for every rate.

    theta <- theta - eta(phase_step) (m_hat / (sqrt(v_hat) + eps) + lambda theta),   gradients clipped to a global norm

So the moments carry over from one phase to the next. Every parameter is decayed, norms and biases included, as the
published code does.

Moments may be stored in bfloat16, half the memory of float32. The update is computed in float32 and its moments are
rounded up or down at random, so that they are right on average. To the nearest would be wrong: with b2 = 0.999 a step
changes the second moment by a thousandth, which is less than half the distance of two bfloat16 numbers, so it would
never fall. The random bits are a hash of the step and of the gradient. So a step is still a function of its inputs.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from prerl_jax.core.types import Array, Schedule

MOMENTS = ("float32", "bfloat16")
"""What the moments can be stored in."""


def adamw(
    learning_rate: float | Schedule,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    max_grad_norm: float | None = 1.0,
    moments: str = "float32",
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
      moments: dtype that both moments are stored in, one of MOMENTS. In bfloat16 each has a relative error of at most
        1/128 at every step, which is 0 on average.

    Returns:
      an optax transformation; its state has the same structure for every learning rate.

    Raises ValueError for other `moments`, and in `update` for a Schedule without `phase_step`.
    """
    if moments not in MOMENTS:
        raise ValueError(f"moments must be one of {MOMENTS}, got {moments!r}.")
    adam = optax.scale_by_adam(b1=b1, b2=b2, eps=eps)
    return optax.chain(
        optax.identity() if max_grad_norm is None else optax.clip_by_global_norm(max_grad_norm),
        adam if moments == "float32" else _in_bfloat16(adam),
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


def _in_bfloat16(adam: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same Adam with a state whose moments are bfloat16."""

    def init(params):
        state = adam.init(params)
        narrow = jax.tree.map(lambda m: m.astype(jnp.bfloat16), (state.mu, state.nu))
        return state._replace(mu=narrow[0], nu=narrow[1])

    def update(gradient, state, params=None):
        mu, nu = jax.tree.map(lambda m: m.astype(jnp.float32), (state.mu, state.nu))
        updates, new = adam.update(gradient, state._replace(mu=mu, nu=nu), params)
        bits = jax.tree.map(lambda g: _random_bits(g, new.count), gradient)
        mu = jax.tree.map(_round_at_random, new.mu, bits)
        nu = jax.tree.map(lambda v, b: _round_at_random(v, b >> 16), new.nu, bits)
        return updates, new._replace(mu=mu, nu=nu)

    return optax.GradientTransformation(init, update)


def _random_bits(values: Array, count: Array) -> Array:
    """u32[...], a hash of the bits of f32[...] and of the number of the step, i32[]: the finaliser of MurmurHash3."""
    bits = jax.lax.bitcast_convert_type(values.astype(jnp.float32), jnp.uint32)
    bits ^= count.astype(jnp.uint32) * jnp.uint32(0x9E3779B9)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = (bits ^ (bits >> shift)) * jnp.uint32(factor)
    return bits ^ (bits >> 16)


def _round_at_random(values: Array, bits: Array) -> Array:
    """f32[...] -> bf16[...]: up with the probability that makes it right on average, by the low 16 of random bits.

    A bfloat16 is the upper half of a float32; what overflows the lower half adds one to it. NaN and infinities stay.
    """
    whole = jax.lax.bitcast_convert_type(values, jnp.uint32)
    upper = (whole + (bits & 0xFFFF)) & jnp.uint32(0xFFFF0000)
    rounded = jax.lax.bitcast_convert_type(upper, jnp.float32)
    return jnp.where(jnp.isfinite(values), rounded, values).astype(jnp.bfloat16)
