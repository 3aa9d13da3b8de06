"""The programs that `tpu_compile.py` compiles: how each is lowered for a mesh, and the FLOPs it cannot do without."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from prerl_jax import (
    Batch,
    Prompts,
    Rollouts,
    SamplerConfig,
    Sequences,
    adamw,
    dsrl,
    make_dual_gradients,
    make_sampler,
    make_score,
    make_train_step,
)
from prerl_jax.core.logprobs import chunk_length
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.flops import causal_pairs, forward_flops
from prerl_jax.models.layers import DecoderConfig
from prerl_jax.runtime.mesh import batch_sharding, batch_shards
from prerl_jax.runtime.state import abstract_state

MODELS = {
    "qwen3-4b": DecoderConfig(
        "qwen3", 151936, 2560, 9728, 36, 32, 8, 128, rope_theta=1e6, qk_norm=True, max_position_embeddings=40960
    ),
    "qwen3-8b": DecoderConfig(
        "qwen3", 151936, 4096, 12288, 36, 32, 8, 128, rope_theta=1e6, qk_norm=True, tied=False,
        max_position_embeddings=40960,
    ),
    "small": DecoderConfig("qwen3", 1024, 256, 512, 2, 4, 2, 64, qk_norm=True),
}  # fmt: skip
PREFIX, STOP = 1, 2
"""Which tokens these are changes nothing in a program."""
FORWARDS = {"none": (3.0, 3.5), "dots": (3.0, 4.5), "attention": (4.0, 3.5), "full": (4.0, 4.5)}
"""(layers' matrix products, attention) of a forward and a backward pass, in forward passes, by what is kept: a backward
pass is two forward passes, two and a half of attention, whose scores are computed anew."""
UNEMBEDDINGS = 3.0
"""The same of the unembedding, whose gradient is taken while its logits are there."""


@dataclasses.dataclass(frozen=True)
class Shapes:
    """The sizes of a step."""

    prompts: int
    group: int
    prompt: int
    response: int
    microbatch: int
    """Rows that are computed at once."""
    sampled: int
    """Rows that are sampled at once."""
    aligned: int
    """Rows of the dual program."""

    @property
    def rows(self) -> int:
        return self.prompts * self.group

    @classmethod
    def paper(cls, mesh: Mesh) -> Shapes:
        return cls(128, 8, 1024, 8192, microbatch=batch_shards(mesh), sampled=256, aligned=64)

    @classmethod
    def small(cls, mesh: Mesh) -> Shapes:
        return cls(8, 4, 128, 384, microbatch=2 * batch_shards(mesh), sampled=32, aligned=16)


@dataclasses.dataclass(frozen=True)
class Program:
    name: str
    lower: Callable[[], Any]
    """-> jax.stages.Lowered."""
    flops: float
    """FLOPs a device of its matrix products and causal attention under the model's remat policy."""
    note: str


def programs(model: Decoder, shapes: Shapes) -> Iterator[Program]:
    """Prefill, sampling as a whole (with its decode loop), score, the steps of both phases, the dual program."""
    pre, post = dsrl(warmup=1, total=2, prefix=PREFIX)
    inside = shapes.prompt + shapes.response
    yield _prefill(model, shapes)
    yield _sampling(model, shapes)
    yield _score(model, shapes.microbatch, inside)
    for name, phase, length in (("nsr_prerl_step", pre, 1 + shapes.response), ("rl_step", post, inside)):
        yield _step(model, shapes, name, phase, length)
    yield _dual(model, shapes, pre, post)


def _arrays(mesh: Mesh, rows: int):
    """A maker of arrays of so many rows, split over the mesh."""
    return lambda dtype, *shape: jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=batch_sharding(mesh))


def _sequences(mesh: Mesh, rows: int, length: int) -> Sequences:
    array = _arrays(mesh, rows)
    return Sequences(*(array(jnp.int32, length) for _ in range(3)), array(bool, length))


def _chunk(model: Decoder, rows: int, length: int) -> int:
    return chunk_length(rows, length, model.config.vocab_size, batch_shards(model.mesh))


def _parts(model: Decoder, rows: int, length: int) -> tuple[float, float, float]:
    """FLOPs of a forward pass on full rows: (the layers' matrix products, attention, the unembedding)."""
    c = model.config
    tokens, pairs = rows * length, rows * causal_pairs([length])
    return forward_flops(c, tokens, 0, 0), forward_flops(c, 0, pairs, 0), forward_flops(c, 0, 0, tokens)


