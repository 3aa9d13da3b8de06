"""Tokens per second of one training step: ours beside transformers on PyTorch, and beside Tunix.

    python benchmarks/train_step.py [--quick] [--cases smollm2 lab] [--threads 2] [--repetitions 5]

All contenders of a case have the same weights and the same batch, in float32. A step is the forward pass, a weighted
log-probability loss, the backward pass, clipping to a global norm, and AdamW. PyTorch runs the model that we saved for
it, with its scaled-dot-product attention, fused cross-entropy and fused AdamW, uncompiled, as its users do. Tunix has
no Llama of SmolLM2's shape, so both run a Qwen3 of that shape: Tunix's own Qwen3, GRPO loss and trainer step, with the
trainer's jit, the current log-probabilities as the old ones, and no KL term. The process keeps the memory that is
freed, as our runs do (`runtime/memory.py`); this speeds up PyTorch and Tunix, too. `tunix_as_installed` is Tunix as its
users run it, in a process of its own with the default allocator.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import models
import numpy as np
from apart import apart, serve
from timing import Row, interleaved, report

import prerl_jax as pj
from prerl_jax.core.types import Batch, Params
from prerl_jax.models.layers import DecoderConfig
from prerl_jax.runtime.memory import keep_freed_memory

RATE, DECAY, CLIP = 1e-6, 0.01, 1.0
TARGETS = {"pytorch": ">= 1.0", "tunix": ">= 1.5", "tunix_as_installed": ">= 1.5"}


@dataclasses.dataclass(frozen=True)
class Case:
    """One model and one shape of batch."""

    name: str
    load: Callable[[], tuple[DecoderConfig, Params]]
    qwen3: Callable[[], DecoderConfig]
    rows: int
    length: int
    warmup: int


def _random(config: DecoderConfig) -> Callable[[], tuple[DecoderConfig, Params]]:
    return lambda: (config, models.random_params(config))


CASES = {
    "smollm2": Case("smollm2", models.smollm2, models.smollm2_as_qwen3, 8, 256, warmup=3),
    "lab": Case("lab", _random(models.LAB), lambda: models.LAB, 128, 62, warmup=4),
    "tiny": Case("tiny", _random(models.TINY), lambda: models.TINY, 4, 16, warmup=1),
}


def ours(config: DecoderConfig, params: Params, batch: Batch) -> Callable[[], object]:
    """A function that runs one step; the state is donated."""
    tx = pj.adamw(RATE, weight_decay=DECAY, max_grad_norm=CLIP)
    step = jax.jit(pj.make_train_step(models.trained(config), tx, pj.ClippedPG()), donate_argnums=0)
    box = [pj.init_state(jax.tree.map(jnp.array, params), tx, jax.random.key(0))]

    def call():
        box[0], metrics = step(box[0], batch)
        return metrics

    return call


def pytorch(config: DecoderConfig, params: Params, batch: Batch, threads: int) -> Callable[[], object]:
    """transformers' model and PyTorch's AdamW."""
    import torch

    model = models.torch_twin(config, params, threads)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=DECAY, fused=True)
    tokens = torch.from_numpy(np.array(batch.sequences.tokens)).long()
    weights = torch.from_numpy(np.array(batch.weights * batch.advantages))[:, 1:]

    def call():
        logits = model(tokens, use_cache=False).logits[:, :-1]
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
        (losses * weights.flatten()).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()

    return call


def tunix(config: DecoderConfig, params: Params, batch: Batch) -> Callable[[], object]:
    """Tunix's Qwen3 with its GRPO loss in its trainer's step; the first token of a row is its prompt."""
    import tunix_peer

    return tunix_peer.grpo_step(config, params, batch, rate=RATE, decay=DECAY, clip=CLIP)


def begin(case: Case, peer: str, threads: int) -> Callable[[], object]:
    """A function that runs one step of the peer on this case."""
    config, params = case.load() if peer == "pytorch" else _as_qwen3(case)
    batch = models.dense_batch(config, case.rows, case.length)
    return pytorch(config, params, batch, threads) if peer == "pytorch" else tunix(config, params, batch)


def _as_qwen3(case: Case) -> tuple[DecoderConfig, Params]:
    config = case.qwen3()
    return config, models.random_params(config)


def against(case: Case, peer: str, options: argparse.Namespace) -> Row:
    """The row: our tokens per second over the peer's."""
    name = f"train_step/{case.name}/{peer}"
    with contextlib.ExitStack() as stack:
        try:
            if peer == "tunix_as_installed":
                import tunix_peer  # noqa: F401  is it there?

                theirs = stack.enter_context(apart(__file__, "--serve", case.name))
            else:
                theirs = begin(case, peer, options.threads)
        except ImportError as error:
            return Row(name, None, TARGETS[peer], f"not measured: {error}")
        config, params = case.load() if peer == "pytorch" else _as_qwen3(case)
        batch = models.dense_batch(config, case.rows, case.length)
        work = {"ours": ours(config, params, batch), peer: theirs}
        seconds = interleaved(work, options.repetitions, case.warmup)
    rates = {who: case.rows * case.length / value for who, value in seconds.items()}
    figures = ", ".join(f"{who} {rate:,.0f} tokens/s" for who, rate in rates.items())
    return Row(name, rates["ours"] / rates[peer], TARGETS[peer], f"{case.rows} x {case.length}: {figures}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tiny model alone, once")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["smollm2", "lab"])
    parser.add_argument("--peers", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch; XLA takes the cores of the process")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--serve", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(begin(CASES[options.serve], "tunix", options.threads))
        return
    if options.quick:
        options.cases, options.repetitions = ["tiny"], 1
    keep_freed_memory()  # of the peers, too
    report(against(CASES[case], peer, options) for case in options.cases for peer in options.peers)


if __name__ == "__main__":
    main()
