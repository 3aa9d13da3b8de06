"""One decoder for Llama, Qwen2 and Qwen3.

Flax nnx declares the modules and their logical axes. The modules are split once; from then on, parameters are a plain
dict with the layers stacked on a leading axis. Training scans over that axis and decoding loops over it, unless the
layers are unrolled.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from prerl_jax.core.head import Head
from prerl_jax.core.types import Params
from prerl_jax.models import attention as attentions
from prerl_jax.models import filled, partitioning, rope, xla_cpu
from prerl_jax.models.cache import Cache, Held, append, head_bytes, hold, reader
from prerl_jax.models.layers import DecoderConfig, Ends, Layer, axes_of, rms_norm
from prerl_jax.models.partitioning import DEFAULT_RULES, Rules, constrain, require_auto_axes
from prerl_jax.models.remat import REMAT
from prerl_jax.models.stack import apply_layers


class Decoder:
    """A decoder-only transformer: pure functions of a plain parameter dict. Implements `prerl_jax.Model`.

    Args:
      config: the architecture.
      compute_dtype: dtype of activations, and of the weights inside products; parameters keep their own dtype.
      remat: "none", "dots", "attention" or "full", see REMAT.
      attention: "auto", "xla" or "splash", see `attention.choose`. With "xla", decoding uses no kernel either.
      unroll: whether a training pass writes the layers out instead of scanning over them; None: on CPUs, where
        `xla_cpu.unrolls` says so.
      unroll_decode: whether decoding is compiled layer by layer, each layer with its own weights. None: True on CPUs,
        where a loop over stacked weights copies them at every token. A loop compiles equally fast at any depth.
      valid_ids: the number of real token ids, see `Head.valid_ids`; None for all of the vocabulary.
      mesh: devices to shard over, with axes of type Auto (see `prerl_jax.make_mesh`); None for one device.
      rules: maps logical axes to mesh axes.

    Raises ValueError for an unknown remat or attention, and for a mesh with Explicit axes.
    """

    def __init__(
        self,
        config: DecoderConfig,
        *,
        compute_dtype: Any = "float32",
        remat: str = "none",
        attention: str = "auto",
        unroll: bool | None = None,
        unroll_decode: bool | None = None,
        valid_ids: int | None = None,
        mesh: Mesh | None = None,
        rules: Rules = DEFAULT_RULES,
    ):
        if remat not in REMAT:
            raise ValueError(f"remat must be one of {sorted(REMAT)}, got {remat!r}.")
        if attention not in attentions.BACKENDS:
            raise ValueError(f"attention must be one of {attentions.BACKENDS}, got {attention!r}.")
        require_auto_axes(mesh)
        self.config, self.compute_dtype, self.remat = config, jnp.dtype(compute_dtype), remat
        self.mesh, self.rules, self.valid_ids = mesh, rules, valid_ids
        self.attention, self.unroll = attention, unroll
        self._on_cpu = xla_cpu.on_cpu(mesh)
        self.unroll_decode = self._on_cpu if unroll_decode is None else unroll_decode
        self._freqs = rope.frequencies(config.head_dim, config.rope_theta, config.rope_scaling)
        self._layer, self._layer_state = nnx.split(nnx.eval_shape(lambda: Layer(config, jax.random.key(0))))
        self._layer_axes = axes_of(self._layer_state)
        _, self._ends_state = nnx.split(nnx.eval_shape(lambda: Ends(config, jax.random.key(0))))

    def on_mesh(self, mesh: Mesh, rules: Rules) -> Decoder:
        """The same model on another mesh of such devices, split by other rules. Raises ValueError for Explicit axes."""
        require_auto_axes(mesh)
        moved = copy.copy(self)
        moved.mesh, moved.rules = mesh, rules
        return moved

    # Parameters

    def init(self, key: jax.Array) -> Params:
        """Random parameters f32[...], from a PRNG key[]: weights ~ N(0, 0.02), norms 1, biases 0."""
        ends_key, layers_key = jax.random.split(key)
        ends = nnx.to_pure_dict(nnx.state(Ends(self.config, ends_key)))

        def layer(key):
            return nnx.to_pure_dict(nnx.state(Layer(self.config, key)))

        return ends | {"layers": jax.vmap(layer)(jax.random.split(layers_key, self.config.num_layers))}

    def logical_axes(self) -> dict:
        """The parameter tree with a tuple of logical axes at each leaf."""
        return axes_of(self._ends_state) | {"layers": axes_of(self._layer_state, "layers")}

    def abstract_params(self, dtype: Any = jnp.float32) -> dict:
        """The parameter tree of ShapeDtypeStruct, with shardings where there is a mesh.

        Raises ValueError where the mesh does not divide a dimension.
        """
        shapes = jax.eval_shape(self.init, jax.random.key(0))
        shapes = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, dtype), shapes)
        return shapes if self.mesh is None else partitioning.placed(shapes, self.logical_axes(), self.mesh, self.rules)

    def shardings(self) -> dict:
        """The parameter tree of NamedSharding. The decoder must have a mesh."""
        return jax.tree.map(lambda s: s.sharding, self.abstract_params())

    # Forward

    def head(self, params: Params) -> Head:
        """The head: `h W` with W [D, V] in the compute dtype, the transposed embedding where it is tied."""
        weights = self._end(params, "embed").T if self.config.tied else self._end(params, "unembed")
        weights = weights.astype(self.compute_dtype)
        weights = self._constrain(weights, None, "vocab")  # gathered once, or each chunk of logits moves the states
        return Head(weights, valid_ids=self.valid_ids)

    def hidden(self, params: Params, tokens: jax.Array, positions: jax.Array, segments: jax.Array) -> jax.Array:
        """Final normalised hidden states [B, T, D] of packed rows i32[B, T], causal within each segment."""
        x = self._embed(params, tokens)
        x, _ = self._layers(params, x, positions, lambda q, k, v: (self._attend(q, k, v, segments), None))
        return self._norm(params, x)

    def decoding(self, params: Params) -> Params:
        """The parameters in the form that decoding reads: in the compute dtype, layer by layer where it is unrolled.

        Make them once for many tokens. `decode` takes either form, and `decoding` returns this form unchanged.
        """
        if isinstance(params["layers"], tuple):
            return params
        params = jax.tree.map(lambda w: w.astype(self.compute_dtype), params)
        if not self.unroll_decode:
            return params
        layers = tuple(jax.tree.map(lambda w, i=i: w[i], params["layers"]) for i in range(self.config.num_layers))
        return params | {"layers": layers}

    def init_cache(
        self, params: Params, tokens, positions, segments, group_size: int, length: int, dtype: str | None = None
    ) -> tuple[jax.Array, Cache]:
        """Prefills left-padded prompts.

        Args:
          params: the parameters.
          tokens: i32[Q, P].
          positions: i32[Q, P].
          segments: i32[Q, P], 0 is padding.
          group_size: G, responses of one prompt.
          length: S, columns of the ring, which limits the tokens that a row can attend to.
          dtype: what the cache is stored in, one of `cache.CACHE_DTYPES`; None for the compute dtype.

        Returns: (hidden [Q, D] of the last token, a Cache for Q * G rows).
        """
        c = self.config

        def attend(q, k, v):
            stored = hold(jnp.moveaxis(k, 1, 3), 2, dtype), hold(v.swapaxes(1, 2), 3, dtype)
            return self._attend(q, k, v, segments), stored

        x, (keys, values) = self._layers(params, self._embed(params, tokens), positions, attend)
        rows, kv_heads, size = tokens.shape[0] * group_size, c.num_kv_heads, c.head_dim
        key, value = (rows, kv_heads, size, length), (rows, kv_heads, length, size)
        empty = [hold(jnp.zeros((c.num_layers, *s), self.compute_dtype), a, dtype) for s, a in ((key, 3), (value, 4))]
        keys, values, *empty = (self._place(part) for part in (keys, values, *empty))
        return self._norm(params, x[:, -1]), Cache(keys, values, segments > 0, *empty)

    def decode(self, params: Params, cache: Cache, tokens: jax.Array, index: jax.Array) -> tuple[jax.Array, Cache]:
        """One step: the index-th response tokens i32[Q * G] of all rows -> (hidden [Q * G, D], the new cache)."""
        return self.decode_slots(params, cache, tokens, jnp.broadcast_to(index, tokens.shape), index)

    def decode_slots(
        self, params: Params, cache: Cache, tokens: jax.Array, lengths: jax.Array, clock: jax.Array
    ) -> tuple[jax.Array, Cache]:
        """One step for rows of different lengths.

        Every row writes its token to column `clock` mod S of the ring, and attends to its prompt and to its last
        lengths + 1 columns.

        Args:
          params: the parameters, or those of `decoding`.
          cache: of Q prompts and Q * G rows.
          tokens: i32[Q * G], one per row.
          lengths: i32[Q * G], the response tokens that each row has in the cache already; -1: its result is not used.
          clock: i32[], steps done since the cache was made.

        Returns: (hidden [Q * G, D], the new cache).
        """
        params = self.decoding(params)
        prompt_lengths = cache.prompt_mask.sum(axis=1, dtype=jnp.int32)
        rotation = self._rotations(jnp.repeat(prompt_lengths, len(tokens) // len(prompt_lengths)) + lengths)
        column = clock % jax.tree.leaves(cache.key)[0].shape[-1]
        kernel = self.reads_filled and filled.splits_rows(len(cache.prompt_mask), self.mesh, self.rules)
        read = filled.reader(cache, lengths, clock, self.mesh, self.rules) if kernel else reader(cache, lengths, clock)

        def step(x, weights, prompt, ring, layer=None):
            def attend(q, k, v):
                new = append(ring, k, v, column, layer)
                return read(q, prompt, new, layer), new

            return self._apply(weights, x, rotation, attend)

        x = self._embed(params, tokens)
        if isinstance(params["layers"], tuple):
            rings = []
            parts = zip(params["layers"], cache.prompt_key, cache.prompt_value, cache.key, cache.value, strict=True)
            for weights, *prompt_and_ring in parts:
                x, ring = step(x, weights, prompt_and_ring[:2], prompt_and_ring[2:])
                rings.append(ring)
            keys, values = zip(*rings, strict=True)
        else:

            def body(layer, carry):
                x, ring = carry
                weights = jax.tree.map(lambda part: part[layer], params["layers"])
                return step(x, weights, (cache.prompt_key, cache.prompt_value), ring, layer)

            x, (keys, values) = jax.lax.fori_loop(0, self.config.num_layers, body, (x, (cache.key, cache.value)))
        return self._norm(params, x), dataclasses.replace(cache, key=keys, value=values)

    @property
    def reads_filled(self) -> bool:
        """Whether decoding reads only the filled columns of its cache, by the kernel of `models.filled`."""
        wanted = self.attention != "xla" and not self.unroll_decode
        return wanted and filled.misfit(self.config, self.mesh, self.rules) is None

    # Pieces

    def _constrain(self, x, *axes):
        return constrain(x, self.mesh, self.rules, axes)

    def _end(self, params, name):
        """A parameter outside of the layers. The constraint shards its gradient as well."""
        axes = {"embed": ("vocab", "embed"), "unembed": ("embed", "vocab")}[name]
        return self._constrain(params[name], *axes)

    def _embed(self, params, tokens):
        axes = (*("batch", "length")[: tokens.ndim], None)
        return self._constrain(self._end(params, "embed")[tokens].astype(self.compute_dtype), *axes)

    def _attend(self, q, k, v, segments):
        return attentions.attend(q, k, v, segments, backend=self.attention, mesh=self.mesh, rules=self.rules)

    def cache_bytes(self, rows: int, length: int, dtype: str | None = None) -> int:
        """Bytes on one device of the keys and values of `rows` rows of `length` tokens, stored in `dtype`."""
        heads = self.config.num_layers, rows, self.config.num_kv_heads, length
        here = math.prod(
            partitioning.shard_shape(self.mesh, self.rules, ("layers", "batch", "kv_heads", "length"), heads, "cache")
        )
        return 2 * here * head_bytes(self.config.head_dim, dtype, self.compute_dtype)

    def pin_cache(self, part: jax.Array) -> jax.Array:
        """An array [B, N, ...] of a cache, or [L, B, N, ...] of all layers, sharded by rows and heads."""
        return self._constrain(part, *("layers",) * (part.ndim - 4), "batch", "kv_heads", None, None)

    def _place(self, held: Held) -> Any:
        """All layers' part of a cache [L, B, N, ...], sharded; a tuple of layers where decoding is unrolled."""
        held = jax.tree.map(self.pin_cache, held)
        if not self.unroll_decode:
            return held
        return tuple(jax.tree.map(lambda part, i=i: part[i], held) for i in range(self.config.num_layers))

    def _rotations(self, positions):
        return (xla_cpu.rotations_once if self._on_cpu else rope.rotations)(positions, self._freqs)

    def _norm(self, params, x):
        return rms_norm(x, params["final_norm"].astype(self.compute_dtype), self.config.rms_norm_eps)

    def _unrolled(self) -> bool:
        unroll = self._on_cpu and xla_cpu.unrolls(self.config.num_layers)
        return unroll if self.unroll is None else self.unroll

    def _apply(self, weights, x, rotation, attend):
        # The constraint shards the gradient as well, like its parameter, wherever the program's results go.
        weights = jax.tree.map(lambda w, axes: self._constrain(w, *axes), weights, self._layer_axes)
        weights = jax.tree.map(lambda w: w.astype(self.compute_dtype), weights)
        x, carry = nnx.merge(self._layer, nnx.State(weights))(x, rotation, attend)
        axes = (*("batch", "length")[: x.ndim - 1], None)
        return self._constrain(x, *axes), carry

    def _layers(self, params, x, positions, attend):
        rotation = self._rotations(positions)

        def body(x, weights):
            return self._apply(weights, x, rotation, attend)

        if self.remat != "none":
            body = jax.checkpoint(body, policy=REMAT[self.remat])
        return apply_layers(body, x, params["layers"], unroll=self._unrolled())
