"""Looks for the fastest layout of a run that fits a slice, by a simple model of bytes, and no compiler.

The model counts what must be held and moved: parameters, moments and gradients; the copy of the weights and the cache
while decoding; the activations that a policy of rematerialisation keeps. Its times are the least that arithmetic,
memory and links allow. It ranks; the compiler then says what is true of the best. Chunks and rings are not searched.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from prerl_jax.config.optimizing import OptimizerSpec
from prerl_jax.config.schema import TrainConfig
from prerl_jax.models.decoder import Decoder
from prerl_jax.plan.abstract_setup import abstract_setup
from prerl_jax.plan.program import Lengths
from prerl_jax.plan.report import Rates
from prerl_jax.plan.topology import Slice
from prerl_jax.rollout.continuous import ContinuousBatching
from prerl_jax.rollout.layout import decode_mesh, on_decode_mesh
from prerl_jax.rollout.layout_choice import sum_bytes
from prerl_jax.rollout.plan import default_rings
from prerl_jax.rollout.sampler import SamplerConfig
from prerl_jax.runtime.mesh import MeshSpec, batch_shards
from prerl_jax.runtime.state import bytes_per_device
from prerl_jax.trainer.meshes import slice_count
from prerl_jax.trainer.setup import Setup

SPARE = 0.15
"""The share of memory that a candidate must leave free, for what the model does not count."""
KEPT = {"full": 1.0, "attention": 2.5, "dots": 12.0, "none": 24.0}
"""By remat policy: the activations that are kept, in arrays [tokens, hidden size] of each layer."""
FORWARDS = {"full": 4.0, "attention": 3.8, "dots": 3.2, "none": 3.0}
"""By remat policy: the arithmetic of a forward and a backward pass, in forward passes."""
TENSORS, DATA, REMATS = (1, 2, 4, 8), (1, 2, 4, 8), ("full", "attention", "dots", "none")
SLOTS = (1, 2, 4, 8, 16)
"""A call's responses over the slots."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A config, with what the model says of it.

    Attributes:
        config: the run.
        changes: what differs from the config that was given, as options of `--set`.
        peak: bytes of a device, at the most.
        seconds: of a step.
    """

    config: TrainConfig
    changes: tuple[str, ...]
    peak: float
    seconds: float


def ranked(config: TrainConfig, place: Slice, rates: Rates, lengths: Lengths, evaluated: int) -> list[Candidate]:
    """All candidates that fit by the model, the fastest first; of equally fast ones, that with more memory free.

    Only if none fits with the config's moments, they are stored in bfloat16, and then with the host.

    Args:
        config: the run.
        place: the devices.
        rates: of a device.
        lengths: assumed.
        evaluated: problems of an evaluation.

    Raises ValueError if none fits.
    """
    assert place.usable is not None
    room, smallest = (1 - SPARE) * place.usable, math.inf
    for optimizer in _optimizers(config.optimizer):
        found = []
        for tried in _candidates(dataclasses.replace(config, optimizer=optimizer), place.devices):
            try:
                setup = abstract_setup(tried, place.devices, evaluated)
                sizes = _Sizes.of(setup)
            except (ValueError, NotImplementedError):  # a mesh that does not divide the model or the batch
                continue
            for candidate in _variants(setup, sizes, config, rates, lengths):
                smallest = min(smallest, candidate.peak)
                if candidate.peak <= room:
                    found.append(candidate)
        if found:
            return sorted(found, key=lambda c: (round(c.seconds, 2), c.peak))
    raise ValueError(
        f"no mesh, number of slots, microbatches, remat or moments fit {place.name}: the least that a device needs is "
        f"{smallest / 2**30:.2f} GiB by the model of bytes, and {room / 2**30:.2f} GiB may be used. Take a larger "
        "slice or chips with more memory."
    )


def _optimizers(given: OptimizerSpec) -> dict[OptimizerSpec, None]:
    """The optimizer as it is, with moments in bfloat16, and with those in the host's memory."""
    smaller = dataclasses.replace(given, moments="bfloat16")
    return dict.fromkeys((given, smaller, dataclasses.replace(smaller, placement="host")))


