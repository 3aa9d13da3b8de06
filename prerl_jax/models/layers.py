"""The decoder's architecture, and its modules: the parameters that each declares, their logical axes, its function."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import nnx

from prerl_jax.core.xla_cpu import weight_gradient
from prerl_jax.models import rope
from prerl_jax.models.rope import LinearRope, Llama3Rope


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """The architecture of a decoder, as a checkpoint's config.json describes it.

    Attributes:
      model_type: "llama", "qwen2" or "qwen3".
      vocab_size: V, rows of the embedding.
      hidden_size: D, the width of the hidden states.
      intermediate_size: the width inside the MLP.
      num_layers: number of layers.
      num_heads: H, query heads.
      num_kv_heads: N, key and value heads; it must divide num_heads.
      head_dim: K, the size of a head; even.
      rope_theta: base of the rotary wavelengths.
      rope_scaling: Llama3Rope, LinearRope, or None for no scaling.
      rms_norm_eps: added to the mean square in every norm.
      tied: whether the unembedding is the transposed embedding.
      qk_norm: whether queries and keys are normalised within each head (Qwen3).
      qkv_bias: whether the query, key and value projections have biases (Qwen2).
      output_bias: whether the output projection of attention has a bias.
      mlp_bias: whether the MLP's projections have biases.
      max_position_embeddings: the context length that the model was trained with, in tokens.
      bos_token_id: id of the token that begins a text; None where there is none.
      eos_token_ids: ids of the tokens that end a text.
      pad_token_id: id of the padding token; None where there is none.
      dtype: dtype of the tensors in the checkpoint; `save_hf` writes this dtype by default.

    Raises ValueError where num_kv_heads does not divide num_heads, and for an odd head_dim.
    """

    model_type: str
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
    qk_norm: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    max_position_embeddings: int = 2048
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    pad_token_id: int | None = None
    dtype: str = "float32"

    def __post_init__(self):
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"{self.num_heads} query heads do not share {self.num_kv_heads} key-value heads evenly. "
                "Choose num_heads as a multiple of num_kv_heads."
            )
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


def project(x: jax.Array, weights: jax.Array, contracted: int = 1) -> jax.Array:
    """`jnp.tensordot(x, weights, contracted)`, computed as one product of two matrices, tokens by features.

    With separate axes for rows and tokens, XLA:CPU would write the transpose of every activation before it computes a
    weight's gradient.

    Args:
      x: [..., *inner], where inner are `contracted` axes.
      weights: [*inner, *outer].
      contracted: number of axes that are summed over.

    Returns: [..., *outer].
    """
    kept, inner = x.shape[: x.ndim - contracted], math.prod(x.shape[x.ndim - contracted :])
    y = _product(x.reshape(-1, inner), weights.reshape(inner, -1))
    return y.reshape(*kept, *weights.shape[contracted:])


@jax.custom_vjp
def _product(x, weights):
    return x @ weights


def _product_bwd(operands, d_y):
    x, weights = operands
    return d_y @ weights.T, weight_gradient(x, d_y)


_product.defvjp(lambda x, weights: (x @ weights, (x, weights)), _product_bwd)


class Attention(nnx.Module):
    """The projections of grouped-query attention (Ainslie et al., arXiv 2305.13245). The caller gives the attention."""

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
        """x [..., D] -> ([..., D], carry), where `attend(q, k, v) -> (y, carry)`."""
        q, k, v = (project(x, w[...]) for w in (self.q, self.k, self.v))
        if self.q_bias is not None:
            q, k, v = q + self.q_bias[...], k + self.k_bias[...], v + self.v_bias[...]
        if self.q_norm is not None and self.k_norm is not None:
            q, k = rms_norm(q, self.q_norm[...], self.eps), rms_norm(k, self.k_norm[...], self.eps)
        y, carry = attend(rope.rotate(q, rotation), rope.rotate(k, rotation), v)
        y = project(y, self.o[...], 2)
        return (y if self.o_bias is None else y + self.o_bias[...]), carry


@jax.checkpoint
def _gated(gate: jax.Array, up: jax.Array) -> jax.Array:
    """silu(gate) * up. The backward pass keeps the two inputs and nothing in between."""
    return jax.nn.silu(gate) * up


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
        gate, up = project(x, self.gate[...]), project(x, self.up[...])
        if self.gate_bias is not None:
            gate, up = gate + self.gate_bias[...], up + self.up_bias[...]
        y = project(_gated(gate, up), self.down[...])
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
    """The parameters outside of the layers: embedding, final norm, and unembedding where it is not tied."""

    def __init__(self, config: DecoderConfig, key):
        keys = jax.random.split(key)
        self.embed = _normal(keys[0], (config.vocab_size, config.hidden_size), ("vocab", "embed"))
        self.final_norm = _scale(config.hidden_size)
        if not config.tied:
            self.unembed = _normal(keys[1], (config.hidden_size, config.vocab_size), ("embed", "vocab"))


def axes_of(state, *leading) -> dict:
    """The tree of a module's state with the logical axes at each leaf, after `leading` ones."""
    axes = jax.tree.map(
        lambda v: (*leading, *v.get_metadata()["axes"]), state, is_leaf=lambda v: isinstance(v, nnx.Variable)
    )
    return nnx.to_pure_dict(axes)
