"""Sampling responses: engines that a run is given, and `make_sampler` for code of your own."""

from prerl_jax.rollout.continuous import ContinuousBatching
from prerl_jax.rollout.decode import SlotModel
from prerl_jax.rollout.engine import Engine, EngineSpec, OnComplete, Sampled
from prerl_jax.rollout.sampler import SamplerConfig, make_sampler
from prerl_jax.rollout.static import StaticBatching

__all__ = [
    "ContinuousBatching",
    "Engine",
    "EngineSpec",
    "OnComplete",
    "Sampled",
    "SamplerConfig",
    "SlotModel",
    "StaticBatching",
    "make_sampler",
]