def _training(model: Decoder, rows: int, length: int) -> float:
    factors = (*FORWARDS[model.remat], UNEMBEDDINGS)
    return sum(a * b for a, b in zip(factors, _parts(model, rows, length), strict=True))


def _step(model: Decoder, shapes: Shapes, name: str, phase, length: int) -> Program:
    mesh, rows, tx = model.mesh, shapes.rows, adamw(1e-6)
    microbatches = rows // shapes.microbatch
    array = _arrays(mesh, rows)
    floats = array(jnp.float32, length)
    batch = Batch(_sequences(mesh, rows, length), floats, floats, sampler_logprobs=floats)
    state = abstract_state(model.abstract_params(), tx, mesh)
    chunk = _chunk(model, shapes.microbatch, length)
    step = make_train_step(model, tx, phase.objective, microbatches=microbatches, chunk=chunk)
    out = (jax.tree.map(lambda s: s.sharding, state), None)
    return Program(
        name,
        lambda: jax.jit(step, donate_argnums=0, out_shardings=out).lower(state, batch),
        _training(model, rows, length) / mesh.size,
        f"{rows} rows x {length} tokens in {microbatches} microbatches",
    )


def _score(model: Decoder, rows: int, length: int) -> Program:
    score = jax.jit(make_score(model, chunk=_chunk(model, rows, length)))
    sequences = _sequences(model.mesh, rows, length)
    flops = sum(_parts(model, rows, length)) / model.mesh.size
    return Program(
        "score", lambda: score.lower(model.abstract_params(), sequences), flops, f"{rows} rows x {length} tokens"
    )


def _dual(model: Decoder, shapes: Shapes, pre, post) -> Program:
    mesh, rows, inside = model.mesh, shapes.aligned, shapes.prompt + shapes.response
    array = _arrays(mesh, rows)
    rollouts = Rollouts(
        array(jnp.int32, shapes.prompt),
        array(bool, shapes.prompt),
        array(jnp.int32, shapes.response),
        array(bool, shapes.response),
        array(jnp.float32),
        array(jnp.float32, shapes.response),
    )
    dual = make_dual_gradients(model, pre, post, shapes.group, chunk=_chunk(model, rows, inside))
    metrics = jax.jit(lambda params, rollouts: dual(params, rollouts)[2])  # as a run does: only numbers come out
    flops = _training(model, rows, inside) + _training(model, rows, 1 + shapes.response)
    note = f"{rows} rows in both spaces"
    return Program("dual", lambda: metrics.lower(model.abstract_params(), rollouts), flops / mesh.size, note)


def _prefill(model: Decoder, shapes: Shapes) -> Program:
    asked = shapes.sampled // shapes.group
    tokens = _arrays(model.mesh, asked)(jnp.int32, shapes.prompt)
    params = model.abstract_params(model.compute_dtype)  # as the sampler casts them
    prefill = jax.jit(lambda params, *x: model.init_cache(params, *x, shapes.group, shapes.response))
    flops = forward_flops(model.config, asked * shapes.prompt, asked * causal_pairs([shapes.prompt]), 0)
    note = f"{asked} prompts of {shapes.prompt} tokens, and the cache of {shapes.sampled} responses"
    return Program("prefill", lambda: prefill.lower(params, tokens, tokens, tokens), flops / model.mesh.size, note)


def _sampling(model: Decoder, shapes: Shapes) -> Program:
    c, mesh, rows, asked = model.config, model.mesh, shapes.sampled, shapes.sampled // shapes.group
    array = _arrays(mesh, asked)
    prompts = Prompts(array(jnp.int32, shapes.prompt), array(bool, shapes.prompt), array(jnp.int32))
    key = jax.ShapeDtypeStruct((2,), jnp.uint32, sharding=NamedSharding(mesh, PartitionSpec()))
    sample = make_sampler(model, SamplerConfig(shapes.response, stop_tokens=(STOP,)), shapes.group)
    tokens = rows * shapes.response
    pairs = asked * causal_pairs([shapes.prompt]) + rows * causal_pairs([shapes.response]) + tokens * shapes.prompt
    flops = forward_flops(c, asked * shapes.prompt + tokens, pairs, asked + tokens) / mesh.size
    note = f"{rows} rows of {asked} prompts, prefill and {shapes.response} tokens"
    return Program("sample", lambda: sample.lower(model.abstract_params(), prompts, key), flops, note)
