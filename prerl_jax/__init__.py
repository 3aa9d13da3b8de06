"""Reinforcement learning in pre-train space: policy gradients of log P(y) and log P(y|x), in runs that combine them."""

from prerl_jax.alignment.buckets import Buckets
from prerl_jax.alignment.gradients import make_dual_gradients
from prerl_jax.alignment.measurements import make_probability_statistics, make_space_measurements
from prerl_jax.alignment.tokens import make_token_alignment
from prerl_jax.analysis.thought_patterns import THOUGHTS, Thought
from prerl_jax.analysis.thoughts import count_thoughts, find_thoughts, thoughts_before_and_after
from prerl_jax.config.io import load_config
from prerl_jax.config.measuring import AlignmentSpec, CheckpointSpec, EvaluationSpec
from prerl_jax.config.optimizing import CriticSpec, OptimizerSpec
from prerl_jax.config.schema import DataSpec, ModelSpec, SamplingSpec, TrainConfig
from prerl_jax.config.study import Arm, Figure, Study
from prerl_jax.core.advantages import (
    BatchNormalized,
    BinaryAdvantage,
    ConstantBaseline,
    DropTruncated,
    GroupRelative,
    LeaveOneOut,
)
from prerl_jax.core.aggregation import (
    SequenceMeanTokenMean,
    SequenceMeanTokenSum,
    SequenceMeanTokenSumNorm,
    SequenceSumTokenSumNorm,
    TokenMean,
)
from prerl_jax.core.baselines import (
    cispo,
    dapo,
    dr_grpo,
    gspo,
    nsr,
    ppo,
    psr,
    reinforce,
    reinforce_pp,
    rloo,
    w_reinforce,
)
from prerl_jax.core.batches import make_layout, make_prepare
from prerl_jax.core.compose import LogprobFloor, TruncatedIS, WithEntropy, WithKL
from prerl_jax.core.gae import GAE
from prerl_jax.core.guards import (
    Above,
    Below,
    EndPhase,
    FellBy,
    FellToRatio,
    Guard,
    Plateau,
    RollBack,
    RoseBy,
    RoseToRatio,
    Warn,
)
from prerl_jax.core.head import Head
from prerl_jax.core.logprobs import token_logprobs
from prerl_jax.core.objectives import CISPO, GSPO, ClippedPG, Reinforce
from prerl_jax.core.optimizer import adamw
from prerl_jax.core.packing import bucket, pack, plan_bins, unpack
from prerl_jax.core.params import merge_params, split_params
from prerl_jax.core.phases import InitialModel, Phase, PhaseStart, Term, advance, phase_at
from prerl_jax.core.recipes import (
    WARMUP_GUARDS,
    dsrl,
    grpo,
    mixed,
    nsr_prerl,
    nsr_rl,
    prerl,
    prompt_dropout,
    psr_prerl,
    psr_rl,
)
from prerl_jax.core.reward_shaping import KLPenalty, OverlongPenalty
from prerl_jax.core.schedules import Cosine, Linear, Warmup
from prerl_jax.core.scoring import make_score, make_score_old_and_reference
from prerl_jax.core.spaces import PostTrainSpace, PreTrainSpace, PromptDropout
from prerl_jax.core.train_step import init_state, make_loss, make_train_step
from prerl_jax.core.traits import AdvantageTraits, ObjectiveTraits, RewardShapingTraits, SpaceTraits
from prerl_jax.core.types import (
    AdvantageEstimator,
    Batch,
    LossAggregation,
    Model,
    Objective,
    Prompts,
    RewardShaping,
    Rollouts,
    Schedule,
    Sequences,
    Space,
    TrainState,
    ValueAdvantageEstimator,
)
from prerl_jax.data import layouts
from prerl_jax.data.arithmetic import ChainSum
from prerl_jax.data.columns import Columns
from prerl_jax.data.contamination import Contamination, Overlap
from prerl_jax.data.curriculum import Curriculum
from prerl_jax.data.golds import (
    AllGold,
    AnyGold,
    BoxedGold,
    GoldRule,
    LetterGold,
    MarkedGold,
    NumberGold,
    PlainGold,
)
from prerl_jax.data.hub import HubProblems
from prerl_jax.data.hub_files import HubFiles
from prerl_jax.data.instructions import BOXED, CHOICE, HASHES, Instructions
from prerl_jax.data.lab import Additions
from prerl_jax.data.logical_deduction import DEDUCTION_SHOTS, LogicalDeduction
from prerl_jax.data.mixture import Mixture
from prerl_jax.data.options import Options, ShuffledOptions
from prerl_jax.data.prefix import resolve_prefix
from prerl_jax.data.problems import Message, Problem, ProblemSource
from prerl_jax.data.prompts import ChatTemplate, PlainText
from prerl_jax.data.reasoning_gym import ReasoningGym
from prerl_jax.data.sources import FileProblems, JsonlProblems, ParquetProblems
from prerl_jax.data.streams import IteratorProblems, ProblemStream, StreamProblems
from prerl_jax.data.word_problems import FIVE_WAY_SHOTS, WORD_PROBLEM_SHOTS, FiveWayWordProblems, WordProblems
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.hf import load_model, save_hf
from prerl_jax.models.layers import DecoderConfig
from prerl_jax.models.tokenizer import load_tokenizer
from prerl_jax.rollout.continuous import ContinuousBatching
from prerl_jax.rollout.decode import SlotModel
from prerl_jax.rollout.engine import Engine, EngineSpec, OnComplete, Sampled
from prerl_jax.rollout.sampler import SamplerConfig, make_sampler
from prerl_jax.rollout.static import StaticBatching
from prerl_jax.runtime.mesh import MeshSpec, make_mesh
from prerl_jax.verify.after_thinking import AfterThinking
from prerl_jax.verify.answer_line import AnswerLine
from prerl_jax.verify.avoids import Avoids
from prerl_jax.verify.batch import BatchVerifier, Verifier, VerifierTraits
from prerl_jax.verify.boxed import BoxedAnswer
from prerl_jax.verify.by_source import BySource
from prerl_jax.verify.code_tests import CodeTests
from prerl_jax.verify.combined import CombinedReward, Weighted
from prerl_jax.verify.exact import ExactMatch
from prerl_jax.verify.function import BatchFunctionVerifier, FunctionVerifier
from prerl_jax.verify.gsm8k import GSM8KAnswer
from prerl_jax.verify.integer import IntegerAnswer
from prerl_jax.verify.judgement import Judgement
from prerl_jax.verify.math_answer import MathAnswer
from prerl_jax.verify.multiple_choice import MultipleChoice
from prerl_jax.verify.pattern import RegexAnswer
from prerl_jax.verify.sandbox import Sandbox

