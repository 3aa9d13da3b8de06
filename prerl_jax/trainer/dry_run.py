"""What a run of a config needs, without running it: phases, parameters, shardings and bytes on each device."""

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
from prerl_jax.data.arrivals import ExampleStream
from prerl_jax.models import splash
from prerl_jax.models.attention import choose
from prerl_jax.models.decoder import Decoder
from prerl_jax.rollout.continuous import ContinuousBatchingEngine
from prerl_jax.rollout.layout import on_decode_mesh
from prerl_jax.runtime.mesh import batch_shards
from prerl_jax.runtime.state import bytes_per_device
from prerl_jax.trainer.batching import Batching
from prerl_jax.trainer.engines import decode_layout
from prerl_jax.trainer.hub import pinned
from prerl_jax.trainer.programs import Programs
from prerl_jax.trainer.setup import Setup, set_up
from prerl_jax.trainer.verifiers import open_verifiers, probe_verifiers

BYTES_PER_TOKEN = 4 * 7
"""Bytes of one token of a packed batch: seven arrays of 32 bits."""
PLAN = "on a slice   python -m prerl_jax.plan --topology v5e:4x8 says whether all fits, and how long a step takes"


def dry_run(config: TrainConfig, console: Console | None = None, devices: int | None = None) -> None:
    """Prints the config, the phases, the parameters with their shardings, and the bytes on a device. Reads no weights.

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
    for table in (phase_table(setup), parameter_table(setup), memory_table(setup)):
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


def memory_table(setup: Setup) -> Table:
    """The memory of one device, in MiB, without activations and temporaries, which only the compiler knows."""
    table = Table(title="bytes on a device, activations and temporaries aside")
    table.add_column("what")
    table.add_column("MiB", justify="right")
    for name, size in {**_training_bytes(setup), **_sampling_bytes(setup), **_optional_bytes(setup)}.items():
        table.add_row(name, f"{size / 2**20:,.1f}")
    return table


def _training_bytes(setup: Setup) -> dict[str, int]:
    config, model = setup.config, setup.model
    params = model.abstract_params()
    rows, longest = Batching(setup).shape
    rows //= batch_shards(setup.mesh)
    epochs = max(phase.epochs for phase in setup.phases)
    each = f", for each of {epochs} epochs" if epochs > 1 else ""
    return {
        "parameters (float32)": bytes_per_device(params),
        "optimizer state (float32)": bytes_per_device(setup.abstract_state().opt_state),
        f"gradients (float32, {config.microbatches} microbatches)": bytes_per_device(params),
        f"batch, at most ({rows} rows of {longest} tokens{each})": epochs * rows * longest * BYTES_PER_TOKEN,
    }


def _optional_bytes(setup: Setup) -> dict[str, int]:
    """The reference, the critic and the alignment, where the config has them."""
    config, model, state = setup.config, setup.model, setup.abstract_state()
    entries = {}
    if any(phase.reference for phase in setup.phases):
        dtype = model.compute_dtype
        entries[f"reference ({dtype})"] = bytes_per_device(model.abstract_params(dtype))
    if state.critic is not None:
        size = bytes_per_device(state.critic.params)
        rows, tokens = setup.rows // batch_shards(setup.mesh), config.data.max_prompt_tokens
        tokens += config.sampling.max_new_tokens
        entries["critic: parameters (float32)"] = size
        entries["critic: optimizer state (float32)"] = bytes_per_device(state.critic.opt_state)
        entries[f"critic: gradients (float32, {config.microbatches} microbatches)"] = size
        entries[f"critic: batch, at most ({rows} rows of {tokens} tokens)"] = rows * tokens * BYTES_PER_TOKEN
    if config.alignment.every:
        parts, pairs = setup.alignment_parts, 2 if config.alignment.mean_logprob else 1
        name = f"alignment: gradients in both spaces (float32, {parts} microbatches)"
        entries[name] = 2 * pairs * bytes_per_device(model.abstract_params())
    return entries


def _sampling_bytes(setup: Setup) -> dict[str, int]:
    """Bytes on one device of the weights, keys and values while sampling, for the engine that comes with the package.

    A cache that moves, into a longer ring or to fewer slots, exists twice while it moves. The tail has a cache of its
    own, with fewer slots.
    """
    sampling, programs, calls = setup.config.sampling, Programs(setup), setup.evaluation_calls
    training, evaluation = programs.engine(setup.phases[0]), programs.evaluation_engine
    if not (isinstance(training, ContinuousBatchingEngine) and isinstance(evaluation, ContinuousBatchingEngine)):
        return {"weights while sampling": _cast_bytes(setup.model)}
    model, slots, prompts, held, moving = _response_caches(setup, training, sampling.prompts_per_step)
    entries = {
        f"weights while sampling ({setup.model.compute_dtype})": _cast_bytes(model),
        f"cache of {sampling.prompts_per_step} prompts": prompts,
        f"cache of {slots} responses": held,
        "a second copy of it, while it is resized": moving,
    }
    _, slots, prompts, held, moving = _response_caches(setup, evaluation, calls.prompts)
    entries[f"cache of {calls.prompts} prompts, {slots} responses in evaluation"] = prompts + held + moving
    return entries


def _cast_bytes(model: Decoder) -> int:
    """Bytes on one device of the weights that decoding reads, where they are a copy."""
    copied = model.compute_dtype != jnp.float32 or (model.mesh is not None and model.mesh.size > 1)
    return bytes_per_device(model.abstract_params(model.compute_dtype)) if copied else 0


def _response_caches(
    setup: Setup, engine: ContinuousBatchingEngine, prompts: int
) -> tuple[Decoder, int, int, int, int]:
    """(the model on the mesh of decoding, slots, bytes of the prompts, of the slots' cache, of it while it moves)."""
    config = setup.config
    prompt, response, dtype = config.data.max_prompt_tokens, config.sampling.max_new_tokens, config.sampling.cache_dtype
    plan = engine.plan(prompts * engine.group_size, prompt)
    model = on_decode_mesh(setup.model, plan.mesh)
    own_prompt = 0 if plan.shared else prompt  # where rows wait for slots, each slot has a copy of its prompt
    moving = [model.cache_bytes(plan.slots, ring, dtype) for ring in plan.rings[-2:-1]]
    moving += [model.cache_bytes(slots, prompt + response, dtype) for slots in (*plan.shrink[:1], plan.tail) if slots]
    held = model.cache_bytes(plan.slots, own_prompt + response, dtype)
    return model, plan.slots, model.cache_bytes(prompts, prompt, dtype), held, max(moving, default=0)


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
