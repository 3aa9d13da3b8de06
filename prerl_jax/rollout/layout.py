"""Where decoding has its weights and its cache: a mesh of its own, over the devices of the training mesh.

Training splits every weight over all devices and gathers a layer's weights when it computes that layer, once for many
tokens. Decoding computes one token of each row at a time, so it would gather all weights for every token. It therefore
has copies of the weights, in the compute dtype: neighbouring devices form a replica. A replica holds one copy, split by
heads, MLP width and vocabulary, and decodes its own rows with its own part of the cache. Between the devices of a
replica go activations alone, and between replicas the numbers of active rows.

The copies are made once a rollout, by a program of their own, and freed when the rollout ends. Prompts are prefilled in
the same layout. The parameters and the optimizer's state stay where training has them.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
from jax.sharding import AxisType, Mesh

from prerl_jax.core.types import Model, Params
from prerl_jax.models.partitioning import Rules, mesh_axes, part_count, partition_spec
from prerl_jax.rollout.decode import SlotModel

M = TypeVar("M")
DECODE_AXES = ("data", "fsdp", "part", "tensor")
"""The axes of a decode mesh. Rows are split over `data`, and `fsdp` is 1. A replica is split over `tensor`, as training
splits it, and each part of that over `part`."""


@runtime_checkable
class MeshModel(SlotModel, Protocol):
    """A `SlotModel` that can lie on another mesh; `Decoder` is one. Another model decodes where training has it.

    Attributes:
      config: has `num_layers` and `hidden_size`.
    """

    config: Any

    def on_mesh(self, mesh: Mesh, rules: Rules) -> MeshModel:
        """The same model on another mesh, split by other rules."""

    def abstract_params(self, dtype: Any = ...) -> Any:
        """The parameters as ShapeDtypeStruct with shardings. Raises ValueError where the mesh does not divide them."""

    def shardings(self) -> Any:
        """The parameters' shardings."""

    def cache_bytes(self, rows: int, length: int, dtype: str | None) -> int:
        """Bytes on one device of the keys and values of `rows` rows of `length` tokens."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the devices share the weights while decoding, and why.

    Attributes:
      mesh: the devices as decoding has them; None for the default device.
      tensor: the devices of a replica.
      reason: why, for the log.
    """

    mesh: Mesh | None
    tensor: int
    reason: str

    def __str__(self) -> str:
        if self.mesh is None:
            return self.reason
        each = "one device" if self.tensor == 1 else f"{self.tensor} devices"
        copies = self.mesh.size // self.tensor
        several = f"{copies} copies of the weights, each" if copies > 1 else "one copy of the weights"
        return f"{several} on {each}: {self.reason}"


def decode_mesh(mesh: Mesh, devices: int) -> Mesh:
    """The devices of `mesh` in the same order, as replicas of so many neighbours, with DECODE_AXES."""
    tensor = mesh.shape["tensor"]
    arranged = mesh.devices.reshape(-1, 1, devices // tensor, tensor)
    return Mesh(arranged, DECODE_AXES, axis_types=(AxisType.Auto,) * len(DECODE_AXES))


def decode_rules(rules: Rules) -> Rules:
    """The rules of decoding: what training splits over `tensor` is split over a replica, rows over the replicas, and
    nothing else is split, so that nothing has to be gathered."""

    def rule(logical: str, entry: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        if logical == "batch":
            return ("data", "fsdp")
        return ("tensor", "part") if "tensor" in mesh_axes(entry) else None

    return tuple((logical, rule(logical, entry)) for logical, entry in rules)


def on_decode_mesh(model: M, mesh: Mesh | None) -> M:
    """The model on its mesh of decoding; the model itself where that is its own mesh."""
    policy: Any = model
    if mesh is None or mesh == policy.mesh or not isinstance(policy, MeshModel):
        return model
    moved: Any = policy.on_mesh(mesh, decode_rules(policy.rules))
    return moved


def make_lay_out(model: SlotModel, decoding: SlotModel) -> jax.stages.Wrapped | None:
    """The program that copies the parameters to the mesh of decoding, in the compute dtype: params -> weights.

    Args:
      model: the model on the training mesh.
      decoding: the model on the mesh of decoding.

    Returns: the program; None where that is the same mesh: decoding then reads the parameters where they are.
    """
    if decoding is model or not isinstance(decoding, MeshModel):
        return None

    def decode_weights(params: Params) -> Params:
        return jax.tree.map(lambda p: p.astype(decoding.compute_dtype), params)

    return jax.jit(decode_weights, out_shardings=decoding.shardings())


def vocab_parts(model: Model) -> int:
    """Into how many parts the mesh splits the vocabulary of a model's logits."""
    if not isinstance(model, SlotModel) or model.mesh is None:
        return 1
    return part_count(model.mesh, partition_spec(model.rules, ("vocab",))[0])
