"""Chooses how many devices share a copy of the weights while decoding, by the bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from prerl_jax.rollout.decode import SlotModel
from prerl_jax.rollout.layout import Layout, MeshModel, decode_mesh, decode_rules
from prerl_jax.runtime.chips import Chip, chip_of_kind
from prerl_jax.runtime.gather import max_over_processes
from prerl_jax.runtime.peak import device_memory
from prerl_jax.runtime.row_share import row_share
from prerl_jax.runtime.state import bytes_per_device

FREE = 0.25
"""The share of a device's memory that a chosen layout leaves free, for temporaries."""
NEAR = 1.15
"""The time of a token, over the least that is possible, with which a replica of fewer devices is preferred."""
FILLED = 1 / 3
"""The share of the responses' cache that is assumed to be filled."""
STATE = 3
"""float32 arrays of the parameters' size that a run holds beside the copy: the parameters and Adam's two moments."""
MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Cached:
    """The sizes of a cache, over all devices.

    Attributes:
      prompts: how many prompts it holds.
      prompt: tokens of a prompt.
      slots: how many responses it holds.
      response: tokens of a response, at most.
    """

    prompts: int
    prompt: int
    slots: int
    response: int


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One number of devices in a replica.

    Attributes:
      mesh: the mesh of decoding.
      devices: of a replica.
      weights: bytes of a device's part of the weights.
      cache: bytes of a device's part of the cache.
      seconds: a token's least time, as the bandwidths of the chip bound it; 0 where they are not known.
    """

    mesh: Mesh
    devices: int
    weights: int
    cache: int
    seconds: float


def choose_layout(
    model: SlotModel, devices: int | None, cache: Cached, dtype: str | None, held: int | None = None
) -> Layout:
    """Chooses the devices of a replica: the given number, or one by the bytes.

    A number fits if FREE of a device's memory is left beside what the run holds, the device's part of the weights and
    its part of the cache, which is the same for all numbers. With more devices in a replica, a token takes fewer reads
    of weights and more exchanges of activations. Of the numbers that fit, this is the fewest whose time for a token, as
    the chip's bandwidths bound it, is within NEAR of the least. If the bandwidths are not known, it is the fewest that
    fit; if the memory is not known, the fewest of all. All processes choose the same.

    Args:
      model: the policy, on the training mesh.
      devices: the devices of a replica; None to choose by the bytes.
      cache: the sizes of the cache, over all devices.
      dtype: what the cache is stored in, see `SamplerConfig.cache_dtype`.
      held: bytes on a device that the run holds throughout; None for STATE arrays of the parameters' size.

    Raises ValueError if the given number does not fit the mesh or the model; the message lists those that do. Raises it
    as well if no number does.
    """
    mesh = model.mesh
    if mesh is None or mesh.size == 1 or not isinstance(model, MeshModel):
        own = 1 if mesh is None else mesh.shape["tensor"]
        if devices not in (None, own):
            why = "there is one device" if mesh is None or mesh.size == 1 else "it is no MeshModel"
            raise ValueError(
                f"ContinuousBatching has tensor = {devices}, but {type(model).__name__} decodes where training has it: "
                f"{why}. Use tensor=None."
            )
        return Layout(mesh, own, "decoding reads the weights where training has them")
    found = list(candidates(model, mesh, cache, dtype))
    if not found:
        raise ValueError(
            f"no decode layout fits: no multiple of the mesh's tensor axis ({mesh.shape['tensor']}) that divides its "
            f"{mesh.size} devices also divides heads, key-value heads, MLP width and vocabulary. Choose another tensor "
            "axis, or StaticBatching() as the engine."
        )
    if held is None:
        held = STATE * bytes_per_device(model.abstract_params())
    if devices is None:
        return _by_bytes(mesh, found, held)
    chosen = next((c for c in found if c.devices == devices), None)
    if chosen is None:
        raise ValueError(
            f"ContinuousBatching has tensor = {devices}. The {mesh.size} devices and the model allow "
            f"{', '.join(str(c.devices) for c in found)}: a multiple of the mesh's tensor axis "
            f"({mesh.shape['tensor']}) that divides the devices, heads, key-value heads, MLP width and vocabulary, and "
            "spans the processes that the tensor axis spans, and no other."
        )
    return Layout(chosen.mesh, devices, f"ContinuousBatching.tensor says so: {_sizes(chosen, held)}")


def candidates(model: MeshModel, mesh: Mesh, cache: Cached, dtype: str | None) -> Iterator[Candidate]:
    """The possible numbers of devices of a replica, rising."""
    chip, tensor = chip_of_kind(mesh.devices.flat[0].device_kind), mesh.shape["tensor"]
    for devices in range(tensor, mesh.size + 1, tensor):
        if mesh.size % devices:
            continue
        arranged = decode_mesh(mesh, devices)
        decoding = model.on_mesh(arranged, decode_rules(model.rules))
        try:
            weights = bytes_per_device(decoding.abstract_params(model.compute_dtype))
            prompts = decoding.cache_bytes(_whole(cache.prompts, arranged), cache.prompt, dtype)
            responses = decoding.cache_bytes(_whole(cache.slots, arranged), cache.response, dtype)
            same_rows = row_share(mesh, arranged) == row_share(mesh)
        except ValueError:
            continue
        if same_rows:  # every process samples the rows that it trains on
            rows = _whole(cache.slots, arranged) // arranged.shape["data"]
            seconds = _seconds(model, devices, weights + prompts + FILLED * responses, rows, chip)
            yield Candidate(arranged, devices, weights, prompts + responses, seconds)


def _whole(rows: int, mesh: Mesh) -> int:
    """The rows, or the next number that the replicas divide."""
    return -(-rows // mesh.shape["data"]) * mesh.shape["data"]


def sum_bytes(model: Any, tokens: float, devices: int) -> float:
    """Bytes that a device sends to sum the states [tokens, hidden size] of each layer over these devices, once.

    Args:
      model: a `MeshModel`.
      tokens: whose states are summed.
      devices: how many take part.
    """
    states = model.config.num_layers * tokens * model.config.hidden_size * model.compute_dtype.itemsize
    return 2 * (devices - 1) / devices * states  # as a ring sends them


def _seconds(model: MeshModel, devices: int, read: float, rows: int, chip: Chip | None) -> float:
    """Of one token of all rows of a replica: the bytes that a device reads, and two sums of activations a layer."""
    if chip is None:
        return 0.0
    sent = 2 * sum_bytes(model, rows, devices)
    return chip.devices * (read / chip.bandwidth + sent / chip.links)


def _by_bytes(mesh: Mesh, found: list[Candidate], held: int) -> Layout:
    memory = _memory(mesh)
    if memory is None:
        kind = mesh.devices.flat[0].platform
        return Layout(found[0].mesh, found[0].devices, f"the memory of a {kind} is not known, so as few as possible")
    fitting = [c for c in found if _needed(c, held) <= (1 - FREE) * memory]
    least = min((c.seconds for c in fitting), default=0.0)
    chosen = next((c for c in fitting if c.seconds <= NEAR * least), found[-1])
    free = 1 - _needed(chosen, held) / memory
    said = f"{_sizes(chosen, held)} of {memory / 2**30:.2f} GiB a device, {free:.0%} free"
    speed = f"; {chosen.seconds * 1e3:.1f} ms a token at the bound" if chosen.seconds else ""
    why = f"at least {FREE:.0%} stays free" if fitting else f"no number of devices leaves {FREE:.0%} free"
    return Layout(chosen.mesh, chosen.devices, f"{why}: {said}{speed}")


def _memory(mesh: Mesh) -> int | None:
    """The memory of a device, the least of all processes; None where it is not known."""
    device = mesh.devices.flat[0]
    if device not in jax.devices():  # of a topology
        return device_memory(device)
    mine = device_memory(jax.local_devices()[0])
    if jax.process_count() == 1:
        return mine
    least = -max_over_processes(-(0 if mine is None else mine // MIB))
    return least * MIB or None


def _needed(candidate: Candidate, held: int) -> int:
    return held + candidate.weights + candidate.cache


def _sizes(candidate: Candidate, held: int) -> str:
    parts = {"train state": held, "weights": candidate.weights, "cache": candidate.cache}
    listed = ", ".join(f"{name} {size / 2**30:.2f}" for name, size in parts.items())
    return f"{listed}: {_needed(candidate, held) / 2**30:.2f}"
