"""Where decoding has its weights and its cache: a mesh of its own, over the devices of the training mesh.

Training splits every weight over all devices and gathers a layer's weights when it computes that layer, once for many
tokens. Decoding computes one token of each row at a time, so it would gather all weights for every token. It therefore
has copies of the weights, in the compute dtype: the devices form replicas of `tensor` neighbouring devices each. A
replica holds one copy, split over its devices by heads, MLP width and vocabulary, and decodes its own rows with its own
part of the cache. Between the devices of a replica go activations alone, and between replicas nothing.

The copies are made once a rollout, in the program that prefills the prompts, and freed when the rollout ends. Prompts
are prefilled in the same layout. The parameters and the optimizer's state stay where training has them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import jax
from jax.sharding import AxisType, Mesh

from prerl_jax.core.types import Model, Params
from prerl_jax.models.partitioning import part_count, partition_spec
from prerl_jax.rollout.decode import SlotModel
from prerl_jax.runtime.chips import Chip, chip_of_kind
from prerl_jax.runtime.mesh import AXES
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
"""float32 arrays of the parameters' size that a run holds while it samples: the parameters and Adam's two moments."""


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


@runtime_checkable
class MeshModel(SlotModel, Protocol):
    """A `SlotModel` that can lie on another mesh; `Decoder` is one. Another model decodes where training has it.

    Attributes:
      config: has `num_layers` and `hidden_size`.
    """

    config: Any

    def on_mesh(self, mesh: Mesh) -> MeshModel:
        """The same model on another mesh, with the same rules."""

    def abstract_params(self, dtype: Any = ...) -> Any:
        """The parameters as ShapeDtypeStruct with shardings. Raises ValueError where the mesh does not divide them."""

    def shardings(self) -> Any:
        """The parameters' shardings."""

    def cache_bytes(self, rows: int, length: int, dtype: str | None) -> int:
        """Bytes on one device of the keys and values of `rows` rows of `length` tokens."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """How many devices share a copy of the weights while decoding, and why.

    Attributes:
      tensor: the devices of a replica.
      reason: a sentence that says why, for the log.
    """

    tensor: int
    reason: str


def decode_mesh(mesh: Mesh, tensor: int) -> Mesh:
    """The devices of `mesh` in the same order, as replicas of `tensor` neighbours: data x 1 x tensor."""
    devices = mesh.devices.reshape(-1, 1, tensor)
    return Mesh(devices, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def on_mesh(model: SlotModel, mesh: Mesh | None) -> SlotModel:
    """The model on the mesh of decoding. A model that is no `MeshModel` stays where it is."""
    return model.on_mesh(mesh) if mesh is not None and isinstance(model, MeshModel) else model


def make_lay_out(model: SlotModel, mesh: Mesh | None) -> Callable[[Params], Params]:
    """The program that copies the parameters from the training mesh to that of decoding, in the compute dtype.

    Without a mesh, and for a model that is no `MeshModel`, decoding reads the parameters where they are.

    Args:
      model: the model on the mesh of decoding.
      mesh: the same mesh; None for the default device.
    """
    if mesh is None or not isinstance(model, MeshModel):
        return lambda params: params

    def decode_weights(params: Params) -> Params:
        return jax.tree.map(lambda p: p.astype(model.compute_dtype), params)

    return jax.jit(decode_weights, out_shardings=model.shardings())


def vocab_parts(model: Model) -> int:
    """Into how many parts the mesh splits the vocabulary of a model's logits."""
    if not isinstance(model, SlotModel) or model.mesh is None:
        return 1
    return part_count(model.mesh, partition_spec(model.rules, ("vocab",))[0])


