"""Every config in configs/ builds, is valid, says how to run it, and survives being written and read."""

import ast
from pathlib import Path

import pytest

from prerl_jax import (
    GAE,
    BinaryAdvantage,
    ClippedPG,
    GroupRelative,
    GSM8KAnswer,
    MultipleChoice,
    OverlongPenalty,
    PostTrainSpace,
    PreTrainSpace,
    TokenMean,
    Warmup,
    WithEntropy,
)
from prerl_jax.config import CriticSpec, OptimizerSpec
from prerl_jax.config.checks import validate
from prerl_jax.config.io import config_names, load_config, render

FOLDER = Path(__file__).resolve().parents[2] / "configs"
NAMES = sorted(p.stem for p in FOLDER.glob("*.py") if not p.stem.startswith("_"))
OFFLINE = ("lab", "ppo_lab", "safety_lab", "smollm2_135m", "smollm2_three_kinds")
QWEN = [name for name in NAMES if "_qwen3_" in name and not name.startswith(("ppo", "w_reinforce", "dapo"))]


def test_the_configs_that_there_must_be():
    assert config_names() == NAMES
    recipes = ("dsrl", "grpo", "nsr_prerl", "psr_prerl", "nsr_rl", "psr_rl")
    assert {
        *OFFLINE,
        "gsm8k",
        "mathqa",
        "logical_deduction",
        "dsrl_qwen3_8b_math",
        "qwen3_0p6b_v5e1",
        "qwen3_1p7b_v5e8",
        *(f"{r}_qwen3_4b_math" for r in recipes),
    } <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_config_builds_and_round_trips(name, tmp_path):
    config = load_config(FOLDER / f"{name}.py")
    assert validate(config) is config
    assert config.name == name
    (tmp_path / "config.py").write_text(render(config))
    again = load_config(tmp_path / "config.py")
    assert again == config
    assert max(map(len, render(config).splitlines())) <= 120
    assert render(again) == render(config)


@pytest.mark.parametrize("name", NAMES)
def test_a_config_says_how_to_run_it_on_what_and_what_to_expect(name):
    text = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text()))
    assert "python -m prerl_jax.launch" in text
    assert name == "lab" or f"--config configs/{name}.py" in text
    assert "ardware" in text
    assert "Expected" in text


@pytest.mark.parametrize("name", QWEN)
def test_the_published_hyper_parameters(name):
    """DESIGN: the table of method facts, arXiv 2604.14142 and its published code."""
    config = load_config(name)
    sampling = config.sampling
    assert (sampling.prompts_per_step, sampling.group_size, sampling.max_new_tokens) == (128, 8, 8192)
    assert (sampling.top_k, sampling.top_p) == (None, None)
    assert config.alignment.every == 10
    assert (config.data.max_prompt_tokens, config.data.too_long) == (1024, "truncate_left")
    assert config.data.template.arguments == (("enable_thinking", False),)
    assert config.optimizer == OptimizerSpec(1e-6, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.01, max_grad_norm=1.0)
    assert sum(phase.steps for phase in config.phases) == 348
    for phase in config.phases:
        assert phase.temperature == 1.0
        assert not phase.reset_optimizer
        assert phase.learning_rate is None
        assert phase.objective == ClippedPG(
            clip_low=0.2, clip_high=0.28 if phase.name == "grpo" else 0.2, dual_clip=10.0
        )
        marginal = "prerl" in phase.name
        assert phase.space == (PreTrainSpace("auto") if marginal else PostTrainSpace())
        assert phase.aggregation == TokenMean(scale=0.01 if marginal else 1.0)
        keep = {"n": "negative", "p": "positive"}.get(phase.name[0], "all")
        assert phase.advantage == GroupRelative(normalize_std=not marginal, keep=keep)


