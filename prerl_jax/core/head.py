"""The last layer of a language model, as the losses and the sampler use it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from prerl_jax.core.pytree import pytree

Array = jax.Array


def _static() -> Any:
    return dataclasses.field(default=None, metadata={"static": True})


@pytree
class Head:
    """The last layer of a language model: it turns hidden states into logits.

    The logits of hidden states h are computed in this order, each step only where its field is set:

        z = h W,    z <- scale z,    z <- soft_cap tanh(z / soft_cap),    z_v <- -inf for v >= valid_ids

    All logits are float32. The temperature is not part of the head: whoever scores or samples divides by it last.

    Attributes:
      weights: [D, V], the unembedding matrix W, in the dtype that the model computes in.
      scale: factor of the logits (Granite, Cohere); None for 1.
      soft_cap: bound of the logits' absolute value (Gemma 2), above 0; None for no bound.
      valid_ids: the number of real token ids. Ids from `valid_ids` to V - 1 are padding of the matrix: their
        probability is 0 in scoring and in sampling. None where all V ids are real.

    A head with no optional field set computes exactly `h W`. The optional fields are static: they are part of the
    compiled program.

    Raises ValueError for a soft cap that is not above 0 and for fewer than one valid id.
    """

    weights: Array
    scale: float | None = _static()
    soft_cap: float | None = _static()
    valid_ids: int | None = _static()

    def __post_init__(self):
        if self.soft_cap is not None and not self.soft_cap > 0:
            raise ValueError(f"Head.soft_cap bounds the logits and must be above 0, got {self.soft_cap}. Or use None.")
        if self.valid_ids is not None and self.valid_ids < 1:
            raise ValueError(
                f"Head.valid_ids counts token ids and must be 1 or more, got {self.valid_ids}. Or use None."
            )

    @property
    def vocab_size(self) -> int:
        """V, the padding ids included."""
        return self.weights.shape[1]

    def logits(self, hidden: Array) -> Array:
        """Hidden states [..., D] -> logits f32[..., V]."""
        z = jnp.einsum("...d,dv->...v", hidden, self.weights, preferred_element_type=jnp.float32)
        z = z if self.scale is None else self.scale * z
        z = z if self.soft_cap is None else self.soft_cap * jnp.tanh(z / self.soft_cap)
        return self.fill_invalid(z, -jnp.inf)

    def pull_back(self, d_logits: Array, logits: Array, temperature: float = 1.0) -> Array:
        """Cotangents of logits f32[..., V] -> those of `hidden @ weights`, times the temperature.

        Args:
          d_logits: f32[..., V], cotangents of `logits`.
          logits: f32[..., V], what `self.logits` gave, divided by the temperature.
          temperature: what the logits were divided by.
        """
        if self.soft_cap is not None:
            d_logits = d_logits * (1 - (self.fill_invalid(logits, 0.0) * temperature / self.soft_cap) ** 2)
        d_logits = self.fill_invalid(d_logits, 0.0)
        return d_logits if self.scale is None else self.scale * d_logits

    def fill_invalid(self, values: Array, fill: float) -> Array:
        """Values [..., V] with `fill` at the padding ids; the values themselves where there are none."""
        if self.valid_ids is None:
            return values
        return jnp.where(jnp.arange(values.shape[-1]) < self.valid_ids, values, fill)
