"""Reinforcement learning in pre-train space, in JAX: policy gradients on log P(y) and on log P(y|x), and what joins them."""

from prerl_jax.core.batches import make_prepare, make_score
from prerl_jax.core.credit import (
    GroupRelative,
    SequenceMeanTokenMean,
    SequenceMeanTokenSum,
    SequenceSumNorm,
    TokenMean,
)
from prerl_jax.core.dual import make_dual_gradients
from prerl_jax.core.logprobs import token_logprobs
from prerl_jax.core.objectives import ClippedPG, Reinforce
from prerl_jax.core.optimizer import adamw
from prerl_jax.core.packing import bucket, pack, plan
from prerl_jax.core.phases import (
    Phase,
    Term,
    advance,
    dsrl,
    grpo,
    nsr_prerl,
    nsr_rl,
    phase_at,
    prerl,
    psr_prerl,
    psr_rl,
)
from prerl_jax.core.spaces import PostTrainSpace, PreTrainSpace
from prerl_jax.core.train_step import init_state, make_loss, make_train_step
from prerl_jax.core.types import Batch, Model, Prompts, Rollouts, Sequences, TrainState
from prerl_jax.rollout.engine import Engine
from prerl_jax.rollout.sampler import SamplerConfig, make_sampler
