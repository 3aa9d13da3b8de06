"""One decoder for Llama, Qwen2 and Qwen3.

Flax nnx declares the modules and their logical axes; the modules are split once, and from then on parameters are a
plain dict with the layers stacked on a leading axis, which training scans over and decoding loops over.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from prerl_jax.core.types import Params
from prerl_jax.models import attention, rope
from prerl_jax.models.partitioning import DEFAULT_RULES, Rules, constrain, named_sharding
from prerl_jax.models.rope import LinearRope, Llama3Rope

REMAT = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}
"""What a layer keeps for its backward pass: everything, the results of its projections, or only its input."""


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """The architecture: what a checkpoint's config.json says of it."""

    model_type: str
    """"llama", "qwen2" or "qwen3"."""
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope_theta: float = 10000.0
    rope_scaling: Llama3Rope | LinearRope | None = None
    rms_norm_eps: float = 1e-6
    tied: bool = True
    """Whether the unembedding is the embedding."""
    qk_norm: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    max_position_embeddings: int = 2048
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    pad_token_id: int | None = None
    dtype: str = "float32"
    """The dtype that the checkpoint was stored in, and that it is written back in by default."""

    def __post_init__(self):
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"{self.num_heads} query heads do not share {self.num_kv_heads} key-value heads evenly.")
        if self.head_dim % 2:
            raise ValueError(f"Rotary embedding needs an even head_dim, got {self.head_dim}.")


def _normal(key, shape, axes):
    return nnx.Param(0.02 * jax.random.normal(key, shape), axes=axes)


def _zeros(shape, axes, wanted: bool):
    return nnx.Param(jnp.zeros(shape), axes=axes) if wanted else None


def _scale(size, axis="embed"):
    return nnx.Param(jnp.ones(size), axes=(axis,))


def rms_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
    """x / sqrt(mean(x^2) + eps) * scale over the last axis; the mean in float32."""
    wide = x.astype(jnp.float32)
    return (wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)).astype(x.dtype) * scale


class Attention(nnx.Module):
    """Projections of grouped-query attention; how the heads attend is the caller's."""

    def __init__(self, config: DecoderConfig, key):
        keys = jax.random.split(key, 4)
        width, heads, kv_heads, size = config.hidden_size, config.num_heads, config.num_kv_heads, config.head_dim
        self.eps = config.rms_norm_eps
        self.q = _normal(keys[0], (width, heads, size), ("embed", "heads", "head_dim"))
        self.k = _normal(keys[1], (width, kv_heads, size), ("embed", "kv_heads", "head_dim"))
        self.v = _normal(keys[2], (width, kv_heads, size), ("embed", "kv_heads", "head_dim"))
        self.o = _normal(keys[3], (heads, size, width), ("heads", "head_dim", "embed"))
        self.q_bias = _zeros((heads, size), ("heads", "head_dim"), config.qkv_bias)
        self.k_bias = _zeros((kv_heads, size), ("kv_heads", "head_dim"), config.qkv_bias)
        self.v_bias = _zeros((kv_heads, size), ("kv_heads", "head_dim"), config.qkv_bias)
        self.o_bias = _zeros((width,), ("embed",), config.output_bias)
        self.q_norm = _scale(size, "head_dim") if config.qk_norm else None
        self.k_norm = _scale(size, "head_dim") if config.qk_norm else None

    def __call__(self, x, rotation, attend):
        """x [..., D] -> ([..., D], what `attend(q, k, v) -> (y, carry)` carries)."""
        q, k, v = (jnp.einsum("...d,dnk->...nk", x, w[...]) for w in (self.q, self.k, self.v))
        if self.q_bias is not None:
            q, k, v = q + self.q_bias[...], k + self.k_bias[...], v + self.v_bias[...]
        if self.q_norm is not None:
            q, k = rms_norm(q, self.q_norm[...], self.eps), rms_norm(k, self.k_norm[...], self.eps)
        y, carry = attend(rope.rotate(q, rotation), rope.rotate(k, rotation), v)
        y = jnp.einsum("...nk,nkd->...d", y, self.o[...])
        return (y if self.o_bias is None else y + self.o_bias[...]), carry


