"""The lab's base model with a chat template whose turns end with a token of its own, and with ids that no token has.

Like a base model of Qwen: the model's config names `</s>` (2), the tokenizer and the chat template `<|im_end|>` (22).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from prerl_jax import ChatTemplate
from prerl_jax.config import TrainConfig
from prerl_jax.lab import architecture
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.hf import load_model, save_hf
from prerl_jax.models.tokenizer import load_tokenizer

BASE = Path(__file__).resolve().parent.parent / "prerl_jax" / "lab_base"
TEMPLATE = "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}<|im_end|>\n{% endif %}{% endfor %}"
TOKENS = 23


def make_tokenizer(template: str | None = TEMPLATE):
    """The lab's tokenizer and one more token, its EOS."""
    tokenizer = load_tokenizer(BASE)
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>"})
    tokenizer.chat_template = template
    return tokenizer


def write(folder: Path, padding: int = 65, template: str | None = TEMPLATE) -> Path:
    """Writes the model, with `padding` ids that no token has; without a mask they would be its favourite ones."""
    model, params = load_model(BASE)
    rows = np.asarray(params["embed"])
    likely = 1.5 * np.resize(rows[2:12], (padding, rows.shape[1]))
    embed = jnp.asarray(np.concatenate([rows, rows[2:3], likely]))
    config = dataclasses.replace(model.config, vocab_size=TOKENS + padding)
    save_hf(folder, Decoder(config), params | {"embed": embed}, make_tokenizer(template))
    return folder


def small(folder: Path, template: str) -> Path:
    """A model of one layer with this chat template, which is not meant to answer anything."""
    import jax

    model = Decoder(architecture(TOKENS, layers=1, width=32))
    save_hf(folder, model, model.init(jax.random.key(0)), make_tokenizer(template))
    return folder


def of(config: TrainConfig, folder: Path) -> TrainConfig:
    """A config of the lab with this model, and with its chat template."""
    model, data = dataclasses.replace(config.model, path=str(folder)), config.data
    return dataclasses.replace(config, model=model, data=dataclasses.replace(data, template=ChatTemplate()))
