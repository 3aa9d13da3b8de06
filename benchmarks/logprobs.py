"""Log-probabilities over a vocabulary of 151,936: chunked, and fused with the loss, beside all logits at once.

    python benchmarks/logprobs.py [--quick] [--rows 4] [--length 513] [--width 128] [--repetitions 5]

Three programs compute the policy gradient with respect to the hidden states and the unembedding. The plain program
holds all logits. The general score computes them in chunks, and again in its backward pass. The fused loss computes
them once. Reported are the time, what each program allocates besides its arguments and results (`memory_analysis`), and
the largest array over the vocabulary in the compiled text, to see whether there is an array of all logits such as [B,
T, V].
"""

from __future__ import annotations

import argparse
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
from timing import Row, interleaved, report

from prerl_jax import Head, token_logprobs
from prerl_jax.core.fused import fused_loss
from prerl_jax.runtime.memory import keep_freed_memory


def plain(hidden, unembedding, tokens, weights):
    """The loss from all logits at once."""
    states = hidden[:, :-1]  # as a matrix: XLA:CPU is fastest with it
    logits = (states.reshape(-1, states.shape[-1]) @ unembedding).reshape(*states.shape[:2], -1)
    chosen = jnp.take_along_axis(logits, tokens[:, 1:, None], axis=-1)[..., 0]
    return jnp.sum(weights[:, 1:] * (chosen - jax.nn.logsumexp(logits, axis=-1)))


def general(hidden, unembedding, tokens, weights):
    """The loss from chunked log-probabilities, of which any function may be taken."""
    return jnp.sum(weights * token_logprobs(hidden, Head(unembedding), tokens)[0])


def fused(hidden, unembedding, tokens, weights):
    """The fused loss, for an objective that is elementwise."""

    def terms(logprobs, entropy, weights):
        return (weights * logprobs,), {}

    return fused_loss(terms, hidden, Head(unembedding), tokens, weights)[0]


def largest_over_vocabulary(text: str, vocab: int) -> int:
    """Elements of the largest array with a dimension of the vocabulary's size in the text of a compiled program."""
    shapes = {tuple(map(int, s.split(","))) for s in re.findall(r"\b(?:f32|bf16|s32|pred)\[([\d,]+)\]", text)}
    return max(math.prod(shape) for shape in shapes if vocab in shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=513)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--vocab", type=int, default=151_936)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    if options.quick:
        options.rows, options.length, options.width, options.repetitions = 2, 257, 16, 1
    keep_freed_memory()
    rng = np.random.default_rng(0)
    shape = (options.rows, options.length)
    hidden = jnp.asarray(rng.normal(size=(*shape, options.width)), jnp.float32)
    unembedding = jnp.asarray(0.02 * rng.normal(size=(options.width, options.vocab)), jnp.float32)
    tokens = jnp.asarray(rng.integers(0, options.vocab, shape), jnp.int32)
    args = (hidden, unembedding, tokens, jnp.asarray(rng.normal(size=shape), jnp.float32))
    programs = {
        f.__name__: jax.jit(jax.value_and_grad(f, argnums=(0, 1))).lower(*args).compile()
        for f in (plain, general, fused)
    }
    seconds = interleaved({n: lambda p=p: p(*args) for n, p in programs.items()}, options.repetitions)
    temporary = {name: p.memory_analysis().temp_size_in_bytes for name, p in programs.items()}
    whole = options.rows * (options.length - 1) * options.vocab
    rows = []
    for name, target in (("general", "<= 1.5"), ("fused", "<= 1.1")):
        times = f"{seconds[name] * 1e3:.0f} ms, plain {seconds['plain'] * 1e3:.0f} ms"
        rows.append(Row(f"logprobs/{name}/time", seconds[name] / seconds["plain"], target, times))
        sizes = f"{temporary[name] / 2**20:.0f} MiB, plain {temporary['plain'] / 2**20:.0f} MiB"
        rows.append(Row(f"logprobs/{name}/temporaries", temporary[name] / temporary["plain"], "<= 0.125", sizes))
        largest = largest_over_vocabulary(programs[name].as_text(), options.vocab)
        note = f"the largest array over the vocabulary, in arrays of all logits ({whole:,} elements)"
        rows.append(Row(f"logprobs/{name}/logits", largest / whole, "<= 0.5", note))
    report(rows)


if __name__ == "__main__":
    main()
