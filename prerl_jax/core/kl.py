"""Estimators of the KL divergence from a reference policy, by token, from the log-probability of the sampled token.

With d = log pi - log pi_ref (Schulman, "Approximating KL divergence", 2020), and tokens drawn from pi_old:

    estimator  value               its gradient, d log pi times        expected gradient
    k1         d                   1                                   0 on policy: as a loss it does nothing
    k2         d^2 / 2             d                                   grad KL(pi || ref), on policy
    k3         exp(-d) - 1 + d     1 - exp(-d)                         grad KL(ref || pi), on policy
    unbiased   rho k3              rho d                               grad KL(pi || ref), off policy as well

rho = pi / pi_old. On policy, the expected value of k1 and k3 is KL(pi || ref). That of `unbiased` is KL(pi || ref) off
policy as well; its gradient is that of rho k3, differentiated through both factors (DeepSeek-V3.2, arXiv 2512.02556).
All of this holds per token in either space: the policies are those of P(y|x) or of P(y), as the log-probabilities are.

In a reward no gradient flows through the estimator: the score function takes its place, and k1 is exact.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from prerl_jax.core.types import Array

ESTIMATORS = ("k1", "k2", "k3", "unbiased")
REWARD_ESTIMATORS = ("k1", "k2", "k3")
"""The estimators that can stand in a reward: those that need no gradient."""
LOG_RATIO_LIMIT = 20.0
"""Exponents are clamped to +- this limit. The d in k1, in k2 and in the gradient of `unbiased` is not clamped."""


def divergence(estimator: str, logprobs: Array, reference: Array, log_rho: Array | float = 0.0) -> Array:
    """The estimate for each token, of the shape of `logprobs`, differentiable with respect to `logprobs`.

    Args:
      estimator: one of ESTIMATORS, see the table of the module.
      logprobs: log pi of the tokens, f32[...].
      reference: log pi_ref of the tokens, f32[...].
      log_rho: log pi - log pi_old, f32[...]; "unbiased" alone reads it, as a constant.

    Raises ValueError for an unknown estimator.
    """
    difference = logprobs - reference
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return difference**2 / 2
    bounded = jnp.clip(difference, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    k3 = jnp.expm1(-bounded) + bounded
    if estimator == "k3":
        return k3
    if estimator == "unbiased":
        rho = jnp.exp(jnp.clip(log_rho, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT))
        value, slope = jax.lax.stop_gradient((rho * k3, rho * difference))
        return value + slope * (logprobs - jax.lax.stop_gradient(logprobs))
    raise ValueError(f"The estimator of a divergence is one of {ESTIMATORS}, got {estimator!r}.")
