"""Means of metrics over the updates of a step, and the conversion of metrics to floats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from prerl_jax.core.train_step import Metrics
from prerl_jax.core.types import Array

COUNTS = frozenset({"train/tokens", "train/skipped", "train/critic_skipped"})
"""Metrics that are added over the updates of a step."""
OF_UPDATES = frozenset(
    {
        "train/grad_norm",
        "train/update_norm",
        "train/critic_grad_norm",
        "train/critic_update_norm",
        "train/loss",
        "train/kept_fraction",
        "train/trained_fraction",
        "train/value_loss",
        "train/value_clip_fraction",
        "train/learning_rate",
    }
)
"""Metrics that describe a whole update; they are averaged over updates. Metrics in neither set: over trained tokens."""


def mean_over_updates(updates: list[Metrics]) -> Metrics:
    """The metrics of a step with several updates. Traceable.

    Counts are added. Losses, norms and fractions are averaged over updates. All others are averaged over the tokens
    that were trained on, so that an update that was skipped does not count.

    Args:
      updates: the metrics f32[] of each update, with the same names.
    """
    stacked = {name: jnp.stack([metrics[name] for metrics in updates]) for name in updates[0]}
    tokens = stacked["train/tokens"]

    def joined(name: str, values: Array) -> Array:
        if name in COUNTS:
            return values.sum()
        even = jnp.full(len(updates), 1 / len(updates))
        share = even if name in OF_UPDATES else tokens / jnp.maximum(tokens.sum(), 1.0)
        return values[0] + jnp.sum(share * (values - values[0]))  # exact if all values are equal

    return {name: joined(name, values) for name, values in stacked.items()}


def as_numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics f32[] or f32[L] as floats; a vector over layers becomes one entry for each layer."""
    numbers: dict[str, float] = {}
    for name, value in metrics.items():
        if np.ndim(value):
            numbers |= {f"{name}/{i}": float(v) for i, v in enumerate(value)}
        else:
            numbers[name] = float(value)
    return numbers
