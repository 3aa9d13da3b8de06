"""What a config would take, without allocating it: phases, parameters, shardings and bytes on each device."""

from __future__ import annotations

import contextlib
import dataclasses
import math

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from prerl_jax.config.io import render
from prerl_jax.config.schema import TrainConfig
from prerl_jax.core.phases import Phase
from prerl_jax.models import splash
from prerl_jax.models.attention import choose
from prerl_jax.models.cache import head_bytes
from prerl_jax.models.partitioning import named_sharding
from prerl_jax.runtime.mesh import batch_shards
from prerl_jax.runtime.state import bytes_per_device
from prerl_jax.trainer.programs import Programs
from prerl_jax.trainer.setup import Setup, evaluation_shape, set_up


def dry_run(config: TrainConfig, console: Console | None = None, devices: int | None = None) -> None:
    """Prints the config, the phase table, the parameters with their shardings, and bytes per device.

    `devices` are imagined; without it as many as the mesh names, or, where one of its sizes is -1, those that are here.
    Raises what a run would raise of the config, the devices, the model's architecture and the data. Reads no weights.
    """
    console = console or Console()
    _imagine_devices(config, devices)
    setup = set_up(config)
    console.print(render(config), markup=False, highlight=False, soft_wrap=True)
    console.print(_phase_table(setup))
    console.print(_parameter_table(setup))
    console.print(_memory_table(setup))
    shape = " x ".join(f"{name} {size}" for name, size in setup.mesh.shape.items())
    devices = f"{setup.mesh.size} {setup.mesh.devices.flat[0].device_kind} devices"
    console.print(f"mesh         {shape} ({devices})", highlight=False)
    console.print(f"stop tokens  {setup.stop_tokens}", highlight=False)
    console.print(f"attention    {_attention(setup)}", highlight=False)
    for note in setup.notes:
        console.print(note, highlight=False, markup=False)


def _imagine_devices(config: TrainConfig, devices: int | None) -> None:
    """So many CPU devices, or as many as the mesh names, so that a laptop can describe a slice."""
    if devices is not None and devices < 1:
        raise ValueError(f"--devices {devices}: there must be at least 1 device to describe.")
    sizes = dataclasses.astuple(config.mesh)
    if devices is None and -1 in sizes:
        return
    with contextlib.suppress(RuntimeError):  # a program that has used its devices already keeps them
        jax.config.update("jax_num_cpu_devices", devices or math.prod(sizes))
        jax.config.update("jax_platforms", "cpu")
    if devices is not None and jax.device_count() != devices:
        raise ValueError(
            f"{devices} devices cannot be imagined: this program has used its {jax.device_count()} already. Describe "
            "before anything else uses JAX."
        )


def _phase_table(setup: Setup) -> Table:
    table = Table(title="phases", show_lines=True)
    table.add_column("steps", no_wrap=True)
    table.add_column("phase", no_wrap=True)
    table.add_column("what it optimises", overflow="fold")
    start = 0
    for phase in setup.phases:
        rate = setup.config.optimizer.learning_rate if phase.learning_rate is None else phase.learning_rate
        lines = [f"{term.space}, {term.advantage}, {term.aggregation}" for term in phase.all_terms]
        lines += [f"{phase.objective}", f"learning rate {rate}, temperature {phase.temperature}"]
        if phase.value_advantage is not None:
            lines.append(f"critic: {setup.config.critic}")
        if phase.reference is not None:
            lines.append(f"reference {phase.reference}")
        if phase.updates > 1:
            lines.append(f"{phase.updates} updates a step: {phase.epochs} epochs of {phase.minibatches} minibatches")
        lines += [f"at most {phase.max_resamples} further draws"] * bool(phase.max_resamples)
        lines += [f"{guard}, {guard.patience} in a row: {guard.reaction}" for guard in phase.guards]
        table.add_row(f"{start + 1}-{start + phase.steps}", phase.name, "\n".join(lines))
        start += phase.steps
    return table


def _parameter_table(setup: Setup) -> Table:
    params = setup.model.abstract_params()
    leaves = jax.tree_util.tree_leaves_with_path(params)
    total = sum(math.prod(leaf.shape) for _, leaf in leaves)
    table = Table(title=f"{total:,} parameters of {setup.config.model.path}")
    table.add_column("parameter", no_wrap=True)
    for heading in ("shape", "sharded over", "shape on a device"):
        table.add_column(heading, overflow="fold")
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        shard = leaf.sharding.shard_shape(leaf.shape)
        table.add_row(name, str(leaf.shape), str(tuple(leaf.sharding.spec)), str(shard))
    return table


