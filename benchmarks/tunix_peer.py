"""Google's Tunix as a peer (`pip install google-tunix`): its Qwen3, its GRPO loss and step, its sampler."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tunix.generate import sampler
from tunix.models.qwen3 import model as qwen3
from tunix.models.qwen3.params import create_model_from_safe_tensors
from tunix.rl import algo_core, common
from tunix.rl.grpo.grpo_learner import GRPOConfig
from tunix.rl.trainer import Trainer
from tunix.sft import peft_trainer

from prerl_jax import save_hf
from prerl_jax.core.types import Batch, Params
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.layers import DecoderConfig

ALGORITHM = GRPOConfig(num_generations=8, beta=0.0, epsilon=0.2, loss_agg_mode="token-mean")
ALGORITHM.temperature = 1.0  # as its learner sets it
PAD, EOS = 0, 2


def load(config: DecoderConfig, params: Params) -> qwen3.Qwen3:
    """Tunix's Qwen3 with our weights, which it loads from a safetensors folder."""
    theirs = qwen3.ModelConfig(
        num_layers=config.num_layers,
        vocab_size=config.vocab_size,
        embed_dim=config.hidden_size,
        hidden_dim=config.intermediate_size,
        num_heads=config.num_heads,
        head_dim=config.head_dim,
        num_kv_heads=config.num_kv_heads,
        rope_theta=config.rope_theta,
        norm_eps=config.rms_norm_eps,
        use_tied_embedding=config.tied,
        dtype=jnp.float32,
        param_dtype=jnp.float32,
    )
    with tempfile.TemporaryDirectory() as folder:
        save_hf(folder, Decoder(config), params, dtype="float32")
        mesh = jax.make_mesh((1, 1), ("fsdp", "tp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
        return create_model_from_safe_tensors(folder, theirs, mesh, dtype=jnp.float32)


def grpo_step(
    config: DecoderConfig, params: Params, batch: Batch, *, rate: float, decay: float, clip: float
) -> Callable[[], object]:
    """A function that runs one step on the batch's rows; the first token of a row is its prompt."""
    model = load(config, params)
    tx = optax.chain(optax.clip_by_global_norm(clip), optax.adamw(rate, weight_decay=decay))
    forever = peft_trainer.TrainingConfig(eval_every_n_steps=1 << 30, max_steps=1 << 30)
    trainer = Trainer(model, tx, forever, custom_checkpoint_metadata_fn=dict)

    def loss(model, train_example, algo_config):
        return algo_core.grpo_loss_fn(model, train_example, algo_config, PAD, EOS)

    trainer.with_loss_fn(loss, has_aux=True)
    trainer.with_gen_model_input_fn(lambda example: {"train_example": example, "algo_config": ALGORITHM})
    tokens = batch.sequences.tokens
    example = common.TrainExample(
        prompt_ids=tokens[:, :1],
        prompt_mask=jnp.ones_like(tokens[:, :1]),
        completion_ids=tokens[:, 1:],
        completion_mask=batch.sequences.mask[:, 1:].astype(jnp.int32),
        ref_per_token_logps=None,
        advantages=batch.advantages[:, 1],
        old_per_token_logps=None,
    )
    step, _ = trainer.jit_train_and_eval_step()
    return lambda: step(example)


class Numbers:
    """A tokenizer for texts that are numbers: the text "5" is the fifth prompt. Tunix needs no more."""

    def __init__(self, prompts: np.ndarray):
        self._prompts = prompts

    def encode(self, text: str) -> list[int]:
        return self._prompts[int(text)].tolist()

    def decode(self, ids: list[int]) -> str:
        return ""

    def bos_id(self) -> int:
        return 0

    eos_id = pad_id = bos_id


def generate(
    config: DecoderConfig, params: Params, prompts: np.ndarray, new: int, stop: tuple[int, ...]
) -> Callable[[], int]:
    """A function that samples a response to each prompt, i32[B, P], with Tunix, and returns the number of tokens."""
    length = prompts.shape[1]
    cache = sampler.CacheConfig(length + new, config.num_layers, config.num_kv_heads, config.head_dim)
    engine = sampler.Sampler(load(config, params), Numbers(prompts), cache)
    texts = [str(i) for i in range(len(prompts))]
    stops = list(stop) or [config.vocab_size]  # a token that is never sampled
    seeds = itertools.count()

    def call() -> int:
        how = {"temperature": 1.0, "top_p": 1.0, "eos_tokens": stops, "max_prompt_length": length}
        said = engine(texts, new, seed=next(seeds), **how).tokens
        return sum(min(len(tokens) + 1, new) for tokens in said)  # their responses leave the stop token out

    return call
