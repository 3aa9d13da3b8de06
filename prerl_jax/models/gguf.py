"""GGUF files (llama.cpp's format): architecture and weights, with the `gguf` package and numpy.

llama.cpp rotates neighbouring pairs where Hugging Face rotates halves. So its converter interleaves the rows of a Llama
model's q and k projections (weights and biases): row 2j + h of a head is Hugging Face's row h * K/2 + j. This module
undoes the interleaving. Qwen models are rotated by halves, and their files are read as they are.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from prerl_jax.models import rope
from prerl_jax.models.layers import DecoderConfig
from prerl_jax.models.layout import Stored
from prerl_jax.models.rope import LinearRope, Llama3Rope

ARCHITECTURES = ("llama", "qwen2", "qwen3")
REFUSED = ("expert_count", "attention.sliding_window", "logit_scale", "residual_scale", "embedding_scale")
"""Metadata that would change the computation in a way that the decoder does not support."""
LLAMA3_RANGE: dict[str, Any] = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
"""The range of every published Llama 3.x. A file has only the resulting factors."""


def open_reader(path: Path) -> Any:
    """A gguf.GGUFReader: the file's metadata and memory-mapped tensors.

    Raises ValueError with the path where the file cannot be read.
    """
    from gguf import GGUFReader

    try:
        return GGUFReader(path)
    except (ValueError, IndexError, KeyError, UnicodeDecodeError, OverflowError) as error:
        raise ValueError(f"{path} is truncated, corrupt, or no GGUF file: {error}") from error


def field(reader: Any, key: str, default: Any = None) -> Any:
    """A metadata value, or `default`."""
    found = reader.get_field(key)
    return default if found is None else found.contents()


def open_checkpoint(path: Path) -> tuple[DecoderConfig, dict[str, Stored]]:
    """(architecture, tensors by their GGUF names). Tensors are dequantised to float32 when they are read.

    Raises ValueError that names an architecture, switch or tensor type that is not supported.
    """
    reader = open_reader(path)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    try:
        config = _config(reader, {name: tuple(map(int, t.shape[::-1])) for name, t in tensors.items()})
        factors = tensors.pop("rope_freqs.weight", None)
        if factors is not None:
            config = dataclasses.replace(config, rope_scaling=_llama3(config, _dequantise(factors)))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return config, {name: _stored(tensor, config) for name, tensor in tensors.items()}


def _config(reader: Any, shapes: dict[str, tuple[int, ...]]) -> DecoderConfig:
    family = field(reader, "general.architecture")
    if family not in ARCHITECTURES:
        raise ValueError(f"Unknown GGUF architecture {family!r}; the decoder does {', '.join(ARCHITECTURES)}.")

    def get(key, default=None):
        return field(reader, f"{family}.{key}", default)

    def need(key, default=None):
        value = get(key, default)
        if not isinstance(value, (int, float)):
            raise ValueError(f"GGUF metadata {family}.{key} should be a number, it is {value!r}.")
        return value

    for key in REFUSED:
        if get(key):
            raise ValueError(f"GGUF metadata has {family}.{key} = {get(key)!r}, which the decoder does not do.")
    if "token_embd.weight" not in shapes:
        raise ValueError("the tensor 'token_embd.weight' is missing.")
    heads, width = need("attention.head_count"), need("embedding_length")
    head_dim = get("attention.key_length", width // heads)
    if get("rope.dimension_count", head_dim) != head_dim or get("attention.value_length", head_dim) != head_dim:
        raise ValueError(
            f"Partial rotary or unequal value heads: key_length {head_dim}, value_length "
            f"{get('attention.value_length', head_dim)}, rope.dimension_count {get('rope.dimension_count', head_dim)}."
        )
    eos = field(reader, "tokenizer.ggml.eos_token_id")
    return DecoderConfig(
        model_type=family,
        vocab_size=shapes["token_embd.weight"][0],
        hidden_size=width,
        intermediate_size=need("feed_forward_length"),
        num_layers=need("block_count"),
        num_heads=heads,
        num_kv_heads=need("attention.head_count_kv", heads),
        head_dim=head_dim,
        rope_theta=float(get("rope.freq_base", 10000.0)),
        rope_scaling=_scaling(get),
        # a float32 in the file, a decimal in config.json: the shortest decimal that is this float32
        rms_norm_eps=float(str(np.float32(need("attention.layer_norm_rms_epsilon")))),
        tied="output.weight" not in shapes,
        qk_norm=family == "qwen3",
        qkv_bias="blk.0.attn_q.bias" in shapes,
        output_bias="blk.0.attn_output.bias" in shapes,
        mlp_bias="blk.0.ffn_gate.bias" in shapes,
        max_position_embeddings=need("context_length"),
        bos_token_id=field(reader, "tokenizer.ggml.bos_token_id"),
        eos_token_ids=() if eos is None else (eos,),
        pad_token_id=field(reader, "tokenizer.ggml.padding_token_id"),
        dtype="float32",
    )


def _scaling(get) -> LinearRope | None:
    kind = get("rope.scaling.type", "none")
    if kind not in ("none", "linear"):
        raise ValueError(f"Unknown GGUF rope scaling {kind!r}; the decoder does 'none' and 'linear'.")
    return LinearRope(float(get("rope.scaling.factor", 1.0))) if kind == "linear" else None


def _llama3(config: DecoderConfig, factors: np.ndarray) -> Llama3Rope:
    """The Llama 3 scaling that divides the frequencies by `factors`. Raises ValueError if there is none."""
    scaling = Llama3Rope(factor=float(factors.max()), **LLAMA3_RANGE)
    plain = rope.frequencies(config.head_dim, config.rope_theta, None)
    expected = plain / rope.frequencies(config.head_dim, config.rope_theta, scaling)
    if config.rope_scaling is not None or factors.shape != expected.shape or not np.allclose(factors, expected, 1e-4):
        raise ValueError(f"The tensor 'rope_freqs.weight' holds a scaling other than Llama 3's: {factors.tolist()}.")
    return scaling


def _dequantise(tensor) -> np.ndarray:
    from gguf.quants import dequantize

    return dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape[::-1].astype(int))


def _stored(tensor, config: DecoderConfig) -> Stored:
    shape = tuple(map(int, tensor.shape[::-1]))
    heads = {"attn_q": config.num_heads, "attn_k": config.num_kv_heads}.get(tensor.name.split(".")[-2])
    if heads is None or config.model_type != "llama":
        return Stored(shape, jnp.dtype("float32"), functools.partial(_dequantise, tensor))
    return Stored(shape, jnp.dtype("float32"), lambda: uninterleave(_dequantise(tensor), heads))


def uninterleave(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows [heads * K, ...] with the two halves of each head interleaved -> with one half after the other."""
    split = rows.reshape(heads, -1, 2, *rows.shape[1:])
    return split.swapaxes(1, 2).reshape(rows.shape)
