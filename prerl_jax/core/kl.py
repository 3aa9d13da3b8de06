"""Divergence from a reference policy, by token, from the log-probability of the sampled token alone.

With d = log pi - log pi_ref (Schulman, "Approximating KL divergence", 2020), and tokens drawn from pi_old:

    form       value               its gradient, d log pi times        expectation of the gradient, on policy
    k1         d                   1                                   0: as a loss it does nothing
    k2         d^2 / 2             d                                   grad KL(pi || ref)
    k3         exp(-d) - 1 + d     1 - exp(-d)                         grad KL(ref || pi), the other direction
    unbiased   rho k3              rho d                               grad KL(pi || ref), off policy as well

rho = pi / pi_old. k1 and k3 have the expectation KL(pi || ref); the last form's value has it off policy too, and its
gradient is that of rho k3, differentiated through both factors (DeepSeek-V3.2, arXiv 2512.02556). Everything holds per
token in either space: the policies are those of P(y|x) or of P(y), as the log-probabilities are.

In a reward no gradient flows, the score function takes its place, and k1 is the exact one.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from prerl_jax.core.types import Array

FORMS = ("k1", "k2", "k3", "unbiased")
REWARD_FORMS = ("k1", "k2", "k3")
"""Those that need no gradient."""
LOG_RATIO_LIMIT = 20.0
"""Exponents are clamped to this; the d of k1, k2 and of the unbiased gradient is not."""


def divergence(form: str, logprobs: Array, reference: Array, log_rho: Array | float = 0.0) -> Array:
    """The penalty of each token, of the shape of `logprobs`, differentiable by them.

    Args:
      form: one of FORMS, see the module's table.
      logprobs: log pi of the tokens, f32[...].
      reference: log pi_ref of them, f32[...].
      log_rho: log pi - log pi_old, f32[...]; used by the unbiased form, as a constant.

    Raises ValueError for another form.
    """
    difference = logprobs - reference
    if form == "k1":
        return difference
    if form == "k2":
        return difference**2 / 2
    bounded = jnp.clip(difference, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    k3 = jnp.expm1(-bounded) + bounded
    if form == "k3":
        return k3
    if form == "unbiased":
        rho = jnp.exp(jnp.clip(log_rho, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT))
        value, slope = jax.lax.stop_gradient((rho * k3, rho * difference))
        return value + slope * (logprobs - jax.lax.stop_gradient(logprobs))
    raise ValueError(f"A divergence is one of {FORMS}, got {form!r}.")


def reward_with_kl(
    rewards: Array, mask: Array, logprobs: Array, reference: Array, coefficient: float, form: str = "k1"
) -> Array:
    """Token rewards f32[B, R]: the reward on a response's last token, minus coefficient * divergence on every token.

    Args:
      rewards: f32[B].
      mask: bool[B, R], the response's tokens.
      logprobs: f32[B, R] of the policy that sampled.
      reference: f32[B, R] of the reference.
      coefficient: of the divergence.
      form: "k1" (exact in a reward), "k2" or "k3".
    """
    if form not in REWARD_FORMS:
        raise ValueError(
            f"A divergence in the reward is of {REWARD_FORMS}, got {form!r}: no gradient flows through it."
        )
    penalty = coefficient * jax.lax.stop_gradient(divergence(form, logprobs, reference))
    return jnp.where(mask, reward_on_last_token(rewards, mask) - penalty, 0.0)


def reward_on_last_token(rewards: Array, mask: Array) -> Array:
    """f32[B] -> f32[B, R]: each reward on the last token of its response, 0 elsewhere."""
    after = jnp.cumsum(mask[:, ::-1], axis=1)[:, ::-1]
    return jnp.where(mask & (after == 1), jnp.asarray(rewards, jnp.float32)[:, None], 0.0)
