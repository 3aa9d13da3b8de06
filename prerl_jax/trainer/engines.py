"""The engines of a run, which sample its responses, and how they lie on the devices."""

from __future__ import annotations

import dataclasses
from typing import Any

from prerl_jax.rollout.continuous import ContinuousBatchingEngine
from prerl_jax.rollout.engine import Engine
from prerl_jax.rollout.sampler import SamplerConfig
from prerl_jax.runtime.state import bytes_per_device
from prerl_jax.trainer.abstract import abstract_reference
from prerl_jax.trainer.setup import Setup


def held_bytes(setup: Setup) -> dict[str, int]:
    """The bytes on a device that a run holds from its first step to its last: the train state and the reference."""
    state = setup.abstract_state()
    held = {"parameters": bytes_per_device(state.params), "optimizer": bytes_per_device(state.opt_state)}
    if state.critic is not None:
        held["critic"] = bytes_per_device(state.critic.params)
        held["critic's moments"] = bytes_per_device(state.critic.opt_state)
    if any(phase.reference for phase in setup.phases):
        held["reference"] = bytes_per_device(abstract_reference(setup))
    return held


def make_engine(setup: Setup, temperature: float, top_k: int | None, top_p: float | None, group_size: int) -> Engine:
    """The run's engine for these settings and so many responses to a prompt."""
    sampling = setup.config.sampling
    settings = SamplerConfig(
        max_new_tokens=sampling.max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        stop_tokens=setup.stop_tokens,
        cache_dtype=sampling.cache_dtype,
    )
    made: Any = sampling.engine.make(setup.model, settings, group_size)
    if not isinstance(made, ContinuousBatchingEngine):
        return made
    return dataclasses.replace(made, held=sum(held_bytes(setup).values()))


def decode_layout(setup: Setup) -> str:
    """How the devices share the weights while decoding in training, and why. Raises ValueError if no layout fits."""
    sampling, temperature = setup.config.sampling, setup.phases[0].temperature
    engine = make_engine(setup, temperature, sampling.top_k, sampling.top_p, sampling.group_size)
    if not isinstance(engine, ContinuousBatchingEngine):
        return "the engine decides where it decodes"
    return str(engine.layout(setup.rows, setup.config.data.max_prompt_tokens))