def _memory_table(setup: Setup) -> Table:
    """Bytes on one device of what lives through a step; activations and temporaries are the compiler's."""
    config, model, mesh = setup.config, setup.model, setup.mesh
    params = model.abstract_params()
    state = setup.abstract_state()
    sampling = config.sampling
    weights = sum(math.prod(p.sharding.shard_shape(p.shape)) for p in jax.tree.leaves(params))
    cast = weights * model.compute_dtype.itemsize if model.compute_dtype != jnp.float32 else 0
    longest = max(_row_length(phase, config) for phase in setup.phases)
    batch_rows = sampling.prompts_per_step * sampling.group_size // batch_shards(mesh)
    epochs = max(phase.epochs for phase in setup.phases)
    each = f", for each of {epochs} epochs" if epochs > 1 else ""
    entries = {
        "parameters (float32)": bytes_per_device(params),
        "optimizer state (float32)": bytes_per_device(state.opt_state),
        f"gradients (float32, {config.microbatches} microbatches)": bytes_per_device(params),
        f"weights while sampling ({model.compute_dtype})": cast,
        **_caches(setup),
        f"batch, at most ({batch_rows} rows of {longest} tokens{each})": epochs * batch_rows * longest * 4 * 7,
    }
    if any(phase.reference for phase in setup.phases):
        dtype = model.compute_dtype
        entries[f"reference ({dtype})"] = bytes_per_device(model.abstract_params(dtype))
    if state.critic is not None:
        size = bytes_per_device(state.critic.params)
        entries["critic: parameters (float32)"] = size
        entries["critic: optimizer state (float32)"] = bytes_per_device(state.critic.opt_state)
        entries[f"critic: gradients (float32, {config.microbatches} microbatches)"] = size
        tokens = config.data.max_prompt_tokens + sampling.max_new_tokens
        entries[f"critic: batch, at most ({batch_rows} rows of {tokens} tokens)"] = batch_rows * tokens * 4 * 7
    if config.alignment.every:
        parts, pairs = setup.alignment_parts, 2 if config.alignment.mean_logprob else 1
        what = f"alignment: gradients in both spaces (float32, {parts} microbatches)"
        entries[what] = 2 * pairs * bytes_per_device(params)
    table = Table(title="bytes on a device, activations and temporaries aside")
    table.add_column("what")
    table.add_column("MiB", justify="right")
    for name, size in entries.items():
        table.add_row(name, f"{size / 2**20:,.1f}")
    return table


def _caches(setup: Setup) -> dict[str, int]:
    """Bytes on one device of keys and values while sampling.

    A cache that is moved, into a longer ring or into fewer slots, lies beside the one that it is moved to; the tail's
    is of fewer slots.
    """
    config, model, sampling = setup.config, setup.model, setup.config.sampling
    programs, prompt = Programs(setup), config.data.max_prompt_tokens
    each = head_bytes(model.config.head_dim, sampling.cache_dtype, model.compute_dtype)

    def cache(rows: int, length: int, what: str = "response cache") -> int:
        axes, shape = ("layers", "batch", "kv_heads", "length"), (rows, model.config.num_kv_heads, length)
        shape = (model.config.num_layers, *shape)
        return 2 * math.prod(named_sharding(setup.mesh, model.rules, axes, shape, what).shard_shape(shape)) * each

    def responses(phase: Phase | None, rows: int) -> tuple[int, int, int]:
        """(slots, bytes of their cache, bytes beside it while it is moved)."""
        shape = programs.engine(phase).plan(rows)
        own = 0 if shape.shared else prompt  # where rows wait for slots, each holds a prompt of its own
        held = cache(shape.slots, own + sampling.max_new_tokens)
        moved = [cache(shape.slots, ring) for ring in shape.rings[-2:-1]]
        moved += [cache(n, prompt + sampling.max_new_tokens) for n in (*shape.shrink[:1], shape.tail) if n]
        return shape.slots, held, max(moved, default=0)

    samples, asked = evaluation_shape(setup)
    slots, held, beside = responses(setup.phases[0], sampling.prompts_per_step * sampling.group_size)
    asked_slots, asked_held, asked_beside = responses(None, asked * samples)
    return {
        f"cache of {sampling.prompts_per_step} prompts": cache(sampling.prompts_per_step, prompt, "prompt cache"),
        f"cache of {slots} responses": held,
        "beside it, while it is moved into a longer ring or fewer slots": beside,
        f"cache of {asked} prompts, {asked_slots} responses in evaluation": (
            cache(asked, prompt, "prompt cache in evaluation") + asked_held + asked_beside
        ),
    }


def _attention(setup: Setup) -> str:
    """What attends to the rows computed at once: on these devices, and, where they are no TPUs, on TPUs."""
    model, mesh = setup.model, setup.mesh
    length = max(_row_length(phase, setup.config) for phase in setup.phases)
    query = (setup.part_rows, length, model.config.num_heads, model.config.head_dim)
    shapes = (query, model.config.num_kv_heads, mesh, model.rules)
    if model.attention == "xla" or mesh.devices.flat[0].platform == "tpu":
        return choose(model.attention, *shapes)
    misfit = splash.misfit(*shapes)
    return "xla; on TPUs " + (f"xla: {misfit}" if misfit else "splash")


def _row_length(phase: Phase, config: TrainConfig) -> int:
    """Tokens of the longest row that the phase's spaces can make."""
    given_prompt = any(term.space.traits.given_prompt for term in phase.all_terms)
    before = config.data.max_prompt_tokens if given_prompt else 1
    return before + config.sampling.max_new_tokens
