"""The mesh and the model of a run; where the config's mesh does not fit the devices, the nearest that does."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence

import jax
from jax.sharding import Mesh

from prerl_jax.config.checks import validate, validate_without_mesh
from prerl_jax.config.schema import TrainConfig
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.layers import DecoderConfig
from prerl_jax.runtime.mesh import MeshSpec, batch_shards, make_mesh


def mesh_and_model(
    config: TrainConfig, architecture: DecoderConfig, known: int, devices: Sequence[jax.Device] | None = None
) -> tuple[Mesh, Decoder]:
    """The mesh of a config and its model on it, after the checks of the config against both.

    Args:
      config: the run.
      architecture: the sizes of the model.
      known: the number of token ids that model and tokenizer have; ids from there on have probability 0.
      devices: the devices to use; all by default.

    Raises ValueError where the mesh does not fit the devices, the batch or the model. The error ends with the nearest
    mesh that fits all devices, or as many of them as possible, as options of `--set`.
    """
    validate_without_mesh(config)  # what no other mesh would mend
    _check_lengths(config, architecture)
    try:
        return _fit(config, architecture, known, devices)
    except ValueError as error:
        devices = jax.devices() if devices is None else devices
        raise ValueError(f"{error}{_nearest(config, architecture, known, devices)}") from error


def _nearest(config: TrainConfig, architecture: DecoderConfig, known: int, devices: Sequence[jax.Device]) -> str:
    """A sentence with the nearest mesh that fits these devices, else as many of them as possible; "" for none."""
    for count in range(len(devices), 0, -1):
        for options in _fitting(config, architecture, known, devices[:count]):
            none = "" if count == len(devices) else f" None fits {len(devices)} devices."
            return f"{none} The nearest that fits {count} devices: --set {' '.join(options)}"
    return ""


def _fit(
    config: TrainConfig, architecture: DecoderConfig, known: int, devices: Sequence[jax.Device] | None
) -> tuple[Mesh, Decoder]:
    mesh = make_mesh(config.mesh, devices)
    validate(config, shards=batch_shards(mesh))
    spec = config.model
    model = Decoder(
        architecture,
        compute_dtype=spec.compute_dtype,
        remat=spec.remat,
        attention=spec.attention,
        valid_ids=known if known < architecture.vocab_size else None,
        mesh=mesh,
        rules=spec.rules,
    )
    model.abstract_params()  # refuses a mesh that does not divide the model
    return mesh, model


def _fitting(
    config: TrainConfig, architecture: DecoderConfig, known: int, devices: Sequence[jax.Device]
) -> Iterator[list[str]]:
    """Changes of the config that fit the devices, as options of `--set`: those to the mesh alone first, the nearest
    first; then with fewer microbatches and more measured groups."""
    meshes = sorted(_meshes(len(devices), slice_count(devices)), key=lambda mesh: _distance(mesh, config.mesh))
    for smaller in (False, True):
        for mesh in meshes:
            changed = _with_rows(config, mesh) if smaller else dataclasses.replace(config, mesh=mesh)
            try:
                validate(changed, shards=_shards(mesh))
                _fit(changed, architecture, known, devices)
            except (ValueError, NotImplementedError):  # the latter where jax finds no such mesh on a TPU's network
                continue
            yield _options(config, changed)


def slice_count(devices: Iterable[jax.Device]) -> int:
    """The number of slices that the devices form; devices of a kind that has no slices form one."""
    return len({device.slice_index if hasattr(device, "slice_index") else 0 for device in devices})


def _meshes(devices: int, slices: int) -> Iterator[MeshSpec]:
    """All meshes of this many devices, with a replica in each slice."""
    each = devices // slices
    sizes = [n for n in range(1, each + 1) if each % n == 0]
    yield from (MeshSpec(a, b, each // (a * b), slices) for a in sizes for b in sizes if each % (a * b) == 0)


def _shards(mesh: MeshSpec) -> int:
    return mesh.replica * mesh.data * mesh.fsdp


def _distance(mesh: MeshSpec, wanted: MeshSpec) -> float:
    """How far a mesh is from the wanted one: the factors by which its axes differ; an axis of -1 is free."""
    pairs = zip(dataclasses.astuple(mesh), dataclasses.astuple(wanted), strict=True)
    return sum(abs(math.log(size / asked)) for size, asked in pairs if asked != -1)


def _with_rows(config: TrainConfig, mesh: MeshSpec) -> TrainConfig:
    """The config on a mesh with the most microbatches, up to its own, that are whole rows for every shard, and with as
    many measured groups as are whole groups for every shard."""
    shards = _shards(mesh)
    rows = config.sampling.prompts_per_step * config.sampling.group_size
    parts = [n for n in range(1, config.microbatches + 1) if rows % n == 0 and rows // n % shards == 0]
    measured = -(-config.alignment.prompts // shards) * shards
    alignment = dataclasses.replace(config.alignment, prompts=measured) if config.alignment.every else config.alignment
    return dataclasses.replace(config, mesh=mesh, microbatches=max(parts, default=1), alignment=alignment)


def _options(config: TrainConfig, changed: TrainConfig) -> list[str]:
    """What differs, as options of `--set`."""
    found = [f"mesh.{axis}={size}" for axis, size in dataclasses.asdict(changed.mesh).items()]
    if changed.microbatches != config.microbatches:
        found.append(f"microbatches={changed.microbatches}")
    if changed.alignment != config.alignment:
        found.append(f"alignment.prompts={changed.alignment.prompts}")
    return found


def _check_lengths(config: TrainConfig, architecture: DecoderConfig) -> None:
    length = config.data.max_prompt_tokens + config.sampling.max_new_tokens
    context = architecture.max_position_embeddings
    if length > context:
        raise ValueError(
            f"data.max_prompt_tokens + sampling.max_new_tokens = {length} tokens, but the model's context is "
            f"{context}; shorten one of them."
        )