class MLP(nnx.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, config: DecoderConfig, key):
        keys = jax.random.split(key, 3)
        width, inner = config.hidden_size, config.intermediate_size
        self.gate = _normal(keys[0], (width, inner), ("embed", "mlp"))
        self.up = _normal(keys[1], (width, inner), ("embed", "mlp"))
        self.down = _normal(keys[2], (inner, width), ("mlp", "embed"))
        self.gate_bias = _zeros((inner,), ("mlp",), config.mlp_bias)
        self.up_bias = _zeros((inner,), ("mlp",), config.mlp_bias)
        self.down_bias = _zeros((width,), ("embed",), config.mlp_bias)

    def __call__(self, x):
        gate, up = x @ self.gate[...], x @ self.up[...]
        if self.gate_bias is not None:
            gate, up = gate + self.gate_bias[...], up + self.up_bias[...]
        y = (jax.nn.silu(gate) * up) @ self.down[...]
        return y if self.down_bias is None else y + self.down_bias[...]


class Layer(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: DecoderConfig, key):
        attention_key, mlp_key = jax.random.split(key)
        self.eps = config.rms_norm_eps
        self.attention_norm = _scale(config.hidden_size)
        self.attention = Attention(config, attention_key)
        self.mlp_norm = _scale(config.hidden_size)
        self.mlp = MLP(config, mlp_key)

    def __call__(self, x, rotation, attend):
        y, carry = self.attention(rms_norm(x, self.attention_norm[...], self.eps), rotation, attend)
        x = x + y
        return x + self.mlp(rms_norm(x, self.mlp_norm[...], self.eps)), carry


class Ends(nnx.Module):
    """What stands before and after the layers."""

    def __init__(self, config: DecoderConfig, key):
        keys = jax.random.split(key)
        self.embed = _normal(keys[0], (config.vocab_size, config.hidden_size), ("vocab", "embed"))
        self.final_norm = _scale(config.hidden_size)
        if not config.tied:
            self.unembed = _normal(keys[1], (config.hidden_size, config.vocab_size), ("embed", "vocab"))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    """Keys and values of Q prompts, each once, and of the responses of their Q * G rows; L layers, N heads of size K."""

    prompt_key: jax.Array
    """[L, Q, N, P, K]."""
    prompt_value: jax.Array
    """[L, Q, N, P, K]."""
    prompt_mask: jax.Array
    """bool[Q, P]."""
    key: jax.Array
    """[L, Q * G, N, R, K]."""
    value: jax.Array
    """[L, Q * G, N, R, K]."""