def choose_layout(model: SlotModel, tensor: int | None, cache: Cached, dtype: str | None) -> Layout:
    """Chooses the devices of a replica: the given number, or one by the bytes.

    A number fits if FREE of a device's memory is left beside the train state (STATE), the device's part of the weights
    and its part of the cache, which is the same for all numbers. With more devices in a replica, a token takes fewer
    reads of weights and more exchanges of activations. Of the numbers that fit, this is the fewest whose time for a
    token, as the chip's bandwidths bound it, is within NEAR of the least. If the bandwidths are not known, it is the
    fewest that fit; if the memory is not known, the fewest of all.

    Args:
      model: the policy, on the training mesh.
      tensor: the devices of a replica; None to choose by the bytes.
      cache: the sizes of the cache, over all devices.
      dtype: what the cache is stored in, see `SamplerConfig.cache_dtype`.

    Raises ValueError if the given number does not fit the mesh or the model; the message lists those that do.
    """
    mesh = model.mesh
    if mesh is None or not isinstance(model, MeshModel):
        if tensor not in (None, 1 if mesh is None else mesh.shape["tensor"]):
            raise ValueError(
                f"ContinuousBatching has tensor = {tensor}, but {type(model).__name__} "
                + ("has no mesh to split." if mesh is None else "is no MeshModel, so it decodes where training has it.")
            )
        return Layout(1 if mesh is None else mesh.shape["tensor"], "the model decodes where training has it")
    if tensor is None:
        return _by_bytes(model, mesh, cache, dtype)
    fitting = [n for n, _ in _fitting(model, mesh)]
    if tensor not in fitting:
        raise ValueError(
            f"ContinuousBatching has tensor = {tensor}. The {mesh.size} devices and the model allow "
            f"{', '.join(map(str, fitting))}: a multiple of the mesh's tensor axis ({mesh.shape['tensor']}) that "
            "divides the devices, heads, key-value heads, MLP width and vocabulary, and spans the processes that the "
            "tensor axis spans, and no other."
        )
    return Layout(tensor, "ContinuousBatching.tensor says so")


@dataclasses.dataclass(frozen=True)
class _Candidate:
    """The bytes of a device with one number of devices in a replica, and the seconds of a token, 0 if not known."""

    tensor: int
    weights: int
    cache: int
    seconds: float


def _by_bytes(model: MeshModel, mesh: Mesh, cache: Cached, dtype: str | None) -> Layout:
    device = mesh.devices.flat[0]
    memory = device_memory(device)
    if memory is None:
        return Layout(mesh.shape["tensor"], f"the memory of a {device.platform} is not known: as few as possible")
    chip, state = chip_of_kind(device.device_kind), STATE * bytes_per_device(model.abstract_params())
    found = [_candidate(model, laid, cache, dtype, chip) for _, laid in _fitting(model, mesh)]
    fitting = [c for c in found if state + c.weights + c.cache <= (1 - FREE) * memory]
    least = min((c.seconds for c in fitting), default=0.0)
    chosen = next((c for c in fitting if c.seconds <= NEAR * least), found[-1])
    needed = state + chosen.weights + chosen.cache
    parts = f"train state {_gib(state)}, weights {_gib(chosen.weights)}, cache {_gib(chosen.cache)}"
    said = f"{parts}: {_gib(needed)} of {_gib(memory)} GiB a device"
    if not fitting:
        return Layout(chosen.tensor, f"no number of devices leaves {FREE:.0%} free: {said}")
    speed = f"; {chosen.seconds * 1e3:.1f} ms a token at the bound" if chosen.seconds else ""
    return Layout(chosen.tensor, f"it leaves {FREE:.0%} free: {said}{speed}")


def _candidate(model: MeshModel, laid: MeshModel, cache: Cached, dtype: str | None, chip: Chip | None) -> _Candidate:
    assert laid.mesh is not None
    tensor, weights = laid.mesh.shape["tensor"], bytes_per_device(laid.abstract_params(model.compute_dtype))
    prompts = laid.cache_bytes(cache.prompts, cache.prompt, dtype)
    responses = laid.cache_bytes(cache.slots, cache.response, dtype)
    if chip is None:
        return _Candidate(tensor, weights, prompts + responses, 0.0)
    read = weights + prompts + FILLED * responses
    rows = -(-cache.slots // laid.mesh.shape["data"])
    # Two sums of activations a layer; a ring sends 2 (n - 1) / n of the array.
    states = laid.config.num_layers * rows * laid.config.hidden_size * laid.compute_dtype.itemsize
    sent = 4 * (tensor - 1) / tensor * states
    return _Candidate(tensor, weights, prompts + responses, chip.devices * (read / chip.bandwidth + sent / chip.links))


def _gib(count: float) -> str:
    return f"{count / 2**30:.2f}"


def _fitting(model: MeshModel, mesh: Mesh) -> Iterator[tuple[int, MeshModel]]:
    """The possible numbers of devices of a replica, rising, with the model on their mesh."""
    for tensor in range(mesh.shape["tensor"], mesh.size + 1, mesh.shape["tensor"]):
        if mesh.size % tensor:
            continue
        laid = model.on_mesh(decode_mesh(mesh, tensor))
        try:
            laid.abstract_params()
            same_rows = row_share(mesh, laid.mesh) == row_share(mesh)
        except ValueError:
            continue
        if same_rows:  # every process samples the rows that it trains on
            yield tensor, laid
