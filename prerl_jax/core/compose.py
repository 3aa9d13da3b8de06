"""Objectives that wrap another objective l: a KL term, an entropy bonus, a correction for the sampler, a floor.

    WithKL        l + beta * D(pi, pi_ref), D one of the estimators of `kl`
    WithEntropy   l - coefficient * H(pi)
    TruncatedIS   l * sg(min(pi_old / pi_sampler, cap))                            TIS, Yao et al. 2025
    LogprobFloor  sg(l) where A < 0 and log pi < floor, l elsewhere

They nest: WithKL(TruncatedIS(ClippedPG()), 0.001) corrects the policy gradient and leaves the KL term as it is. A
wrapper's traits are those of the inner objective plus its own. The weights of the batch multiply the whole loss, so in
pre-train space with TokenMean(scale=0.01), WithKL(..., 0.1) is a KL term of 0.001.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from prerl_jax.core.kl import ESTIMATORS, LOG_RATIO_LIMIT, divergence
from prerl_jax.core.objectives import log_ratio
from prerl_jax.core.traits import ObjectiveTraits, check_traits
from prerl_jax.core.types import Array, Batch, Objective


@dataclasses.dataclass(frozen=True)
class WithKL:
    """Adds a KL divergence from the reference policy, on every selected token, whatever its advantage.

    The source of each estimator is in `kl`. Adds the metric kl_ref, the divergence f32[B, T]. A call raises ValueError
    if `batch.ref_logprobs` is None.

    Attributes:
      objective: the inner objective.
      beta: coefficient of the divergence, 0 or more.
      estimator: "unbiased", "k1", "k2" or "k3", see `kl`. The gradient of "k1" is 0 in expectation.

    Raises:
      ValueError: `beta` is below 0, or the estimator is not one of its choices.
    """

    objective: Objective
    beta: float
    estimator: str = "unbiased"

    def __post_init__(self):
        check_traits(self.objective, ObjectiveTraits)
        if self.estimator not in ESTIMATORS or not self.beta >= 0:
            raise ValueError(
                f"WithKL needs an estimator of {ESTIMATORS} and beta >= 0, got {self.estimator!r} and {self.beta}."
            )

    @property
    def traits(self) -> ObjectiveTraits:
        """What it declares, see ObjectiveTraits."""
        return dataclasses.replace(self.objective.traits, needs_reference=True, skips_zero_advantage=False)

    def __call__(self, logprobs: Array, batch: Batch, entropy: Array) -> tuple[Array, dict[str, Array]]:
        if batch.ref_logprobs is None:
            raise ValueError(
                "WithKL compares with a reference policy, and batch.ref_logprobs is None. Compute them, for instance "
                "with make_score_old_and_reference(model)(batch, reference=params), or leave WithKL out."
            )
        loss, metrics = self.objective(logprobs, batch, entropy)
        penalty = divergence(self.estimator, logprobs, batch.ref_logprobs, log_ratio(logprobs, batch))
        return loss + self.beta * penalty, metrics | {"kl_ref": penalty}


@dataclasses.dataclass(frozen=True)
class WithEntropy:
    """Subtracts `coefficient` times the policy's entropy at every selected token (A3C, arXiv 1602.01783).

    A call takes log-probabilities f32[B, T], a batch and entropies f32[B, T], and returns losses f32[B, T].

    Attributes:
      objective: the inner objective.
      coefficient: of the entropy, any number. A positive one raises the entropy, a negative one lowers it.
    """

    objective: Objective
    coefficient: float

    def __post_init__(self):
        check_traits(self.objective, ObjectiveTraits)

    @property
    def traits(self) -> ObjectiveTraits:
        """What it declares, see ObjectiveTraits."""
        return dataclasses.replace(self.objective.traits, needs_entropy=True, skips_zero_advantage=False)

    def __call__(self, logprobs: Array, batch: Batch, entropy: Array) -> tuple[Array, dict[str, Array]]:
        loss, metrics = self.objective(logprobs, batch, entropy)
        return loss - self.coefficient * entropy, metrics


@dataclasses.dataclass(frozen=True)
class TruncatedIS:
    """Multiplies by the ratio of the trainer's to the sampler's probability of the token, capped (Yao et al. 2025).

    It corrects for a sampler that computes in other arithmetic than the trainer. It is right only in P(y|x), and only
    without top-k and top-p: elsewhere the sampler's log-probabilities are those of another distribution. Adds the
    metrics sampler_weight and sampler_capped, f32[B, T]. A call raises ValueError if `batch.sampler_logprobs` is None.

    Attributes:
      objective: the inner objective.
      cap: the largest ratio, above 0.

    Raises:
      ValueError: the cap is not above 0.
    """

    objective: Objective
    cap: float = 2.0

    def __post_init__(self):
        check_traits(self.objective, ObjectiveTraits)
        if not self.cap > 0:
            raise ValueError(f"TruncatedIS.cap is the largest ratio and must be above 0, got {self.cap}.")

    @property
    def traits(self) -> ObjectiveTraits:
        """What it declares, see ObjectiveTraits."""
        return dataclasses.replace(self.objective.traits, needs_sampler_logprobs=True)

    def __call__(self, logprobs: Array, batch: Batch, entropy: Array) -> tuple[Array, dict[str, Array]]:
        if batch.sampler_logprobs is None:
            raise ValueError(
                "TruncatedIS reads the sampler's log-probabilities, and batch.sampler_logprobs is None: they are known "
                "in P(y|x) alone. Use PostTrainSpace(), or leave TruncatedIS out."
            )
        loss, metrics = self.objective(logprobs, batch, entropy)
        old = logprobs if batch.old_logprobs is None else batch.old_logprobs
        log_weight = jnp.clip(old - batch.sampler_logprobs, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
        ratio = jax.lax.stop_gradient(jnp.exp(log_weight))
        weight = jnp.minimum(ratio, self.cap)
        capped = (ratio > self.cap).astype(jnp.float32)
        return loss * weight, metrics | {"sampler_weight": weight, "sampler_capped": capped}


@dataclasses.dataclass(frozen=True)
class LogprobFloor:
    """Removes the gradient of tokens that have a negative advantage and are already improbable.

    A negative sample lowers the probability of its tokens without end, and the probability that it frees goes to other
    improbable tokens. The value of the loss does not change. For a KL term or an entropy bonus that acts below the
    floor too, wrap the floor: WithKL(LogprobFloor(ClippedPG(), -10.0), 0.001). This wrapper is this library's own.
    Adds the metric floored f32[B, T], 1 where the gradient is removed.

    Attributes:
      objective: the inner objective.
      floor: the gradient is removed where log pi is below this; finite and below 0.

    Raises:
      ValueError: the floor is not finite and below 0.
    """

    objective: Objective
    floor: float

    def __post_init__(self):
        check_traits(self.objective, ObjectiveTraits)
        if not -float("inf") < self.floor < 0:
            raise ValueError(f"LogprobFloor.floor is a log-probability and must be finite and below 0: {self.floor}.")

    @property
    def traits(self) -> ObjectiveTraits:
        """What it declares, see ObjectiveTraits."""
        return self.objective.traits

    def __call__(self, logprobs: Array, batch: Batch, entropy: Array) -> tuple[Array, dict[str, Array]]:
        loss, metrics = self.objective(logprobs, batch, entropy)
        floored = (batch.advantages < 0) & (logprobs < self.floor)
        loss = jnp.where(floored, jax.lax.stop_gradient(loss), loss)
        return loss, metrics | {"floored": floored.astype(jnp.float32)}
