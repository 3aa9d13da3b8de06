"""Decoding beside what the machine can do: tokens per second over the bound of memory bandwidth or matmul rate.

    python benchmarks/roofline_decode.py [--quick] [--cases smollm2_8 smollm2_64 lab_256]

The matmul rate is measured with a product of large float32 matrices, the memory bandwidth with reading an array that no
cache holds. One decoding step of B rows needs at least its FLOPs at this rate, and at least the bytes of all weights
and of the filled part of the key-value cache at this bandwidth. The bound is the slower of the two. Decoding is
measured as the difference between sampling many tokens and sampling one, so prefill is not in it.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import models
from roofline import matmul
from timing import Row, interleaved, report

import prerl_jax as pj
from prerl_jax.core.types import Params
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.flops import forward_flops
from prerl_jax.models.layers import DecoderConfig
from prerl_jax.runtime.memory import keep_freed_memory

GROUP = 8


@dataclasses.dataclass(frozen=True)
class Case:
    """One model, and `rows` rows that are decoded at once."""

    load: Callable[[], tuple[DecoderConfig, Params]]
    rows: int
    prompt: int
    new: int


CASES = {
    "smollm2_8": Case(models.smollm2, 8, 16, 33),
    "smollm2_64": Case(models.smollm2, 64, 16, 17),
    "lab_256": Case(lambda: (models.LAB, models.random_params(models.LAB)), 256, 8, 55),
    "tiny": Case(lambda: (models.TINY, models.random_params(models.TINY)), 16, 4, 12),
}


def stream(megabytes: int) -> tuple[Callable[[], object], float]:
    """(the sum of an array along its first axis, the bytes that are read)."""
    array = jnp.ones((megabytes * 1024, 256))
    total = jax.jit(lambda a: a.sum(axis=0))
    return lambda: total(array), float(array.nbytes)


def bound(config: DecoderConfig, params: Params, case: Case, rate: float, read: float) -> tuple[float, str]:
    """(seconds of a decoding step of all rows, the name of the bound), at the mean position in a response."""
    held = case.rows * case.new / 2
    pairs = held + case.rows * case.prompt
    flops = forward_flops(config, case.rows, pairs, case.rows)
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    width = config.num_layers * config.num_kv_heads * config.head_dim
    cache = 2 * 4 * width * (held + case.rows // GROUP * case.prompt)
    seconds = {"matmul": flops / rate, "bandwidth": (weights + cache) / read}
    binds = max(seconds, key=seconds.get)
    return seconds[binds], binds


def decode_rows(cases: list[str], repetitions: int = 5, quick: bool = False) -> Iterator[Row]:
    """One table row a case. The machine is measured in the same rounds, because its speed drifts."""
    (product, flops), (read, size) = matmul(256 if quick else 1536), stream(8 if quick else 512)
    for name in cases:
        case = CASES[name]
        config, params = case.load()
        prompts = models.random_prompts(config, case.rows // GROUP, case.prompt)

        def call(new: int, config=config, params=params, prompts=prompts) -> Callable[[], object]:
            sample = pj.make_sampler(Decoder(config), pj.SamplerConfig(new), GROUP)
            return lambda: sample(params, prompts, jax.random.key(0))

        work = {"all": call(case.new), "one": call(1), "product": product, "read": read}
        seconds = interleaved(work, repetitions)
        rate, bandwidth = flops / seconds["product"], size / seconds["read"]
        step = (seconds["all"] - seconds["one"]) / (case.new - 1)
        least, binds = bound(config, params, case, rate, bandwidth)
        note = f"{case.rows / step:,.0f} of {case.rows / least:,.0f} tokens/s by {binds}"
        machine = f"{rate / 1e9:,.0f} GFLOP/s, {bandwidth / 1e9:,.1f} GB/s"
        yield Row(f"roofline/decode/{name}", least / step, ">= 0.6", f"{note} ({machine})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tiny model alone, once")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=[name for name in CASES if name != "tiny"])
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    keep_freed_memory()
    if options.quick:
        options.cases, options.repetitions = ["tiny"], 1
    report(decode_rows(options.cases, options.repetitions, options.quick))


if __name__ == "__main__":
    main()
