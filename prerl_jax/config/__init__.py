"""The config of a run: its dataclasses, their checks, config files, overrides and studies."""

from prerl_jax.config.io import load_config
from prerl_jax.config.measuring import AlignmentSpec, CheckpointSpec, EvaluationSpec
from prerl_jax.config.optimizing import CriticSpec, OptimizerSpec
from prerl_jax.config.overrides import apply_overrides
from prerl_jax.config.schema import DataSpec, ModelSpec, SamplingSpec, TrainConfig
from prerl_jax.config.study import Arm, Figure, Study

__all__ = [
    "AlignmentSpec",
    "Arm",
    "CheckpointSpec",
    "CriticSpec",
    "DataSpec",
    "EvaluationSpec",
    "Figure",
    "ModelSpec",
    "OptimizerSpec",
    "SamplingSpec",
    "Study",
    "TrainConfig",
    "apply_overrides",
    "load_config",
]
