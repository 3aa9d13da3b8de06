"""`python -m prerl_jax.lab OUT`: pre-trains the lab's base model and writes it as a Hugging Face folder.

The base model that ships with the package was made by this command with its defaults. Pre-training uses the train step
of RL: maximum likelihood is a policy gradient in which every advantage is 1, with loss = -sum_t w_t log P(y_t | y_<t).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from prerl_jax.core.objectives import Reinforce
from prerl_jax.core.packing import pack, plan_bins
from prerl_jax.core.train_step import init_state, make_train_step
from prerl_jax.core.types import Batch, Params, Sequences
from prerl_jax.data.lab import Corpus, make_tokenizer
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.hf import require_empty, save_hf
from prerl_jax.models.layers import DecoderConfig

TOKENS_PER_DIGIT = 32
"""A packed row of documents has this many tokens for every digit of the numbers, but at least 64."""


def architecture(vocab_size: int, layers: int, width: int) -> DecoderConfig:
    """The architecture of the base model: a tiny Qwen3.

    Args:
        vocab_size: tokens of the vocabulary.
        layers: how many layers it has.
        width: the hidden size, a multiple of 32. Heads are 16 wide, two query heads share a key head, and the MLP is
            three times as wide.
    """
    return DecoderConfig(
        model_type="qwen3",
        vocab_size=vocab_size,
        hidden_size=width,
        intermediate_size=3 * width,
        num_layers=layers,
        num_heads=width // 16,
        num_kv_heads=width // 32,
        head_dim=16,
        tied=True,
        qk_norm=True,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_ids=(2,),
        pad_token_id=0,
    )


def corpus_batch(corpus: Corpus, tokenizer: Any, rng: np.random.Generator, rows: int) -> Batch:
    """Draws documents and packs them into a batch.

    Args:
        corpus: where the documents come from.
        tokenizer: the lab's tokenizer.
        rng: decides which documents are drawn.
        rows: about how many packed rows the documents fill.

    Returns:
        A batch of at least `rows` rows, in which every token except the first of each document is trained on.
    """
    length = TOKENS_PER_DIGIT * max(2, corpus.digits)
    documents: list[list[int]] = []
    total = 0
    while total < rows * (length - 16):
        documents.append(tokenizer(corpus.document(rng))["input_ids"] + [tokenizer.eos_token_id])
        total += len(documents[-1])
    lengths = np.array([len(d) for d in documents])
    valid: Any = np.arange(lengths.max()) < lengths[:, None]  # Any: on the host, a Batch holds numpy arrays
    tokens: Any = np.zeros(valid.shape, np.int32)
    tokens[valid] = np.concatenate(documents)
    mask = valid & (np.arange(valid.shape[1]) > 0)
    positions: Any = np.where(valid, np.arange(valid.shape[1], dtype=np.int32), 0)
    weights = (mask / mask.sum()).astype(np.float32)
    batch = Batch(Sequences(tokens, positions, valid.astype(np.int32), mask), weights, mask.astype(np.float32))
    groups = plan_bins(batch, Reinforce(), length)
    return pack(batch, groups, max(rows, len(groups)), length)


def pretrain(
    corpus: Corpus, *, layers: int, width: int, steps: int, rows: int, learning_rate: float, seed: int
) -> tuple[Decoder, Params, Any]:
    """Trains the base model by maximum likelihood; prints the loss every 100 steps.

    Args:
        corpus: where the documents come from.
        layers: layers of the model, at least 1.
        width: its hidden size, a multiple of 32.
        steps: train steps, at least 1.
        rows: about how many packed rows of documents a step has, at least 1.
        learning_rate: the peak of a one-cycle schedule.
        seed: decides the initial parameters and the documents.

    Returns:
        (the model, its parameters, its tokenizer).

    Raises:
        ValueError: `layers`, `width`, `steps` or `rows` is outside these ranges.
    """
    if min(layers, steps, rows) < 1:
        raise ValueError(f"There must be at least 1 layer, step and row; got {layers}, {steps} and {rows}.")
    if width < 32 or width % 32:
        raise ValueError(f"The width must be a multiple of 32, so that two query heads of 16 share a key; got {width}.")
    tokenizer = make_tokenizer()
    model = Decoder(architecture(len(tokenizer), layers, width))
    tx = optax.adamw(optax.cosine_onecycle_schedule(steps, learning_rate, 0.1), weight_decay=0.01)
    state = init_state(model.init(jax.random.key(seed)), tx, jax.random.key(seed))
    step = jax.jit(make_train_step(model, tx, Reinforce()), donate_argnums=0)
    rng = np.random.default_rng(seed)
    start = time.time()
    for i in range(1, steps + 1):
        state, metrics = step(state, jax.tree.map(jnp.asarray, corpus_batch(corpus, tokenizer, rng, rows)))
        if i % 100 == 0 or i == steps:
            print(f"step {i:5d}/{steps}  loss {metrics['train/loss']:.4f}  {time.time() - start:.0f} s", flush=True)
    return model, state.params, tokenizer


def main(argv: list[str] | None = None) -> int:
    """Runs the command line, see the module's docstring.

    Args:
        argv: the arguments; by default those of the process.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m prerl_jax.lab", description="Pre-train the lab's base model.")
    parser.add_argument("out", type=Path, help="folder to write, in Hugging Face format")
    parser.add_argument("--digits", type=int, default=2, help="digits of the numbers that are added")
    parser.add_argument("--wrong", type=float, default=0.3, help="share of wrong steps in the corpus")
    parser.add_argument("--reflect", type=float, default=0.15, help="share of wrong steps that are corrected")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=96, help="packed rows of documents a step")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    try:
        require_empty(args.out)  # an error here comes before minutes of training
        model, params, tokenizer = pretrain(
            Corpus(args.digits, args.wrong, args.reflect),
            layers=args.layers,
            width=args.width,
            steps=args.steps,
            rows=args.rows,
            learning_rate=args.learning_rate,
            seed=args.seed,
        )
        save_hf(args.out, model, params, tokenizer)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {sum(p.size for p in jax.tree.leaves(params)):,} parameters to {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
