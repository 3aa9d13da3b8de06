"""What a run of a config is, without running it: phases, parameters, shardings, and how decoding lies."""

from __future__ import annotations

import contextlib
import dataclasses
import math

import jax
from rich.console import Console
from rich.table import Table

from prerl_jax.config.io import render
from prerl_jax.config.schema import TrainConfig
from prerl_jax.data.arrivals import ExampleStream
from prerl_jax.models import splash
from prerl_jax.models.attention import choose
from prerl_jax.trainer.batching import Batching
from prerl_jax.trainer.engines import decode_layout
from prerl_jax.trainer.hub import pinned
from prerl_jax.trainer.setup import Setup, set_up
from prerl_jax.trainer.verifiers import open_verifiers, probe_verifiers

PLAN = "memory       python -m prerl_jax.plan --topology v5e:4x8 says whether all fits, and how long a step takes"


def dry_run(config: TrainConfig, console: Console | None = None, devices: int | None = None) -> None:
    """Prints the config, the phases, the parameters with their shardings, and how decoding lies. Reads no weights.

    Args:
      config: the config.
      console: where to print; standard output by default.
      devices: the number of devices to plan for. By default as many as the mesh names; if one of the
        mesh's sizes is -1, the devices of this machine.

    Raises what a run would raise about the config, the devices, the model's architecture, the data and the verifier.
    """
    console = console or Console()
    _imagine_devices(config, devices)
    config, _ = pinned(config)
    setup = set_up(config)
    console.print(render(config), markup=False, highlight=False, soft_wrap=True)
    for table in (phase_table(setup), parameter_table(setup)):
        console.print(table)
    shape = " x ".join(f"{name} {size}" for name, size in setup.mesh.shape.items())
    kind = setup.mesh.devices.flat[0].device_kind
    console.print(f"mesh         {shape} ({setup.mesh.size} {kind} devices)", highlight=False)
    console.print(f"stop tokens  {setup.stop_tokens}", highlight=False)
    console.print(f"attention    {_attention(setup)}", highlight=False)
    console.print(f"decoding     {decode_layout(setup)}", highlight=False)
    console.print(PLAN, highlight=False, markup=False)
    for note in (*setup.notes, *_probed(setup)):
        console.print(note, highlight=False, markup=False)


def _probed(setup: Setup) -> tuple[str, ...]:
    """The notes of the probe, as before a run. A stream is not probed, since it may have no problem yet."""
    if isinstance(setup.train, ExampleStream):
        return ("data.train is a stream: a run checks the verifier with the problems of its first batch",)
    with open_verifiers(setup.config) as verifiers:
        return probe_verifiers(setup, verifiers)


def _imagine_devices(config: TrainConfig, devices: int | None) -> None:
    """Makes JAX report this many CPU devices, so that a laptop can describe a slice."""
    if devices is not None and devices < 1:
        raise ValueError(f"--devices {devices}: there must be at least 1 device to describe.")
    sizes = dataclasses.astuple(config.mesh)
    if devices is None and -1 in sizes:
        return
    with contextlib.suppress(RuntimeError):  # JAX refuses the change after it has started a device
        jax.config.update("jax_num_cpu_devices", devices or math.prod(sizes))
        jax.config.update("jax_platforms", "cpu")
    if devices is not None and jax.device_count() != devices:
        raise ValueError(
            f"{devices} devices cannot be imagined: this program has used its {jax.device_count()} already. Call the "
            "dry run before anything else uses JAX."
        )


def phase_table(setup: Setup) -> Table:
    """The steps of each phase, and what it optimises."""
    table = Table(title="phases", show_lines=True)
    table.add_column("steps", no_wrap=True)
    table.add_column("phase", no_wrap=True)
    table.add_column("what it optimises", overflow="fold")
    start = 0
    for phase in setup.phases:
        lines = [f"{term.space}, {term.advantage}, {term.aggregation}" for term in phase.all_terms]
        lines += [f"{phase.objective}", f"learning rate {setup.learning_rate(phase)}, temperature {phase.temperature}"]
        if phase.value_advantage is not None:
            lines.append(f"critic: {setup.config.critic}")
        if phase.reference is not None:
            lines.append(f"reference {phase.reference}")
        if phase.updates > 1:
            lines.append(f"{phase.updates} updates a step: {phase.epochs} epochs of {phase.minibatches} minibatches")
        lines += [f"at most {phase.max_resamples} resamples"] * bool(phase.max_resamples)
        lines += [f"{guard}, {guard.patience} in a row: {guard.reaction}" for guard in phase.guards]
        table.add_row(f"{start + 1}-{start + phase.steps}", phase.name, "\n".join(lines))
        start += phase.steps
    return table


def parameter_table(setup: Setup) -> Table:
    """Every parameter with its shape, and its shape on a device."""
    params = setup.model.abstract_params()
    leaves = jax.tree_util.tree_leaves_with_path(params)
    total = sum(math.prod(leaf.shape) for _, leaf in leaves)
    table = Table(title=f"{total:,} parameters of {setup.config.model.path}")
    table.add_column("parameter", no_wrap=True)
    for heading in ("shape", "shape on a device"):
        table.add_column(heading, overflow="fold")
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        shard = leaf.sharding.shard_shape(leaf.shape)
        table.add_row(name, str(leaf.shape), str(shard))
    return table


def _attention(setup: Setup) -> str:
    """Which attention computes the rows of the train step on these devices and, if they are no TPUs, on TPUs."""
    model, mesh = setup.model, setup.mesh
    _, length = Batching(setup).shape
    query = (setup.part_rows, length, model.config.num_heads, model.config.head_dim)
    shapes = (query, model.config.num_kv_heads, mesh, model.rules)
    if model.attention == "xla" or mesh.devices.flat[0].platform == "tpu":
        return choose(model.attention, *shapes)
    misfit = splash.misfit(*shapes)
    return "xla; on TPUs " + (f"xla: {misfit}" if misfit else "splash")
