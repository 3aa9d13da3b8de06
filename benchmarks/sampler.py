"""Sampled tokens per second: ours beside transformers' `generate` (PyTorch) and Tunix's sampler.

    python benchmarks/sampler.py [--quick] [--cases smollm2 lab skewed_32 ...] [--peers pytorch tunix] [--threads 2]

All have the same weights and prompts, in float32, and sample at temperature 1 from the whole vocabulary. Each prompt
gets eight samples; the peers get each prompt eight times. `generate` keeps its cache, and stops when every row has
stopped. Tunix has no Llama of SmolLM2's shape, so both run a Qwen3 of that shape with random weights.

Skewed lengths come from stop tokens. With random weights all tokens are about equally likely, so V / m stop tokens end
a row after m tokens on average, with a geometric distribution. The tokens of each contender are counted, stop tokens
included. For skewed lengths ours is continuous batching; else it is `make_sampler`, whose one program is as fast.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Callable

import jax
import models
import numpy as np
from timing import Row, interleaved, report

import prerl_jax as pj
from prerl_jax.core.types import Params
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.layers import DecoderConfig
from prerl_jax.runtime.memory import keep_freed_memory

GROUP = 8
Call = Callable[[], int]


@dataclasses.dataclass(frozen=True)
class Case:
    """One model and the sizes of its sampling.

    Attributes:
      load: returns the architecture and the parameters.
      qwen3: returns the architecture that Tunix runs.
      rows: responses, eight to a prompt.
      prompt: tokens of a prompt.
      new: the most tokens of a response.
      mean: mean tokens of a response before it is cut; None for no stop tokens.
    """

    load: Callable[[], tuple[DecoderConfig, Params]]
    qwen3: Callable[[], DecoderConfig]
    rows: int
    prompt: int
    new: int
    mean: int | None = None


def _random(config: DecoderConfig) -> Callable[[], tuple[DecoderConfig, Params]]:
    return lambda: (config, models.random_params(config))


def _lab(rows: int, new: int, mean: int | None = None) -> Case:
    return Case(_random(models.LAB), lambda: models.LAB, rows, 8, new, mean)


CASES = {
    "smollm2": Case(models.smollm2, models.smollm2_as_qwen3, 64, 128, 32),
    "lab": _lab(256, 54),
    "skewed_32": _lab(32, 256, 48),
    "skewed_128": _lab(128, 256, 48),
    "skewed_256": _lab(256, 256, 48),
    "tiny": Case(_random(models.TINY), lambda: models.TINY, 16, 4, 12, 4),
}


def stop_tokens(case: Case, config: DecoderConfig) -> tuple[int, ...]:
    """As many stop tokens as end a row after `case.mean` tokens on average."""
    return () if case.mean is None else tuple(range(3, 3 + round(config.vocab_size / case.mean)))


def ours(case: Case, config: DecoderConfig, params: Params, continuous: bool) -> Call:
    """One call samples all rows: by continuous batching with a run's default numbers, or by `make_sampler`."""
    settings = pj.SamplerConfig(case.new, stop_tokens=stop_tokens(case, config))
    model, prompts = Decoder(config), models.random_prompts(config, case.rows // GROUP, case.prompt)
    seeds = itertools.count()
    if continuous:
        engine = pj.ContinuousBatching().make(model, settings, GROUP)
        return lambda: int(engine.sample(params, prompts, jax.random.key(next(seeds))).rollouts.response_mask.sum())
    sample = pj.make_sampler(model, settings, GROUP)
    return lambda: int(np.asarray(sample(params, prompts, jax.random.key(next(seeds))).response_mask).sum())


def _repeated(case: Case, config: DecoderConfig) -> np.ndarray:
    prompts = models.random_prompts(config, case.rows // GROUP, case.prompt)
    return np.repeat(np.asarray(prompts.prompt), GROUP, axis=0)


def pytorch(case: Case, config: DecoderConfig, params: Params, threads: int) -> Call:
    """transformers' generate."""
    import torch

    model = models.torch_twin(config, params, threads).eval()
    tokens, stop = torch.from_numpy(_repeated(case, config)).long(), list(stop_tokens(case, config))
    settings = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": case.new}
    model.generation_config.eos_token_id = None
    torch.manual_seed(0)

    def call() -> int:
        with torch.inference_mode():
            said = model.generate(
                tokens, attention_mask=torch.ones_like(tokens), eos_token_id=stop or None, pad_token_id=0, **settings
            )[:, case.prompt :]
        ends = torch.isin(said, torch.tensor(stop, dtype=torch.long))
        return int((ends.cumsum(1) - ends.long() == 0).sum())

    return call


def tunix(case: Case, config: DecoderConfig, params: Params) -> Call:
    """Tunix's vanilla sampler."""
    import tunix_peer

    return tunix_peer.generate(config, params, _repeated(case, config), case.new, stop_tokens(case, config))


def rates(calls: dict[str, Call], repetitions: int) -> dict[str, float]:
    """Tokens per second of each: the tokens of all repetitions, over the median time times their number."""
    tokens: dict[str, list[int]] = {name: [] for name in calls}

    def counted(name: str, call: Call) -> Callable[[], None]:
        return lambda: tokens[name].append(call())

    seconds = interleaved({name: counted(name, call) for name, call in calls.items()}, repetitions, warmup=2)
    return {name: float(np.mean(tokens[name][2:])) / seconds[name] for name in calls}


def against(name: str, case: Case, peer: str, options: argparse.Namespace) -> Row:
    """The row: our tokens per second over the peer's."""
    what = f"sampler/{name}/{peer}"
    if peer == "tunix":
        config = case.qwen3()
        params = models.random_params(config)
    else:
        config, params = case.load()
    continuous = case.mean is not None
    try:
        make = {"pytorch": lambda: pytorch(case, config, params, options.threads)}
        make["tunix"] = lambda: tunix(case, config, params)
        make["sampler"] = lambda: ours(case, config, params, continuous=False)
        calls = {"ours": ours(case, config, params, continuous), peer: make[peer]()}
    except ImportError as error:
        return Row(what, None, ">= 2.0", f"not measured: {error}")
    found = rates(calls, options.repetitions)
    figures = ", ".join(f"{who} {rate:,.0f} tokens/s" for who, rate in found.items())
    target = "" if peer == "sampler" else ">= 2.0"
    return Row(what, found["ours"] / found[peer], target, f"{case.rows} x ({case.prompt} + {case.new}): {figures}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tiny model alone, once")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=[name for name in CASES if name != "tiny"])
    parser.add_argument("--peers", nargs="+", choices=("pytorch", "tunix"), default=["pytorch", "tunix"])
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch; XLA takes the cores of the process")
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    if options.quick:
        options.cases, options.repetitions = ["tiny"], 1
    keep_freed_memory()  # of the peers, too
    cases = {name: CASES[name] for name in options.cases}
    peers = {name: (*options.peers, *(["sampler"] if case.mean else [])) for name, case in cases.items()}
    report(against(name, case, peer, options) for name, case in cases.items() for peer in peers[name])


if __name__ == "__main__":
    main()
