"""Recipes: the exact contents of each."""

import dataclasses
import inspect

import pytest

import prerl_jax as pj
from prerl_jax.core import baselines, recipes


def test_guards_are_those_of_the_warm_up():
    watched, plain = pj.dsrl(warmup=2, total=5, guards=pj.WARMUP_GUARDS), pj.dsrl(warmup=2, total=5)
    assert watched == (dataclasses.replace(plain[0], guards=pj.WARMUP_GUARDS), plain[1])


def named(name, **settings):
    return pj.Phase(name, 7, **settings)


def rl(name, steps, keep, high):
    objective = pj.ClippedPG(clip_low=0.2, clip_high=high, dual_clip=10.0)
    return pj.Phase(name, steps, pj.PostTrainSpace(), pj.GroupRelative(True, keep), objective, pj.TokenMean(1.0))


def pre(name, steps, keep, prefix):
    objective = pj.ClippedPG(clip_low=0.2, clip_high=0.2, dual_clip=10.0)
    advantage = pj.GroupRelative(normalize_std=False, keep=keep)
    return pj.Phase(name, steps, pj.PreTrainSpace(prefix), advantage, objective, pj.TokenMean(0.01))


RECIPES = [
    (pj.grpo(steps=7), [rl("grpo", 7, "all", 0.28)]),
    (pj.nsr_rl(steps=7), [rl("nsr_rl", 7, "negative", 0.2)]),
    (pj.psr_rl(steps=7), [rl("psr_rl", 7, "positive", 0.2)]),
    (pj.prerl(steps=7), [pre("prerl", 7, "all", "auto")]),
    (pj.nsr_prerl(steps=7, prefix=3), [pre("nsr_prerl", 7, "negative", 3)]),
    (pj.psr_prerl(steps=7, prefix=None), [pre("psr_prerl", 7, "positive", None)]),
    (pj.dsrl(warmup=20, total=300), [pre("nsr_prerl", 20, "negative", "auto"), rl("rl", 280, "all", 0.2)]),
    (pj.dsrl(warmup=2, total=3, prefix=5), [pre("nsr_prerl", 2, "negative", 5), rl("rl", 1, "all", 0.2)]),
    (pj.dsrl(warmup=0, total=3), [rl("rl", 3, "all", 0.2)]),
    (pj.dsrl(warmup=3, total=3), [pre("nsr_prerl", 3, "negative", "auto")]),
]
PPO, CLIPPED = pj.ClippedPG(0.2, 0.2, None), pj.GroupRelative(True)
SUM = pj.SequenceMeanTokenSum()
RIVALS = [
    (
        pj.dr_grpo(steps=7),
        named("dr_grpo", advantage=pj.GroupRelative(False), objective=PPO, aggregation=pj.SequenceMeanTokenSumNorm()),
    ),
    (
        pj.dapo(steps=7, overlong_buffer=4),
        named(
            "dapo",
            advantage=CLIPPED,
            max_resamples=3,
            objective=pj.ClippedPG(0.2, 0.28, None),
            reward_shaping=pj.OverlongPenalty(4),
        ),
    ),
    (
        pj.dapo(steps=7, overlong_buffer=4, filter_truncated=True),
        named(
            "dapo",
            advantage=pj.DropTruncated(CLIPPED),
            max_resamples=3,
            objective=pj.ClippedPG(0.2, 0.28, None),
            reward_shaping=pj.OverlongPenalty(4),
        ),
    ),
    (
        pj.reinforce(steps=7, baseline=0.5),
        named("reinforce", advantage=pj.ConstantBaseline(0.5), objective=pj.Reinforce(), aggregation=SUM),
    ),
    (pj.rloo(steps=7), named("rloo", advantage=pj.LeaveOneOut(), objective=pj.Reinforce(), aggregation=SUM)),
    (pj.reinforce_pp(steps=7), named("reinforce_pp", advantage=pj.BatchNormalized(), objective=PPO)),
    (
        pj.reinforce_pp(steps=7, group_baseline=True),
        named("reinforce_pp_baseline", advantage=pj.BatchNormalized(True), objective=PPO),
    ),
    (
        pj.gspo(steps=7),
        named("gspo", advantage=CLIPPED, objective=pj.GSPO(3e-4, 4e-4), aggregation=pj.SequenceMeanTokenMean()),
    ),
    (pj.cispo(steps=7), named("cispo", advantage=CLIPPED, objective=pj.CISPO(None, 4.0))),
    (pj.psr(steps=7), named("psr", advantage=pj.BinaryAdvantage(1.0, 1.0, "positive"), objective=PPO)),
    (pj.nsr(steps=7), named("nsr", advantage=pj.BinaryAdvantage(1.0, 1.0, "negative"), objective=PPO)),
    (pj.w_reinforce(steps=7), named("w_reinforce", advantage=pj.BinaryAdvantage(0.1, 1.0, "all"), objective=PPO)),
    (
        pj.mixed(steps=7, pretrain=pj.Linear(0.1, 0.0, 5), prefix=3),
        named(
            "mixed",
            terms=(
                pj.Term(pj.PreTrainSpace(3), pj.GroupRelative(False, "negative"), coefficient=pj.Linear(0.1, 0.0, 5)),
                pj.Term(pj.PostTrainSpace(), pj.GroupRelative(True), coefficient=1.0),
            ),
        ),
    ),
    (pj.prompt_dropout(steps=7, share=0.25), named("prompt_dropout", space=pj.PromptDropout(0.25, "auto"))),
]


@pytest.mark.parametrize(("phases", "expected"), RIVALS)
def test_the_rivals_recipes(phases, expected):
    assert phases == (expected,)
    assert eval(repr(phases), vars(pj)) == phases


@pytest.mark.parametrize(("phases", "expected"), RECIPES)
def test_recipes(phases, expected):
    assert phases == tuple(expected)
    for phase in phases:  # what the recipes leave alone: moments carried over, the run's rate, temperature 1, one term
        assert (phase.reset_optimizer, phase.learning_rate, phase.temperature, phase.terms) == (False, None, 1.0, ())
    assert eval(repr(phases), vars(pj)) == phases


ALL_RECIPES = [
    function
    for module in (recipes, baselines)
    for _, function in inspect.getmembers(module, inspect.isfunction)
    if function.__name__[0] != "_"
]


@pytest.mark.parametrize("recipe", ALL_RECIPES)
def test_recipes_take_keywords_alone(recipe):
    kinds = {p.kind for p in inspect.signature(recipe).parameters.values()}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}
    assert getattr(pj, recipe.__name__) is recipe


@pytest.mark.parametrize(("warmup", "total"), [(-1, 3), (4, 3), (0, 0)])
def test_dsrl_refuses_totals_that_do_not_hold_the_warm_up(warmup, total):
    with pytest.raises(ValueError, match=f"warmup={warmup}, total={total}"):
        pj.dsrl(warmup=warmup, total=total)
