"""The arrays of a step as trees of ShapeDtypeStruct on the mesh, from the config alone: to compile without running."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from prerl_jax.core.phases import Phase
from prerl_jax.core.types import Batch, Params, Prompts, Rollouts
from prerl_jax.runtime.mesh import batch_sharding, replicated
from prerl_jax.trainer.setup import Setup


def abstract_rollouts(setup: Setup) -> Rollouts:
    """The rollouts of a step, verified."""
    rows, config = setup.rows, setup.config
    prompt, response = (rows, config.data.max_prompt_tokens), (rows, config.sampling.max_new_tokens)

    def of(shape: tuple[int, ...], dtype: Any) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(setup.mesh))

    return Rollouts(
        prompt=of(prompt, jnp.int32),
        prompt_mask=of(prompt, bool),
        response=of(response, jnp.int32),
        response_mask=of(response, bool),
        rewards=of((rows,), jnp.float32),
        logprobs=of(response, jnp.float32),
        truncated=of((rows,), bool),
        known=of((rows,), bool),
        right=of((rows,), bool),
    )


def abstract_prompts(setup: Setup, count: int) -> Prompts:
    """`count` padded prompts for an engine."""
    length, sharding = setup.config.data.max_prompt_tokens, batch_sharding(setup.mesh)

    def of(dtype: Any, *shape: int) -> Any:
        return jax.ShapeDtypeStruct((count, *shape), dtype, sharding=sharding)

    return Prompts(of(jnp.int32, length), of(bool, length), of(jnp.int32))


def abstract_key(setup: Setup) -> Any:
    """A random key, the same on every device."""
    return jax.ShapeDtypeStruct((2,), jnp.uint32, sharding=replicated(setup.mesh))


def abstract_reference(setup: Setup) -> Params:
    """The parameters of a reference policy."""
    return setup.model.abstract_params(setup.model.compute_dtype)


def abstract_inputs(setup: Setup, phase: Phase, shape: tuple[int, int]) -> dict[str, Any]:
    """The keyword arguments of a phase's program `prepare`.

    Args:
      setup: the run's config, model and mesh.
      phase: the phase.
      shape: rows and tokens of an unpacked batch, see `Batching.shape`.
    """

    def floats(*sizes: int) -> Any:
        return jax.ShapeDtypeStruct(sizes, jnp.float32, sharding=batch_sharding(setup.mesh))

    values = None if setup.critic is None else floats(setup.rows, setup.config.sampling.max_new_tokens)
    step = jax.ShapeDtypeStruct((), jnp.int32)
    scored = {name: floats(*shape) for name in phase.logprobs_needed_before_update}
    return {"key": abstract_key(setup), "phase_step": step, "values": values} | scored


def as_packed(setup: Setup, phase: Phase, unpacked: Batch) -> Batch:
    """The batch of a phase's train step, from what `prepare` makes: see `Batching.pack` and `Batching.place`."""
    critic = None if phase.value_advantage is None else unpacked.critic
    reference = unpacked.ref_logprobs
    if phase.reference is not None and reference is None:
        reference = unpacked.weights
    batch = dataclasses.replace(unpacked, critic=critic, ref_logprobs=reference)
    sharding = batch_sharding(setup.mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), batch)
