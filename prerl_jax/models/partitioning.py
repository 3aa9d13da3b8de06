"""Logical axes of parameters, activations and caches, and the mesh axes that they are sharded over.

A rule maps a logical axis to one mesh axis, to several, or to none. The mesh axes are `data` (whole replicas), `fsdp`
(parameters and batch rows) and `tensor` (heads, MLP width and vocabulary). If the mesh axes do not divide a dimension,
that is an error: silent replication would cost the memory that the mesh was chosen for.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

Axes = tuple[str | None, ...]
Rules = tuple[tuple[str, str | tuple[str, ...] | None], ...]

DEFAULT_RULES: Rules = (
    ("batch", ("data", "fsdp")),
    ("length", None),
    ("layers", None),
    ("vocab", "tensor"),
    ("embed", "fsdp"),
    ("heads", "tensor"),
    ("kv_heads", "tensor"),
    ("head_dim", None),
    ("mlp", "tensor"),
)


def mesh_axes(entry: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The mesh axes of a rule, which is one entry of a PartitionSpec."""
    return () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)


def within(model: Any, axis: str) -> Any:
    """The model for the devices at one place of a mesh axis, as it is under jax.vmap(spmd_axis_name=axis)."""
    inner = copy.copy(model)
    inner.rules = tuple(
        (logical, tuple(n for n in mesh_axes(entry) if n != axis) or None) for logical, entry in model.rules
    )
    return inner


def splits_only_rows(rules: Rules, axis: str) -> bool:
    """Whether the rules split nothing but the rows of a batch over a mesh axis."""
    return all(logical == "batch" or axis not in mesh_axes(entry) for logical, entry in rules)


def part_count(mesh: Mesh, entry: str | tuple[str, ...] | None) -> int:
    """The number of parts into which one entry of a PartitionSpec splits a dimension."""
    return math.prod(mesh.shape[n] for n in mesh_axes(entry))


def partition_spec(rules: Rules, axes: Axes, name: str = "array") -> PartitionSpec:
    """The PartitionSpec of an array with these logical axes.

    Raises ValueError for a logical axis without a rule, and for a mesh axis that two dimensions would share.
    """
    table = dict(rules)
    unknown = [axis for axis in axes if axis is not None and axis not in table]
    if unknown:
        raise ValueError(f"{name}: no rule for the logical axes {unknown}; there are rules for {sorted(table)}.")
    spec = [None if axis is None else table[axis] for axis in axes]
    used = [m for entry in spec for m in mesh_axes(entry)]
    if len(used) != len(set(used)):
        raise ValueError(f"{name}: the rules put two dimensions of {axes} on one mesh axis: {spec}.")
    return PartitionSpec(*spec)


def named_sharding(mesh: Mesh, rules: Rules, axes: Axes, shape: tuple[int, ...], name: str = "array") -> NamedSharding:
    """The sharding of an array of this shape.

    Args:
      mesh: the devices.
      rules: maps logical axes to mesh axes.
      axes: a logical axis, or None, for each dimension.
      shape: of the array.
      name: of the array, for error messages.

    Raises ValueError where a dimension does not divide, and for a rule with an unknown mesh axis.
    """
    spec = partition_spec(rules, axes, name)
    for size, axis, entry in zip(shape, axes, spec, strict=True):
        names = mesh_axes(entry)
        missing = [n for n in names if n not in mesh.shape]
        if missing:
            raise ValueError(f"{name}: the rule {axis} -> {names} names {missing}, the mesh has {tuple(mesh.shape)}.")
        parts = part_count(mesh, entry)
        if size % parts:
            raise ValueError(
                f"{name} has shape {shape}: its dimension {axis!r} of {size} does not divide into {parts} parts "
                f"({' x '.join(f'{n}={mesh.shape[n]}' for n in names)}). Choose a mesh that divides it, or give "
                f"{axis!r} another rule."
            )
    return NamedSharding(mesh, spec)


def shard_shape(
    mesh: Mesh | None, rules: Rules, axes: Axes, shape: tuple[int, ...], name: str = "array"
) -> tuple[int, ...]:
    """The shape of an array's part on one device; `shape` without a mesh. Raises as `named_sharding` does."""
    return shape if mesh is None else named_sharding(mesh, rules, axes, shape, name).shard_shape(shape)


def placed(shapes: Any, axes: Any, mesh: Mesh, rules: Rules) -> Any:
    """A tree of ShapeDtypeStruct with shardings; `axes` has the logical axes of each leaf.

    Raises ValueError where the mesh does not divide a dimension; the message names the leaf by its path.
    """

    def leaf(path: Any, shape: jax.ShapeDtypeStruct, axes: Axes) -> jax.ShapeDtypeStruct:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        return jax.ShapeDtypeStruct(
            shape.shape, shape.dtype, sharding=named_sharding(mesh, rules, axes, shape.shape, name)
        )

    return jax.tree_util.tree_map_with_path(leaf, shapes, axes)


def require_auto_axes(mesh: Mesh | None) -> None:
    """Raises ValueError for a mesh with Explicit axes, under which a lookup in a sharded embedding fails."""
    if mesh is None:
        return
    explicit = [name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind == AxisType.Explicit]
    if explicit:
        raise ValueError(
            f"The mesh axes {', '.join(explicit)} are Explicit, the default of jax.make_mesh; the decoder needs "
            "Auto axes, so that XLA chooses the shardings of intermediate arrays. Make the mesh with "
            "prerl_jax.make_mesh(prerl_jax.MeshSpec(...)), or with jax.make_mesh(..., axis_types=(jax.sharding."
            f"AxisType.Auto,) * {len(mesh.axis_names)})."
        )


def constrain(x: jax.Array, mesh: Mesh | None, rules: Rules, axes: Axes) -> jax.Array:
    """`x` with its sharding pinned inside jit; `x` itself where there is no mesh.

    A dimension that does not divide stays unconstrained here. Inputs were checked where they were placed; arrays
    computed from them may be smaller, such as one prompt for each group.
    """
    if mesh is None or mesh.size == 1:
        return x
    spec = partition_spec(rules, axes)
    entries = [None if size % part_count(mesh, entry) else entry for size, entry in zip(x.shape, spec, strict=True)]
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(*entries)))
