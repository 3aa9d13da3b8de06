"""The programs that `tpu_compile.py` compiles: how each is lowered for a mesh, and the fewest FLOPs it needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

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
    make_score,
    make_train_step,
)
from prerl_jax.core.logprobs import chunk_length
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.flops import causal_pairs, forward_flops
from prerl_jax.models.layers import DecoderConfig
from prerl_jax.rollout.continuous import ContinuousBatching
from prerl_jax.runtime.mesh import batch_sharding, batch_shards
from prerl_jax.runtime.state import abstract_state, bytes_per_device

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
"""Any token ids: the programs are the same."""
FORWARDS = {"none": (3.0, 3.5), "dots": (3.0, 4.5), "attention": (4.0, 3.5), "full": (4.0, 4.5)}
"""By remat policy: the cost of a forward and a backward pass in forward passes, (layers' matrix products, attention).

A backward pass costs two forward passes; for attention two and a half, since its scores are computed again."""
UNEMBEDDINGS = 3.0
"""The same for the unembedding, whose gradient is computed while its logits are there."""


@dataclasses.dataclass(frozen=True)
class Shapes:
    """The sizes of a step.

    Attributes:
      prompts: prompts of a step.
      group: responses to a prompt.
      prompt: tokens of a prompt.
      response: tokens of a response.
      microbatch: rows that are computed at once.
      slots: rows that are sampled at once.
      aligned: rows whose alignment is measured, in microbatches, too.
    """

    prompts: int
    group: int
    prompt: int
    response: int
    microbatch: int
    slots: int
    aligned: int

    @property
    def rows(self) -> int:
        return self.prompts * self.group

    @classmethod
    def paper(cls, mesh: Mesh) -> Shapes:
        return cls(128, 8, 1024, 8192, microbatch=batch_shards(mesh), slots=128, aligned=256)

    @classmethod
    def small(cls, mesh: Mesh) -> Shapes:
        return cls(8, 4, 128, 384, microbatch=2 * batch_shards(mesh), slots=16, aligned=16)


@dataclasses.dataclass(frozen=True)
class Program:
    """One program.

    Attributes:
      name: its name in the table.
      compile: compiles it.
      flops: FLOPs on a device of its matrix products and causal attention, under the model's remat policy.
      note: its sizes, for the table.
      beside: bytes on a device that a run holds at the same time, and that are no arguments of the program.
    """

    name: str
    compile: Callable[[], jax.stages.Compiled]
    flops: float
    note: str
    beside: int = 0


def programs(model: Decoder, shapes: Shapes) -> Iterator[Program]:
    """Continuous batching's prefill, decode chunks and longer rings, score, both phases' steps, the dual program."""
    pre, post = dsrl(warmup=1, total=2, prefix=PREFIX)
    inside = shapes.prompt + shapes.response
    yield from _sampling(model, shapes)
    yield _score(model, shapes.microbatch, inside)
    for name, phase, length in (("nsr_prerl_step", pre, 1 + shapes.response), ("rl_step", post, inside)):
        yield _step(model, shapes, name, phase, length)
    yield _dual(model, shapes, pre, post)


def _arrays(mesh: Mesh, rows: int):
    """A function that makes abstract arrays of `rows` rows, split over the mesh."""
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
        lambda: jax.jit(step, donate_argnums=0, out_shardings=out).lower(state, batch).compile(),
        _training(model, rows, length) / mesh.size,
        f"{rows} rows x {length} tokens in {microbatches} microbatches",
    )


def _score(model: Decoder, rows: int, length: int) -> Program:
    score = jax.jit(make_score(model, chunk=_chunk(model, rows, length)))
    sequences = _sequences(model.mesh, rows, length)
    flops = sum(_parts(model, rows, length)) / model.mesh.size
    beside = _state_bytes(model) - bytes_per_device(model.abstract_params())
    note = f"{rows} rows x {length} tokens"
    return Program("score", lambda: score.lower(model.abstract_params(), sequences).compile(), flops, note, beside)


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
    parts = rows // shapes.microbatch
    chunk = _chunk(model, shapes.microbatch, inside)
    dual = make_dual_gradients(model, pre, post, shapes.group, chunk=chunk, microbatches=parts)
    metrics = jax.jit(lambda params, rollouts: dual(params, rollouts)[2])  # as in a run: only numbers come out
    flops = (_training(model, rows, inside) + _training(model, rows, 1 + shapes.response)) / mesh.size
    params, note = model.abstract_params(), f"{rows} rows in both spaces in {parts} microbatches"
    beside = _state_bytes(model) - bytes_per_device(params)
    return Program("dual", lambda: metrics.lower(params, rollouts).compile(), flops, note, beside)


def _state_bytes(model: Decoder) -> int:
    """Bytes of the train state on a device."""
    return bytes_per_device(abstract_state(model.abstract_params(), adamw(1e-6), model.mesh))


def _sampling(model: Decoder, shapes: Shapes) -> Iterator[Program]:
    """All programs for all slots. A decode chunk's FLOPs are those of full rows between its ring and the one before."""
    c, mesh, array = model.config, model.mesh, _arrays(model.mesh, shapes.prompts)
    prompts = Prompts(array(jnp.int32, shapes.prompt), array(bool, shapes.prompt), array(jnp.int32))
    key = jax.ShapeDtypeStruct((2,), jnp.uint32, sharding=NamedSharding(mesh, PartitionSpec()))
    batching = ContinuousBatching(slots=shapes.slots, shrink=())
    engine = batching.make(model, SamplerConfig(shapes.response, stop_tokens=(STOP,)), shapes.group)
    found, made = {}, engine.compile(model.abstract_params(), prompts, key)

    def compiled(name: str) -> jax.stages.Compiled:
        while name not in found:
            found.update([next(made)])
        return found[name]

    state = _state_bytes(model)
    asked, prompt = shapes.prompts, shapes.prompt
    flops = forward_flops(c, asked * prompt, asked * causal_pairs([prompt]), 0)
    prefill = f"{asked} prompts of {prompt} tokens"
    yield Program(
        "prefill",
        lambda: compiled("prefill"),
        flops / mesh.size,
        prefill,
        state - bytes_per_device(model.abstract_params()),
    )
    before = 0
    for columns in engine.rings:
        tokens = shapes.slots * batching.chunk
        flops = forward_flops(c, tokens, tokens * (prompt + (before + columns + 1) / 2), tokens)
        note = f"{shapes.slots} slots, {batching.chunk} tokens a chunk, a ring of {columns}"
        for kind, count in (("longer_ring", 0), ("decode_chunk", flops / mesh.size)):
            name = f"{kind}/{columns}"
            if count or before:
                yield Program(name, lambda name=name: compiled(name), count, note, state)
        before = columns