# fmt: off
__all__ = [
    "BOXED", "CHOICE", "CISPO", "DEDUCTION_SHOTS", "FIVE_WAY_SHOTS", "GAE", "GSPO", "HASHES", "THOUGHTS",
    "WARMUP_GUARDS", "WORD_PROBLEM_SHOTS", "Above", "Additions", "AdvantageEstimator", "AdvantageTraits",
    "AfterThinking", "AlignmentSpec", "AllGold", "AnswerLine", "AnyGold", "Arm", "Avoids", "Batch",
    "BatchFunctionVerifier", "BatchNormalized", "BatchVerifier", "Below", "BinaryAdvantage", "BoxedAnswer",
    "BoxedGold", "Buckets", "BySource", "ChainSum", "ChatTemplate", "CheckpointSpec", "ClippedPG", "CodeTests",
    "Columns", "CombinedReward", "ConstantBaseline", "Contamination", "ContinuousBatching", "Cosine", "CriticSpec",
    "Curriculum", "DataSpec", "Decoder", "DecoderConfig", "DropTruncated", "EndPhase", "Engine", "EngineSpec",
    "EvaluationSpec", "ExactMatch", "FellBy", "FellToRatio", "Figure", "FileProblems", "FiveWayWordProblems",
    "FunctionVerifier", "GSM8KAnswer", "GoldRule", "GroupRelative", "Guard", "Head", "HubFiles", "HubProblems",
    "InitialModel", "Instructions", "IntegerAnswer", "IteratorProblems", "JsonlProblems", "Judgement", "KLPenalty",
    "LeaveOneOut", "LetterGold", "Linear", "LogicalDeduction", "LogprobFloor", "LossAggregation", "MarkedGold",
    "MathAnswer", "MeshSpec", "Message", "Mixture", "Model", "ModelSpec", "MultipleChoice", "NumberGold", "Objective",
    "ObjectiveTraits", "OnComplete", "OptimizerSpec", "Options", "Overlap", "OverlongPenalty", "ParquetProblems",
    "Phase", "PhaseStart", "PlainGold", "PlainText", "Plateau", "PostTrainSpace", "PreTrainSpace", "Problem",
    "ProblemSource", "ProblemStream", "PromptDropout", "Prompts", "ReasoningGym", "RegexAnswer", "Reinforce",
    "RewardShaping", "RewardShapingTraits", "RollBack", "Rollouts", "RoseBy", "RoseToRatio", "Sampled",
    "SamplerConfig", "SamplingSpec", "Sandbox", "Schedule", "SequenceMeanTokenMean", "SequenceMeanTokenSum",
    "SequenceMeanTokenSumNorm", "SequenceSumTokenSumNorm", "Sequences", "ShuffledOptions", "SlotModel", "Space",
    "SpaceTraits", "StaticBatching", "StreamProblems", "Study", "Term", "Thought", "TokenMean", "TrainConfig",
    "TrainState", "TruncatedIS", "ValueAdvantageEstimator", "Verifier", "VerifierTraits", "Warmup", "Warn",
    "Weighted", "WithEntropy", "WithKL", "WordProblems", "adamw", "advance", "bucket", "cispo", "count_thoughts",
    "dapo", "dr_grpo", "dsrl", "find_thoughts", "grpo", "gspo", "init_state", "layouts", "load_config", "load_model",
    "load_tokenizer", "make_dual_gradients", "make_layout", "make_loss", "make_mesh", "make_prepare",
    "make_probability_statistics", "make_sampler", "make_score", "make_score_old_and_reference",
    "make_space_measurements", "make_token_alignment", "make_train_step", "merge_params", "mixed", "nsr", "nsr_prerl",
    "nsr_rl", "pack", "phase_at", "plan_bins", "ppo", "prerl", "prompt_dropout", "psr", "psr_prerl", "psr_rl",
    "reinforce", "reinforce_pp", "resolve_prefix", "rloo", "save_hf", "split_params", "thoughts_before_and_after",
    "token_logprobs", "unpack", "w_reinforce",
]
# fmt: on