def _candidates(config: TrainConfig, devices: Sequence[Any]) -> Iterator[TrainConfig]:
    """The config on each mesh, with as many microbatches as rows allow."""
    slices, rows = slice_count(devices), config.sampling.prompts_per_step * config.sampling.group_size
    each = len(devices) // slices
    for tensor, data in itertools.product(TENSORS, DATA):
        shards = len(devices) // tensor
        if each % (tensor * data) == 0 and rows % shards == 0:
            mesh = MeshSpec(data, each // (tensor * data), tensor, slices)
            yield dataclasses.replace(config, mesh=mesh, microbatches=rows // shards)


def _variants(setup: Setup, sizes: _Sizes, given: TrainConfig, rates: Rates, lengths: Lengths) -> Iterator[Candidate]:
    """A mesh with all slots and decode layouts, microbatches and policies."""
    sampled = [(each, _sampling(each, tensor, sizes.state, rates, lengths)) for each, tensor in _with_engines(setup)]
    trained = [(each, _training(each, sizes, rates, lengths)) for each in _with_parts(setup)]
    for (sampler, (held, drawing)), (trainer, (kept, training)) in itertools.product(sampled, trained):
        found = dataclasses.replace(trainer.config, sampling=sampler.config.sampling)
        yield Candidate(found, _changes(given, found), max(held, kept), drawing + training)


def _with_engines(setup: Setup) -> Iterator[tuple[Setup, int]]:
    """The setup with other numbers of slots, and of devices that share the weights while decoding: with that number."""
    config, shards = setup.config, batch_shards(setup.mesh)
    given, group = config.sampling.engine, config.sampling.group_size
    if not isinstance(given, ContinuousBatching):
        yield setup, setup.mesh.shape["tensor"]
        return

    @functools.cache
    def layout(slots: int, tensor: int | None) -> int | None:
        engine = dataclasses.replace(given, slots=slots, tensor=tensor)
        try:
            made = engine.make(setup.model, SamplerConfig(config.sampling.max_new_tokens), group)
            return made.layout(setup.rows, config.data.max_prompt_tokens).tensor
        except ValueError:  # numbers that do not divide the model or the mesh
            return None

    for slots in (setup.rows // share for share in SLOTS if setup.rows // share % shards == 0):
        chosen = layout(slots, None)
        fixed = (tensor for tensor in TENSORS if tensor != chosen and layout(setup.rows, tensor))
        for tensor in (None, *fixed):
            if slots and (tensor or chosen):
                engine = dataclasses.replace(given, slots=slots, tensor=tensor)
                sampling = dataclasses.replace(config.sampling, engine=engine)
                changed = dataclasses.replace(config, sampling=sampling)
                yield dataclasses.replace(setup, config=changed), tensor or chosen or 1


def _with_parts(setup: Setup) -> Iterator[Setup]:
    """The setup with other microbatches and policies of rematerialisation."""
    config = setup.config
    parts = sorted({config.microbatches // n for n in (1, 2, 4, 8) if config.microbatches % n == 0})
    for microbatches, remat in itertools.product(parts, REMATS):
        model = dataclasses.replace(config.model, remat=remat)
        yield dataclasses.replace(setup, config=dataclasses.replace(config, microbatches=microbatches, model=model))


def _sampling(setup: Setup, tensor: int, state: int, rates: Rates, lengths: Lengths) -> tuple[float, float]:
    """(bytes of a device, seconds of a step) of sampling, where `tensor` devices share the weights."""
    prompt, config = setup.config.data.max_prompt_tokens, setup.config.sampling
    model, weights = _decoding(setup.model, tensor)
    slots = setup.rows
    rings: tuple[int, ...] = ()
    if isinstance(config.engine, ContinuousBatching):
        slots = config.engine.slots or setup.rows
        rings = config.engine.rings or default_rings(max(config.max_new_tokens - 1, 1), model.reads_filled)
    copied = 0 if slots == setup.rows else slots  # slots with prompts of their own
    dtype, prompts = config.cache_dtype, config.prompts_per_step
    held = model.cache_bytes(prompts + copied, prompt, dtype) + model.cache_bytes(slots, config.max_new_tokens, dtype)
    filled = model.cache_bytes(copied or prompts, lengths.prompt, dtype)
    filled += model.cache_bytes(slots, lengths.response // 2, dtype)
    growing = sum(model.cache_bytes(slots, ring, dtype) for ring in rings[-2:-1])
    steps = lengths.response * max(1.0, setup.rows / slots)
    rows = slots * tensor / setup.mesh.size
    sent = 2 * sum_bytes(model, rows, tensor)  # after attention and after the MLP
    return state + weights + held + growing, steps * ((weights + filled) / rates.bandwidth + sent / rates.links)


@functools.lru_cache(maxsize=64)
def _decoding(model: Decoder, tensor: int) -> tuple[Decoder, int]:
    """The model where decoding has it, and the bytes of its weights on a device."""
    moved = on_decode_mesh(model, None if model.mesh is None else decode_mesh(model.mesh, tensor))
    return moved, bytes_per_device(moved.abstract_params(model.compute_dtype))


@dataclasses.dataclass(frozen=True)
class _Sizes:
    """Bytes on a device of the train state and of its parameters, bytes of a device's moments with the host, and the
    number of parameters."""

    state: int
    params: int
    on_host: int
    count: int

    @classmethod
    def of(cls, setup: Setup) -> _Sizes:
        optimizer = dataclasses.replace(setup.config.optimizer, placement="device")
        near = dataclasses.replace(setup, config=dataclasses.replace(setup.config, optimizer=optimizer))
        state = setup.abstract_state()
        held, count = bytes_per_device(state), sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params))
        return cls(held, bytes_per_device(state.params), bytes_per_device(near.abstract_state()) - held, count)


def _training(setup: Setup, sizes: _Sizes, rates: Rates, lengths: Lengths) -> tuple[float, float]:
    """(bytes of a device, seconds of a step) of the update."""
    config, model, shards = setup.config, setup.model, batch_shards(setup.mesh)
    mesh, count = setup.mesh.shape, sizes.count
    tokens = setup.part_rows / shards * (config.data.max_prompt_tokens + config.sampling.max_new_tokens)
    shape, remat, width = model.config, config.model.remat, model.compute_dtype.itemsize
    kept = KEPT[remat] * shape.num_layers * tokens * shape.hidden_size * width
    whole = count * width / mesh["tensor"]
    trained = setup.rows * (lengths.prompt + lengths.response)
    compute = 2 * FORWARDS[remat] * count * trained / setup.mesh.size / rates.flops
    parts = max(1, round(trained / (tokens * shards)))
    sent = 3 * parts * whole * (mesh["fsdp"] - 1) / mesh["fsdp"]
    sent += 2 * sizes.params * (mesh["data"] - 1) / mesh["data"]  # gradients, once
    sent += 4 * parts * sum_bytes(model, tokens, mesh["tensor"])  # two sums forwards and two backwards
    seconds = max(compute, sent / rates.links) + 2 * sizes.on_host / rates.host
    held = sizes.state + sizes.on_host + sizes.params + kept + 2 * whole / shape.num_layers  # with gradients
    return held, seconds


def _changes(given: TrainConfig, found: TrainConfig) -> tuple[str, ...]:
    """What differs, as options of `--set`."""
    pairs: dict[str, tuple[Any, Any]] = {
        f"mesh.{axis}": (before, getattr(found.mesh, axis)) for axis, before in dataclasses.asdict(given.mesh).items()
    }
    pairs["microbatches"] = (given.microbatches, found.microbatches)
    for name in ("moments", "placement"):
        pairs[f"optimizer.{name}"] = getattr(given.optimizer, name), getattr(found.optimizer, name)
    pairs["model.remat"] = (given.model.remat, found.model.remat)
    was, now = given.sampling.engine, found.sampling.engine
    if isinstance(was, ContinuousBatching) and isinstance(now, ContinuousBatching):
        pairs["sampling.engine.slots"] = (was.slots, now.slots)
        pairs["sampling.engine.tensor"] = (was.tensor, now.tensor)
    return tuple(f"{name}={after}" for name, (before, after) in pairs.items() if before != after)


def distinct(candidates: Sequence[Candidate], most: int) -> list[Candidate]:
    """The first of each mesh and number of slots, so that the compiler sees different ones."""
    seen: dict[object, Candidate] = {}
    for candidate in candidates:
        seen.setdefault((candidate.config.mesh, candidate.config.sampling.engine), candidate)
    return list(seen.values())[:most]
