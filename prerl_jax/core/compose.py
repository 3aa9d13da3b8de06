"""Objectives around objectives: a KL term, an entropy bonus, the sampler's importance weight, a floor.

    WithKL        l + beta * D(pi, pi_ref), D one of the divergences of `kl`
    WithEntropy   l - coefficient * H(pi)
    TruncatedIS   l * sg(min(pi_old / pi_sampler, cap))             (Yao et al. 2025, TIS)
    LogprobFloor  sg(l) where A < 0 and log pi < floor, l elsewhere

They nest: WithKL(TruncatedIS(ClippedPG()), 0.001) corrects the policy gradient and not the KL term. What each needs is
declared by itself or by what it goes around. The weights of the loss multiply all of it, the coefficient included: in
pre-train space with TokenMean(scale=0.01), WithKL(..., 0.1) is a KL term of 0.001.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from prerl_jax.core.kl import ESTIMATORS, LOG_RATIO_LIMIT, divergence
from prerl_jax.core.objectives import log_ratio
from prerl_jax.core.types import Array, Batch, Objective


def _declares(name: str) -> property:
    return property(lambda self: getattr(self.objective, name, False))


class _Around:
    """Declares what the objective inside declares."""

    objective: Objective

    elementwise = _declares("elementwise")
    skips_zero_advantage = _declares("skips_zero_advantage")
    needs_entropy = _declares("needs_entropy")
    needs_reference = _declares("needs_reference")
    needs_sampler = _declares("needs_sampler")
    uses_ratio = _declares("uses_ratio")

    def _inside(self, logprobs: Array, batch: Batch, entropy: Array | None) -> tuple[Array, dict[str, Array]]:
        extra = {"entropy": entropy} if getattr(self.objective, "needs_entropy", False) else {}
        return self.objective(logprobs, batch, **extra)


@dataclasses.dataclass(frozen=True)
class WithKL(_Around):
    """An objective plus a divergence from the reference policy, on every kept token, whatever its advantage.

    Attributes:
      objective: what it is added to.
      beta: coefficient of the divergence.
      estimator: "unbiased", "k1", "k2" or "k3", see `kl`; as a loss, "k1" has no gradient in expectation.
    """

    objective: Objective
    beta: float
    estimator: str = "unbiased"
    skips_zero_advantage: ClassVar[bool] = False
    needs_reference: ClassVar[bool] = True

    def __post_init__(self):
        if self.estimator not in ESTIMATORS or not self.beta >= 0:
            raise ValueError(
                f"WithKL needs an estimator of {ESTIMATORS} and beta >= 0, got {self.estimator!r} and {self.beta}."
            )

    def __call__(self, logprobs: Array, batch: Batch, *, entropy: Array | None = None):
        """Adds the metric kl_ref, the divergence itself. Raises ValueError for a batch without ref_logprobs."""
        if batch.ref_logprobs is None:
            raise ValueError(
                "WithKL compares with a reference policy, and batch.ref_logprobs is None. Fill them in, for instance "
                "by make_score_old_and_reference(model)(batch, reference=params), or leave the KL term out."
            )
        loss, metrics = self._inside(logprobs, batch, entropy)
        penalty = divergence(self.estimator, logprobs, batch.ref_logprobs, log_ratio(logprobs, batch))
        return loss + self.beta * penalty, metrics | {"kl_ref": penalty}


@dataclasses.dataclass(frozen=True)
class WithEntropy(_Around):
    """An objective minus `coefficient` times the entropy of the distribution that each kept token was drawn from.

    Attributes:
      objective: what it is taken from.
      coefficient: of the entropy; a negative one makes the policy surer of itself.
    """

    objective: Objective
    coefficient: float
    skips_zero_advantage: ClassVar[bool] = False
    needs_entropy: ClassVar[bool] = True

    def __call__(self, logprobs: Array, batch: Batch, *, entropy: Array):
        loss, metrics = self._inside(logprobs, batch, entropy)
        return loss - self.coefficient * entropy, metrics


@dataclasses.dataclass(frozen=True)
class TruncatedIS(_Around):
    """An objective times the ratio of the trainer's to the sampler's probability of the token, capped.

    It makes up for a sampler that computes in other arithmetic than the trainer. Only in P(y|x), and only for a sampler
    that cuts nothing off (no top-k, no top-p): elsewhere the sampler's log-probabilities are of another distribution.

    Attributes:
      objective: what is weighed.
      cap: the largest weight.
    """

    objective: Objective
    cap: float = 2.0
    needs_sampler: ClassVar[bool] = True

    def __post_init__(self):
        if not self.cap > 0:
            raise ValueError(f"TruncatedIS.cap bounds a ratio and must be above 0, got {self.cap}.")

    def __call__(self, logprobs: Array, batch: Batch, *, entropy: Array | None = None):
        """Adds the metrics sampler_weight and sampler_capped; ValueError for a batch without sampler_logprobs."""
        if batch.sampler_logprobs is None:
            raise ValueError(
                "TruncatedIS weighs by the sampler's log-probabilities, and batch.sampler_logprobs is None: they are "
                "known in P(y|x) alone. Use PostTrainSpace(), or leave TruncatedIS out."
            )
        loss, metrics = self._inside(logprobs, batch, entropy)
        old = logprobs if batch.old_logprobs is None else batch.old_logprobs
        gap = jnp.clip(old - batch.sampler_logprobs, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
        ratio = jax.lax.stop_gradient(jnp.exp(gap))
        weight = jnp.minimum(ratio, self.cap)
        capped = (ratio > self.cap).astype(jnp.float32)
        return loss * weight, metrics | {"sampler_weight": weight, "sampler_capped": capped}


@dataclasses.dataclass(frozen=True)
class LogprobFloor(_Around):
    """An objective without the gradient of tokens that are pushed down (A < 0) and unlikely enough as they are.

    A negative sample lowers its tokens without end; what is pushed from below goes to whatever else is unlikely. Its
    loss counts as before. A KL term or an entropy bonus that is to hold there, too, goes around the floor:
    WithKL(LogprobFloor(ClippedPG(), -10.0), 0.001).

    Attributes:
      objective: whose gradient is left out.
      floor: the log-probability below which it is, below 0.
    """

    objective: Objective
    floor: float

    def __post_init__(self):
        if not -float("inf") < self.floor < 0:
            raise ValueError(f"LogprobFloor.floor is a log-probability and must be finite and below 0: {self.floor}.")

    def __call__(self, logprobs: Array, batch: Batch, *, entropy: Array | None = None):
        """Adds the metric floored: 1 where a token has no gradient for it."""
        loss, metrics = self._inside(logprobs, batch, entropy)
        floored = (batch.advantages < 0) & (logprobs < self.floor)
        loss = jnp.where(floored, jax.lax.stop_gradient(loss), loss)
        return loss, metrics | {"floored": floored.astype(jnp.float32)}
