"""How time grows with batch, group size, length, vocabulary and layers, beside the growth of the arithmetic.

    python benchmarks/scaling.py [--quick] [--programs train sample dual] [--axes batch length ...] [--repetitions 7]

Each axis is doubled twice from the sizes of one small model, with all else equal. The ratio is that of the last
doubling: the growth of the time over the growth of the model's FLOPs (`models/flops.py`: what the mathematics needs,
with causal attention counted half). Above 1, the time grows faster than the arithmetic. Below 1, something else takes
time at the smaller size. The sizes of an axis are timed in turns. The figures give both exponents, log2 of the growth.

compile: the seconds to trace and compile 16 layers over those for 4, with the layers in a loop, as they are from 9
layers on.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import models
import numpy as np
from timing import Row, interleaved, report

import prerl_jax as pj
from prerl_jax.models import flops
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.layers import DecoderConfig
from prerl_jax.runtime.memory import keep_freed_memory

BOUND = "<= 1.15"
PRE, POST = pj.nsr_prerl(steps=1, prefix=0)[0], pj.grpo(steps=1)[0]
DEPTHS = (2, 4, 8, 16)


@dataclasses.dataclass(frozen=True)
class Size:
    """The sizes of a model and its batch.

    Attributes:
      batch: prompts.
      group: responses to each prompt.
      length: tokens of a row; the prompt has a quarter of them.
      vocabulary: token ids.
      layers: layers of the model.
    """

    batch: int = 4
    group: int = 8
    length: int = 64
    vocabulary: int = 2048
    layers: int = 2

    @property
    def rows(self) -> int:
        return self.batch * self.group

    @property
    def prompt(self) -> int:
        return self.length // 4

    @property
    def response(self) -> int:
        return self.length - self.prompt

    @property
    def config(self) -> DecoderConfig:
        return dataclasses.replace(models.LAB, vocab_size=self.vocabulary, num_layers=self.layers)


AXES = tuple(field.name for field in dataclasses.fields(Size))
SMALL = Size(batch=2, group=2, length=16, vocabulary=64, layers=1)
"""For --quick."""


def train(size: Size, model: Decoder) -> tuple[Callable, tuple]:
    """(a train step that does not donate its state, its arguments)."""
    tx = pj.adamw(1e-6)
    state = pj.init_state(model.init(jax.random.key(0)), tx, jax.random.key(0))
    batch = models.dense_batch(size.config, size.rows, size.length)
    return pj.make_train_step(model, tx, pj.ClippedPG()), (state, batch)


def sample(size: Size, model: Decoder) -> tuple[Callable, tuple]:
    """(the sampler, without stop tokens, its arguments)."""
    prompts = models.random_prompts(size.config, size.batch, size.prompt)
    sampler = pj.make_sampler(model, pj.SamplerConfig(size.response), size.group)
    return sampler, (model.init(jax.random.key(0)), prompts, jax.random.key(0))


def dual(size: Size, model: Decoder) -> tuple[Callable, tuple]:
    """(both spaces' gradients and their alignment, its arguments)."""
    rollouts = models.random_rollouts(size.config, size.batch, size.group, size.prompt, size.response)
    return pj.make_dual_gradients(model, PRE, POST, size.group), (model.init(jax.random.key(0)), rollouts)


def arithmetic(program: Callable, size: Size) -> float:
    """The model's FLOPs of one call."""
    whole, response = np.full(size.rows, size.length), np.full(size.rows, size.response)
    if program is sample:
        return flops.sampling_flops(size.config, whole - response, response, size.group)
    post = flops.training_flops(size.config, whole, float(response.sum()))
    if program is dual:
        return post + flops.training_flops(size.config, response + 1, float(response.sum()))
    return flops.training_flops(size.config, whole, float((whole - 1).sum()))


@functools.cache
def compiled(program: Callable, size: Size) -> Callable[[], object]:
    """A function that runs the compiled program once. Sizes that several axes share are compiled once."""
    function, arguments = program(size, Decoder(size.config))
    run = jax.jit(function).lower(*arguments).compile()
    return lambda: run(*arguments)


def growth(program: Callable, axis: str, base: Size, repetitions: int) -> Row:
    """The growth of the time over that of the arithmetic, from the second largest to the largest size of an axis."""
    sizes = [dataclasses.replace(base, **{axis: getattr(base, axis) * factor}) for factor in (1, 2, 4)]
    calls = {str(getattr(size, axis)): compiled(program, size) for size in sizes}
    seconds = interleaved(calls, repetitions)
    asked = [arithmetic(program, size) for size in sizes]
    took, grew = list(seconds.values())[-1] / list(seconds.values())[-2], asked[-1] / asked[-2]
    times = ", ".join(f"{value}: {s * 1e3:.1f} ms" for value, s in seconds.items())
    note = f"{times}; exponent {math.log2(took):.2f}, of the arithmetic {math.log2(grew):.2f}"
    return Row(f"scaling/{program.__name__}/{axis}", took / grew, BOUND, note)


def compile_seconds(program: Callable, size: Size) -> float:
    """Seconds to trace and compile with the layers in a loop."""
    model = Decoder(size.config, unroll=False, unroll_decode=False)
    function, arguments = program(size, model)
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), arguments)
    jax.clear_caches()
    start = time.perf_counter()
    jax.jit(function).lower(*abstract).compile()
    return time.perf_counter() - start


def compile_growth(program: Callable, base: Size, repetitions: int) -> Row:
    """The row: compile seconds at 16 layers over those at 4; the fastest of a few counts."""
    best = dict.fromkeys(DEPTHS, math.inf)
    for _, depth in itertools.product(range(repetitions), DEPTHS):
        best[depth] = min(best[depth], compile_seconds(program, dataclasses.replace(base, layers=depth)))
    times = ", ".join(f"{depth}: {seconds:.2f} s" for depth, seconds in best.items())
    return Row(f"scaling/{program.__name__}/compile", best[16] / best[4], BOUND, f"layers {times}")


def main() -> None:
    programs = {program.__name__: program for program in (train, sample, dual)}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes, once; one program compiled by layers")
    parser.add_argument("--programs", nargs="+", choices=programs, default=list(programs))
    parser.add_argument("--axes", nargs="+", choices=(*AXES, "compile"), default=[*AXES, "compile"])
    parser.add_argument("--repetitions", type=int, default=7)
    options = parser.parse_args()
    base, repetitions = (SMALL, 1) if options.quick else (Size(), options.repetitions)
    keep_freed_memory()
    jax.config.update("jax_enable_compilation_cache", False)
    report(
        growth(programs[name], axis, base, repetitions)
        if axis in AXES
        else compile_growth(programs[name], base, 1 if options.quick else 2)
        for name in options.programs
        for axis in options.axes
    )


if __name__ == "__main__":
    main()
