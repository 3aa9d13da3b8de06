"""Reinforcement learning in pre-train space: policy gradients of log P(y) and of log P(y|x), and what joins them."""

from prerl_jax.analysis.thought_patterns import THOUGHTS, Thought
from prerl_jax.analysis.thoughts import count_thoughts, find_thoughts, thoughts_before_and_after
from prerl_jax.config_study import Arm, Figure, Study
from prerl_jax.core.anchors import make_anchor
from prerl_jax.core.batches import make_layout, make_prepare, make_score
from prerl_jax.core.compose import LogprobFloor, TruncatedIS, WithEntropy, WithKL
from prerl_jax.core.credit import (
    BatchNormalized,
    ConstantBaseline,
    GroupRelative,
    LeaveOneOut,
    SequenceMeanSumNorm,
    SequenceMeanTokenMean,
    SequenceMeanTokenSum,
    SequenceSumNorm,
    TokenMean,
    Verdict,
)
from prerl_jax.core.dual import make_dual_gradients
from prerl_jax.core.gae import GAE
from prerl_jax.core.guards import Above, Below, EndPhase, Fell, Grew, Guard, Plateau, RollBack, Rose, Shrank, Warn
from prerl_jax.core.logprobs import token_logprobs
from prerl_jax.core.objectives import CISPO, GSPO, ClippedPG, Reinforce
from prerl_jax.core.optimizer import adamw
from prerl_jax.core.packing import bucket, pack, plan, unpack
from prerl_jax.core.phases import Phase, Term, advance, phase_at
from prerl_jax.core.recipes import (
    WARMUP_GUARDS,
    cispo,
    dapo,
    dr_grpo,
    dsrl,
    grpo,
    gspo,
    mixed,
    nsr,
    nsr_prerl,
    nsr_rl,
    ppo,
    prerl,
    prompt_dropout,
    psr,
    psr_prerl,
    psr_rl,
    reinforce,
    reinforce_pp,
    rloo,
    w_reinforce,
)
from prerl_jax.core.references import InitialModel, PhaseStart
from prerl_jax.core.schedules import Cosine, Linear, Warmup
from prerl_jax.core.shaping import DropTruncated, KLPenalty, OverlongPenalty
from prerl_jax.core.space_measurements import make_space_measurements
from prerl_jax.core.spaces import PostTrainSpace, PreTrainSpace, PromptDropout
from prerl_jax.core.statistics import make_probability_statistics
from prerl_jax.core.token_alignment import make_token_alignment
from prerl_jax.core.token_buckets import Buckets
from prerl_jax.core.train_step import init_state, make_loss, make_train_step
from prerl_jax.core.types import (
    Batch,
    Credit,
    Model,
    Objective,
    Prompts,
    Rollouts,
    Schedule,
    Sequences,
    Shape,
    Space,
    TrainState,
    Weigh,
)
from prerl_jax.data.prefix import resolve_prefix
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.hf import load_model, save_hf
from prerl_jax.models.layers import DecoderConfig
from prerl_jax.models.tokenizer import load_tokenizer
from prerl_jax.rollout.engine import Engine
from prerl_jax.rollout.pool import make_pool
from prerl_jax.rollout.sampler import SamplerConfig, make_sampler

__all__ = [
    "CISPO",
    "GAE",
    "GSPO",
    "THOUGHTS",
    "WARMUP_GUARDS",
    "Above",
    "Arm",
    "Batch",
    "BatchNormalized",
    "Below",
    "Buckets",
    "ClippedPG",
    "ConstantBaseline",
    "Cosine",
    "Credit",
    "Decoder",
    "DecoderConfig",
    "DropTruncated",
    "EndPhase",
    "Engine",
    "Fell",
    "Figure",
    "Grew",
    "GroupRelative",
    "Guard",
    "InitialModel",
    "KLPenalty",
    "LeaveOneOut",
    "Linear",
    "LogprobFloor",
    "Model",
    "Objective",
    "OverlongPenalty",
    "Phase",
    "PhaseStart",
    "Plateau",
    "PostTrainSpace",
    "PreTrainSpace",
    "PromptDropout",
    "Prompts",
    "Reinforce",
    "RollBack",
    "Rollouts",
    "Rose",
    "SamplerConfig",
    "Schedule",
    "SequenceMeanSumNorm",
    "SequenceMeanTokenMean",
    "SequenceMeanTokenSum",
    "SequenceSumNorm",
    "Sequences",
    "Shape",
    "Shrank",
    "Space",
    "Study",
    "Term",
    "Thought",
    "TokenMean",
    "TrainState",
    "TruncatedIS",
    "Verdict",
    "Warmup",
    "Warn",
    "Weigh",
    "WithEntropy",
    "WithKL",
    "adamw",
    "advance",
    "bucket",
    "cispo",
    "count_thoughts",
    "dapo",
    "dr_grpo",
    "dsrl",
    "find_thoughts",
    "grpo",
    "gspo",
    "init_state",
    "load_model",
    "load_tokenizer",
    "make_anchor",
    "make_dual_gradients",
    "make_layout",
    "make_loss",
    "make_pool",
    "make_prepare",
    "make_probability_statistics",
    "make_sampler",
    "make_score",
    "make_space_measurements",
    "make_token_alignment",
    "make_train_step",
    "mixed",
    "nsr",
    "nsr_prerl",
    "nsr_rl",
    "pack",
    "phase_at",
    "plan",
    "ppo",
    "prerl",
    "prompt_dropout",
    "psr",
    "psr_prerl",
    "psr_rl",
    "reinforce",
    "reinforce_pp",
    "resolve_prefix",
    "rloo",
    "save_hf",
    "thoughts_before_and_after",
    "token_logprobs",
    "unpack",
    "w_reinforce",
]