class Decoder:
    """The model: pure functions of a plain parameter dict. Implements `prerl_jax.Model`.

    Args:
      config: the architecture.
      compute_dtype: dtype of activations and of the weights inside matmuls; parameters keep their own.
      remat: "none", "dots" or "full", see REMAT.
      mesh: devices to shard over; None for one device.
      rules: logical axis -> mesh axes.
    """

    def __init__(
        self,
        config: DecoderConfig,
        *,
        compute_dtype: Any = "float32",
        remat: str = "none",
        mesh: Mesh | None = None,
        rules: Rules = DEFAULT_RULES,
    ):
        if remat not in REMAT:
            raise ValueError(f"remat must be one of {sorted(REMAT)}, got {remat!r}.")
        self.config, self.compute_dtype, self.remat = config, jnp.dtype(compute_dtype), remat
        self.mesh, self.rules = mesh, rules
        self._freqs = rope.frequencies(config.head_dim, config.rope_theta, config.rope_scaling)
        self._layer, self._layer_state = nnx.split(nnx.eval_shape(lambda: Layer(config, jax.random.key(0))))
        _, self._ends_state = nnx.split(nnx.eval_shape(lambda: Ends(config, jax.random.key(0))))

    # Parameters

    def init(self, key: jax.Array) -> Params:
        """Random float32 parameters: weights ~ N(0, 0.02), norms 1, biases 0."""
        ends_key, layers_key = jax.random.split(key)
        ends = nnx.to_pure_dict(nnx.state(Ends(self.config, ends_key)))

        def layer(key):
            return nnx.to_pure_dict(nnx.state(Layer(self.config, key)))

        return ends | {"layers": jax.vmap(layer)(jax.random.split(layers_key, self.config.num_layers))}

    def logical_axes(self) -> dict:
        """The parameters' tree with a tuple of logical axes at each leaf."""

        def axes(state, *leading):
            return nnx.to_pure_dict(
                jax.tree.map(
                    lambda v: (*leading, *v.get_metadata()["axes"]),
                    state,
                    is_leaf=lambda v: isinstance(v, nnx.Variable),
                )
            )

        return axes(self._ends_state) | {"layers": axes(self._layer_state, "layers")}

    def abstract_params(self, dtype: Any = jnp.float32) -> dict:
        """The parameters' tree of ShapeDtypeStruct, sharded where there is a mesh.

        Raises ValueError where a dimension does not divide the mesh.
        """
        shapes = jax.eval_shape(self.init, jax.random.key(0))
        if self.mesh is None:
            return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, dtype), shapes)

        def leaf(path, shape, axes):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            sharding = named_sharding(self.mesh, self.rules, axes, shape.shape, name)
            return jax.ShapeDtypeStruct(shape.shape, dtype, sharding=sharding)

        return jax.tree_util.tree_map_with_path(leaf, shapes, self.logical_axes())

    def shardings(self) -> dict:
        """The parameters' tree of NamedSharding; needs a mesh."""
        return jax.tree.map(lambda s: s.sharding, self.abstract_params())

    # Forward

    def unembedding(self, params: Params) -> jax.Array:
        """[D, V] in the compute dtype."""
        return (params["embed"].T if self.config.tied else params["unembed"]).astype(self.compute_dtype)

    def hidden(self, params: Params, tokens: jax.Array, positions: jax.Array, segments: jax.Array) -> jax.Array:
        """Final normalised hidden states [B, T, D] of packed rows i32[B, T], causal within each segment."""

        def attend(q, k, v):
            return attention.attend(q, k, v, segments), None

        x, _ = self._layers(params, self._embed(params, tokens), positions, attend)
        return self._norm(params, x)

    def init_cache(self, params: Params, tokens, positions, segments, group_size: int, length: int):
        """Prefills left-padded prompts i32[Q, P]: (hidden [Q, D] of their last token, Cache for Q * group_size rows)."""
        c = self.config

        def attend(q, k, v):
            return attention.attend(q, k, v, segments), (k.swapaxes(1, 2), v.swapaxes(1, 2))

        x, (keys, values) = self._layers(params, self._embed(params, tokens), positions, attend)
        axes = ("layers", "batch", "kv_heads", "length", "head_dim")
        shape = (c.num_layers, tokens.shape[0] * group_size, c.num_kv_heads, length, c.head_dim)
        empty = self._constrain(jnp.zeros(shape, self.compute_dtype), *axes)
        keys, values = self._constrain(keys, *axes), self._constrain(values, *axes)
        return self._norm(params, x[:, -1]), Cache(keys, values, segments > 0, empty, empty)

    def decode(self, params: Params, cache: Cache, tokens: jax.Array, index: jax.Array) -> tuple[jax.Array, Cache]:
        """Feeds the index-th response token of every row, i32[Q * G]: (hidden [Q * G, D], the cache with it)."""
        group_size = tokens.shape[0] // cache.prompt_mask.shape[0]
        positions = jnp.repeat(cache.prompt_mask.sum(axis=1, dtype=jnp.int32), group_size) + index
        rotation = rope.rotations(positions, self._freqs)

        def body(layer, carry):
            x, keys, values = carry

            def attend(q, k, v):
                start = (layer, 0, 0, index, 0)
                new_keys = jax.lax.dynamic_update_slice(keys, k[None, :, :, None], start)
                new_values = jax.lax.dynamic_update_slice(values, v[None, :, :, None], start)
                own = (cache.prompt_key[layer], cache.prompt_value[layer], cache.prompt_mask)
                y = attention.attend_cached(q, *own, new_keys[layer], new_values[layer], index)
                return y, (new_keys, new_values)

            weights = jax.tree.map(lambda w: w[layer], params["layers"])
            x, (keys, values) = self._apply(weights, x, rotation, attend)
            return x, keys, values

        start = (self._embed(params, tokens), cache.key, cache.value)
        x, keys, values = jax.lax.fori_loop(0, self.config.num_layers, body, start)
        return self._norm(params, x), dataclasses.replace(cache, key=keys, value=values)

    # Pieces

    def _constrain(self, x, *axes):
        return constrain(x, self.mesh, self.rules, axes)

    def _embed(self, params, tokens):
        axes = ("batch", "length")[: tokens.ndim] + (None,)
        return self._constrain(params["embed"].astype(self.compute_dtype)[tokens], *axes)

    def _norm(self, params, x):
        return rms_norm(x, params["final_norm"].astype(self.compute_dtype), self.config.rms_norm_eps)

    def _apply(self, weights, x, rotation, attend):
        weights = jax.tree.map(lambda w: w.astype(self.compute_dtype), weights)
        x, carry = nnx.merge(self._layer, nnx.State(weights))(x, rotation, attend)
        axes = ("batch", "length")[: x.ndim - 1] + (None,)
        return self._constrain(x, *axes), carry

    def _layers(self, params, x, positions, attend):
        rotation = rope.rotations(positions, self._freqs)

        def body(x, weights):
            return self._apply(weights, x, rotation, attend)

        if self.remat != "none":
            body = jax.checkpoint(body, policy=REMAT[self.remat])
        return jax.lax.scan(body, x, params["layers"])
