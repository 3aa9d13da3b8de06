"""Tiny .gguf files, written as llama.cpp's converter writes them."""

import gguf
import jax
import jax.numpy as jnp
import numpy as np

from prerl_jax.models import layout, rope
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.layers import DecoderConfig
from prerl_jax.models.rope import LinearRope, Llama3Rope

SIZES = (40, 32, 64, 2, 4, 2, 8)  # vocabulary, width, MLP width, layers, heads, key-value heads, head_dim
COMMON = {"rope_theta": 1000.0, "rms_norm_eps": 1e-5, "max_position_embeddings": 128}
TOKENS = {"bos_token_id": 1, "eos_token_ids": (2,), "pad_token_id": 3}
LLAMA3 = Llama3Rope(8.0, 1.0, 4.0, 8192)
CONFIGS = {
    "llama": DecoderConfig("llama", *SIZES, **COMMON | TOKENS),
    "llama-biases": DecoderConfig(
        "llama", *SIZES, **COMMON | TOKENS, tied=False, qkv_bias=True, output_bias=True, mlp_bias=True
    ),
    "llama-linear": DecoderConfig("llama", *SIZES, **COMMON | TOKENS, rope_scaling=LinearRope(2.0)),
    "llama-llama3": DecoderConfig("llama", *SIZES, **COMMON | TOKENS | {"rope_theta": 5e5}, rope_scaling=LLAMA3),
    "qwen2": DecoderConfig("qwen2", *SIZES, **COMMON | TOKENS, qkv_bias=True, tied=False),
    "qwen3": DecoderConfig("qwen3", *SIZES[:-1], 128, **COMMON | TOKENS, qk_norm=True),
}


def interleave(rows, heads):
    """LlamaModel.permute of llama.cpp's convert_hf_to_gguf.py."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def write(path, config, params, *, kind=gguf.GGMLQuantizationType.F32, metadata=(), extra=()):
    """A .gguf file of the parameters; 2-D tensors are stored as `kind`. `metadata` overrides keys, None leaves out."""
    c, family = config, config.model_type
    writer = gguf.GGUFWriter(path, family)
    values = {
        f"{family}.embedding_length": c.hidden_size,
        f"{family}.feed_forward_length": c.intermediate_size,
        f"{family}.block_count": c.num_layers,
        f"{family}.context_length": c.max_position_embeddings,
        f"{family}.attention.head_count": c.num_heads,
        f"{family}.attention.head_count_kv": c.num_kv_heads,
        f"{family}.attention.key_length": c.head_dim,
        f"{family}.attention.layer_norm_rms_epsilon": c.rms_norm_eps,
        f"{family}.rope.freq_base": c.rope_theta,
        "tokenizer.ggml.bos_token_id": c.bos_token_id,
        "tokenizer.ggml.eos_token_id": c.eos_token_ids[0],
        "tokenizer.ggml.padding_token_id": c.pad_token_id,
    }
    tensors = dict(extra)
    if isinstance(c.rope_scaling, LinearRope):
        values |= {f"{family}.rope.scaling.type": "linear", f"{family}.rope.scaling.factor": c.rope_scaling.factor}
    if isinstance(c.rope_scaling, Llama3Rope):
        plain, scaled = (rope.frequencies(c.head_dim, c.rope_theta, s) for s in (None, c.rope_scaling))
        tensors.setdefault("rope_freqs.weight", plain / scaled)
    add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32, list: writer.add_array}
    for key, value in (values | dict(metadata)).items():
        if value is not None:
            add[type(value)](key, value)
    leaves = layout.flatten(params)
    names = layout.file_shapes(leaves, "gguf")
    arrays = [array for p, leaf in leaves.items() for array in layout.tensors(p, np.asarray(leaf))]
    for name, array in dict(zip(names, arrays, strict=True)).items():
        if family == "llama" and ".attn_q." in name:
            array = interleave(array, c.num_heads)
        if family == "llama" and ".attn_k." in name:
            array = interleave(array, c.num_kv_heads)
        tensors.setdefault(name, array)
    for name, array in tensors.items():
        quantised = array.ndim == 2 and kind != gguf.GGMLQuantizationType.F32
        array = np.ascontiguousarray(array)
        writer.add_tensor(
            name, gguf.quantize(array, kind) if quantised else array, raw_dtype=kind if quantised else None
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def random_params(config):
    rng = np.random.default_rng(0)
    leaves = Decoder(config).abstract_params()
    return jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype), leaves)
