"""A train step beside what this machine can do: its share of the matmul rate that XLA reaches here.

    python benchmarks/roofline.py [--quick] [--repetitions 5]

The machine is measured in the same rounds: the multiply-adds of a large float32 product in XLA, and the bytes of a sum
of two large arrays (two read, one written). The FLOPs of a train step are the model's (`models/flops.py`): matrices,
attention on and below the diagonal, and unembedding, the forward pass once and the backward pass as two forward passes.
Softmax, norms and AdamW count as no FLOPs, but their time is in the step.
"""

from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp
import models
import numpy as np
from timing import Row, interleaved, report
from train_step import CASES, ours

from prerl_jax.models.flops import training_flops
from prerl_jax.runtime.memory import keep_freed_memory

SIDES, ELEMENTS = (512, 1024, 2048), 1 << 26
"""The best rate of these sizes counts. Larger products were slower."""
QUICK_SIDES, QUICK_ELEMENTS = (128,), 1 << 20


def matmul(side: int):
    """(a product of two square matrices, its FLOPs)."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(side, side)), jnp.float32)
    product = jax.jit(jnp.matmul)
    return lambda: product(x, x), 2.0 * side**3


def stream(elements: int):
    """(a sum of two arrays, the bytes that it moves)."""
    a, b = jnp.ones(elements, jnp.float32), jnp.zeros(elements, jnp.float32)
    add = jax.jit(jnp.add)
    return lambda: add(a, b), 12.0 * elements


def train(name: str):
    """(a train step of `train_step.py`, its FLOPs, its tokens)."""
    case = CASES[name]
    config, params = case.load()
    batch = models.dense_batch(config, case.rows, case.length)
    lengths = np.full(case.rows, case.length)
    flops = training_flops(config, lengths, float(batch.sequences.mask.sum()))
    return ours(config, params, batch), flops, case.rows * case.length


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small arrays and a tiny model, once")
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    keep_freed_memory()
    case, repetitions = ("tiny", 1) if options.quick else ("smollm2", options.repetitions)
    products = {f"matmul {side}": matmul(side) for side in (QUICK_SIDES if options.quick else SIDES)}
    add, moved = stream(QUICK_ELEMENTS if options.quick else ELEMENTS)
    step, step_flops, tokens = train(case)
    work = {name: call for name, (call, _) in products.items()} | {"stream": add, "train": step}
    seconds = interleaved(work, repetitions, CASES[case].warmup)
    rate = max(flops / seconds[name] for name, (_, flops) in products.items())
    bandwidth, train_seconds = moved / seconds["stream"], seconds["train"]
    print(f"\nthis machine: {rate / 1e9:.0f} GFLOP/s (float32 matmul), {bandwidth / 1e9:.1f} GB/s")
    reached = step_flops / train_seconds
    note = f"{reached / 1e9:.0f} of {rate / 1e9:.0f} GFLOP/s, {tokens / train_seconds:,.0f} tokens/s"
    report([Row(f"roofline/train/{case}", reached / rate, ">= 0.6", note)])


if __name__ == "__main__":
    main()
