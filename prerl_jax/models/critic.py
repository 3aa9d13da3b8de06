"""A value model: a decoder of its own that starts from the policy's parameters, with a scalar head that starts at zero.

    V_t = w . h_{t-1},    h the final normalised hidden states, w = 0 at first

It has no unembedding, unless that is the embedding. Otherwise it has the policy's architecture, sharding rules,
rematerialisation, attention and compute dtype. The head, its product and the values are float32.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from prerl_jax.core.types import Params, Sequences
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.partitioning import named_sharding

HEAD, UNEMBEDDING = "value_head", "unembed"


class ValueDecoder:
    """The value model of a policy: pure functions of a plain parameter dict. Implements `core.types.Critic`.

    Args:
      decoder: the policy's decoder.
    """

    def __init__(self, decoder: Decoder):
        self.decoder = decoder

    def abstract_params(self, dtype: Any = jnp.float32) -> dict:
        """The parameter tree of ShapeDtypeStruct, with shardings where there is a mesh; the head is [D]."""
        decoder = self.decoder
        params, shape = decoder.abstract_params(dtype), (decoder.config.hidden_size,)
        params.pop(UNEMBEDDING, None)
        where = None
        if decoder.mesh is not None:
            where = named_sharding(decoder.mesh, decoder.rules, ("embed",), shape, HEAD)
        return params | {HEAD: jax.ShapeDtypeStruct(shape, dtype, sharding=where)}

    def begin(self, policy: Params) -> Params:
        """The parameters at the start: the policy's, and a head of zeros, so that every value is 0."""
        trunk = {name: leaf for name, leaf in policy.items() if name != UNEMBEDDING}
        return trunk | {HEAD: jnp.zeros(self.decoder.config.hidden_size, jnp.float32)}

    def values(self, params: Params, sequences: Sequences) -> jax.Array:
        """f32[B, T]: index t is the value of the tokens before t in its segment; 0 where the mask is False."""
        hidden = self.decoder.hidden(params, sequences.tokens, sequences.positions, sequences.segments)
        # Multiplied and summed instead of a matrix product, which TPUs round to bfloat16.
        found = jnp.sum(hidden[:, :-1].astype(jnp.float32) * params[HEAD], axis=-1)
        return jnp.where(sequences.mask, jnp.pad(found, [(0, 0), (1, 0)]), 0.0)