def test_w_reinforce_as_it_was_published():
    """RLVR-Decomposed, arXiv 2506.01347 and its published run of Qwen3-4B."""
    config = load_config("w_reinforce_qwen3_4b_math")
    sampling, (phase,) = config.sampling, config.phases
    assert (sampling.prompts_per_step, sampling.group_size, sampling.max_new_tokens) == (1024, 8, 31744)
    assert (phase.steps, phase.minibatches, phase.epochs) == (20 * (7500 // 1024), 1024 // 256, 1)
    assert phase.advantage == BinaryAdvantage(positive=0.1)
    assert phase.objective == WithEntropy(ClippedPG(clip_low=0.2, clip_high=0.2, dual_clip=None), 0.001)
    assert (phase.space, phase.aggregation) == (PostTrainSpace(), TokenMean())
    assert config.optimizer.learning_rate == 1e-6


def test_dapo_as_it_was_published():
    """arXiv 2503.14476, for another model and data set."""
    config = load_config("dapo_qwen3_4b_math")
    sampling, (phase,) = config.sampling, config.phases
    assert (sampling.prompts_per_step, sampling.group_size, sampling.max_new_tokens) == (512, 16, 16384 + 4096)
    assert (phase.minibatches, phase.epochs, phase.max_resamples) == (16, 1, 3)
    assert phase.reward_shaping == OverlongPenalty(4096)
    assert phase.objective == ClippedPG(clip_low=0.2, clip_high=0.28, dual_clip=None)
    assert phase.learning_rate == Warmup(20, then=1e-6)
    assert config.optimizer.weight_decay == 0.1


def test_ppo_is_grpos_rollouts_with_the_hyper_parameters_of_verls_examples():
    ours, grpo = load_config("ppo_qwen3_4b_math"), load_config("grpo_qwen3_4b_math")
    assert (ours.model, ours.data, ours.optimizer) == (grpo.model, grpo.data, grpo.optimizer)
    assert (ours.sampling.prompts_per_step, ours.sampling.group_size) == (128, 8)
    assert ours.critic == CriticSpec(OptimizerSpec(1e-5, weight_decay=0.01, max_grad_norm=1.0), value_clip=0.5)
    warmup, phase = ours.phases
    assert (warmup.steps, warmup.aggregation, phase.steps, phase.aggregation) == (10, TokenMean(0.0), 348, TokenMean())
    for each in ours.phases:
        assert (each.advantage, each.objective) == (GAE(1.0, 1.0), ClippedPG(0.2, 0.2, dual_clip=None))
        assert (each.minibatches, each.epochs, each.reward_shaping) == (4, 1, None)


def test_dsrl_warms_up_for_twenty_steps():
    for size in ("4b", "8b"):
        assert [(p.name, p.steps) for p in load_config(f"dsrl_qwen3_{size}_math").phases] == [
            ("nsr_prerl", 20),
            ("rl", 328),
        ]


@pytest.mark.parametrize("name", OFFLINE)
def test_the_problems_of_the_offline_configs_exist_and_do_not_overlap(name):
    data = load_config(name).data
    train, evaluation = ({problem.prompt for problem in source.load()[0]} for source in (data.train, data.evaluation))
    assert train
    assert evaluation
    assert not train & evaluation


def test_each_of_the_three_kinds_has_its_own_verifier_and_every_sample_file_is_verified():
    data = load_config("smollm2_three_kinds").data
    problems = (*data.train.load()[0], *data.evaluation.load()[0])
    assert {problem.source for problem in problems} == {"word_problems", "five_way", "deduction"}
    for problem in problems:
        (verifier,) = data.verifier.delegates(problem)
        assert isinstance(verifier, GSM8KAnswer if problem.source == "word_problems" else MultipleChoice)
        assert verifier(problem, problem.answer_format.replace("{answer}", problem.answer)).verdict == "right"


def test_the_sources_of_the_six_sets_are_those_that_the_verifier_names():
    data = load_config("six_sets_qwen3_4b_math").data
    assert {source for source, _ in data.evaluation_verifier.verifiers} == {"aime24", "qwen_aime_2025", "amc"}
    readers = {getattr(source, "source", "") for source, _ in data.evaluation.parts}
    assert readers == {"math500", "aime24", "", "amc", "minerva", "olympiadbench"}
