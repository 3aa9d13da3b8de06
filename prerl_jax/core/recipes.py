"""Recipes: the paper's algorithms and their rivals, each a tuple of Phases over the same train step.

docs/algorithms.md has the formula and the source of each. PreRL, NSR, PSR and DSRL select by the sign of the advantage
(arXiv 2604.14142); PSR, NSR and W-REINFORCE of RLVR-Decomposed (2506.01347) by the reward, without a baseline. A recipe
is a starting point: `dataclasses.replace(phase, space=PreTrainSpace())` moves any of them to P(y).
"""

from __future__ import annotations

import dataclasses

from prerl_jax.core.advantages import (
    BatchNormalized,
    BinaryAdvantage,
    ConstantBaseline,
    DropTruncated,
    GroupRelative,
    LeaveOneOut,
)
from prerl_jax.core.aggregation import SequenceMeanTokenMean, SequenceMeanTokenSum, SequenceMeanTokenSumNorm, TokenMean
from prerl_jax.core.gae import GAE
from prerl_jax.core.guards import FellBy, FellToRatio, Guard, RollBack, RoseBy, RoseToRatio, Warn
from prerl_jax.core.objectives import CISPO, GSPO, ClippedPG, Reinforce
from prerl_jax.core.phases import InitialModel, Phase, Phases, Term
from prerl_jax.core.reward_shaping import KLPenalty, OverlongPenalty
from prerl_jax.core.spaces import PostTrainSpace, PreTrainSpace, PromptDropout
from prerl_jax.core.types import Schedule

PRETRAIN_SCALE = 0.01
"""The published coefficient on losses in pre-train space. Under Adam it mostly disarms the gradient clipping."""
WARMUP_GUARDS = (
    Guard("train/logprob", FellBy(0.25), RollBack()),
    Guard("train/unsolved_groups", RoseBy(0.2), RollBack(), patience=2),
    Guard("train/accuracy", FellBy(0.15), RollBack(), patience=2),
    Guard("train/entropy", RoseToRatio(1.5), Warn()),
    Guard("train/entropy", FellToRatio(0.66), Warn()),
    Guard("train/length", RoseToRatio(2.0), Warn()),
    Guard("train/length", FellToRatio(0.5), Warn()),
)
"""What NSR-PreRL is watched by: docs/guards.md has what each of them saw in the lab, and when."""


def _rl(name: str, steps: int, keep: str, high: float) -> Phase:
    return Phase(name, steps, PostTrainSpace(), GroupRelative(True, keep), ClippedPG(clip_low=0.2, clip_high=high))


def _prerl(name: str, steps: int, keep: str, prefix: int | str | None) -> Phase:
    aggregation = TokenMean(scale=PRETRAIN_SCALE)
    return Phase(name, steps, PreTrainSpace(prefix), GroupRelative(False, keep), ClippedPG(), aggregation)


def _by_verdict(name: str, steps: int, advantage: BinaryAdvantage) -> Phase:
    return Phase(name, steps, advantage=advantage, objective=ClippedPG(dual_clip=None))


def grpo(*, steps: int) -> Phases:
    """GRPO as the paper's baseline has it: all samples, clip 0.2 / 0.28."""
    return (_rl("grpo", steps, "all", 0.28),)


def nsr_rl(*, steps: int) -> Phases:
    """Negative samples alone, in P(y|x)."""
    return (_rl("nsr_rl", steps, "negative", 0.2),)


def psr_rl(*, steps: int) -> Phases:
    """Positive samples alone, in P(y|x)."""
    return (_rl("psr_rl", steps, "positive", 0.2),)


def prerl(*, steps: int, prefix: int | str | None = "auto") -> Phases:
    """All samples, in P(y)."""
    return (_prerl("prerl", steps, "all", prefix),)


def nsr_prerl(*, steps: int, prefix: int | str | None = "auto") -> Phases:
    """Negative samples alone, in P(y): the warm-up that prunes wrong reasoning."""
    return (_prerl("nsr_prerl", steps, "negative", prefix),)


def psr_prerl(*, steps: int, prefix: int | str | None = "auto") -> Phases:
    """Positive samples alone, in P(y)."""
    return (_prerl("psr_prerl", steps, "positive", prefix),)


def dsrl(*, warmup: int, total: int, prefix: int | str | None = "auto", guards: tuple[Guard, ...] = ()) -> Phases:
    """Dual-space RL: `warmup` steps of NSR-PreRL, then GRPO up to `total` steps with the moments carried over.

    `guards` are the warm-up's, for instance WARMUP_GUARDS; one that ends it early leaves the steps of GRPO as many.
    """
    if not 0 <= warmup <= total or total < 1:
        raise ValueError(f"dsrl needs 0 <= warmup <= total and total >= 1, got warmup={warmup}, total={total}.")
    first = nsr_prerl(steps=warmup, prefix=prefix) if warmup else ()
    first = tuple(dataclasses.replace(phase, guards=guards) for phase in first)
    second = (_rl("rl", total - warmup, "all", 0.2),) if total > warmup else ()
    return first + second


def dr_grpo(*, steps: int) -> Phases:
    """Dr.GRPO: no standard deviation in the advantage, no length in the mean."""
    how = {"advantage": GroupRelative(normalize_std=False), "aggregation": SequenceMeanTokenSumNorm()}
    return (Phase("dr_grpo", steps, objective=ClippedPG(dual_clip=None), **how),)


def dapo(*, steps: int, overlong_buffer: int, filter_truncated: bool = False, max_resamples: int = 3) -> Phases:
    """DAPO: clip-higher, token mean, dynamic sampling, and an overlong penalty over the last `overlong_buffer` tokens.

    `filter_truncated` leaves truncated responses out. `max_resamples` bounds the further draws of a step, see `Phase`.
    """
    advantage = DropTruncated(GroupRelative()) if filter_truncated else GroupRelative()
    how = {
        "objective": ClippedPG(clip_low=0.2, clip_high=0.28, dual_clip=None),
        "reward_shaping": OverlongPenalty(overlong_buffer),
    }
    return (Phase("dapo", steps, advantage=advantage, max_resamples=max_resamples, **how),)


def reinforce(*, steps: int, baseline: float = 0.0) -> Phases:
    """REINFORCE: reward minus a constant, times the log-probability of the whole response."""
    how = {"advantage": ConstantBaseline(baseline), "objective": Reinforce(), "aggregation": SequenceMeanTokenSum()}
    return (Phase("reinforce", steps, **how),)


def rloo(*, steps: int) -> Phases:
    """REINFORCE with the mean of the group's other responses as the baseline."""
    how = {"advantage": LeaveOneOut(), "objective": Reinforce(), "aggregation": SequenceMeanTokenSum()}
    return (Phase("rloo", steps, **how),)


def reinforce_pp(*, steps: int, group_baseline: bool = False) -> Phases:
    """REINFORCE++: rewards normalised over the batch; with `group_baseline`, after the group's mean is taken off."""
    name = "reinforce_pp_baseline" if group_baseline else "reinforce_pp"
    return (Phase(name, steps, advantage=BatchNormalized(group_baseline), objective=ClippedPG(dual_clip=None)),)


def gspo(*, steps: int, clip_low: float = 3e-4, clip_high: float = 4e-4) -> Phases:
    """GSPO: one ratio a sequence, clipped in its own small range."""
    return (Phase("gspo", steps, objective=GSPO(clip_low, clip_high), aggregation=SequenceMeanTokenMean()),)


def cispo(*, steps: int, clip_high: float = 4.0) -> Phases:
    """CISPO: the ratio is a clipped weight, and no token is left without a gradient."""
    return (Phase("cispo", steps, objective=CISPO(clip_high=clip_high)),)


def psr(*, steps: int) -> Phases:
    """Right responses alone, by their reward: what `psr_rl` selects by the advantage."""
    return (_by_verdict("psr", steps, BinaryAdvantage(keep="positive")),)


def nsr(*, steps: int) -> Phases:
    """Wrong responses alone, by their reward, groups that are all wrong included: unlike `nsr_rl`."""
    return (_by_verdict("nsr", steps, BinaryAdvantage(keep="negative")),)


def w_reinforce(*, steps: int, positive: float = 0.1) -> Phases:
    """Weighted REINFORCE: wrong responses at advantage -1, right ones at `positive`."""
    return (_by_verdict("w_reinforce", steps, BinaryAdvantage(positive=positive)),)


def ppo(
    *,
    steps: int,
    critic_warmup: int = 0,
    gamma: float = 1.0,
    lam: float = 1.0,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    minibatches: int = 1,
    epochs: int = 1,
    kl: float | None = None,
) -> Phases:
    """PPO with a critic, whose values GAE(gamma, lam) turns into whitened advantages by token; needs a `CriticSpec`.

    Before the `steps` that train both, `critic_warmup` steps train the critic alone: a weighing of scale 0 gives the
    policy no token, so exactly no update. `kl` is the coefficient of the divergence from the initial model that each
    token's reward has taken off. A step has `minibatches` * `epochs` updates.
    """
    how = {"advantage": GAE(gamma, lam), "objective": ClippedPG(clip_low, clip_high, dual_clip=None)}
    how |= {"minibatches": minibatches, "epochs": epochs}
    how |= {} if kl is None else {"reward_shaping": KLPenalty(kl), "reference": InitialModel()}
    warmup = (Phase("critic_warmup", critic_warmup, aggregation=TokenMean(scale=0.0), **how),) if critic_warmup else ()
    return (*warmup, Phase("ppo", steps, **how))


def mixed(
    *,
    steps: int,
    pretrain: float | Schedule = PRETRAIN_SCALE,
    posttrain: float | Schedule = 1.0,
    keep: str = "negative",
    prefix: int | str | None = "auto",
) -> Phases:
    """Both spaces in one step: PreRL on the samples of `keep` and RL on all, with a coefficient or a Schedule each."""
    terms = (
        Term(PreTrainSpace(prefix), GroupRelative(False, keep), TokenMean(), pretrain),
        Term(PostTrainSpace(), GroupRelative(True), TokenMean(), posttrain),
    )
    return (Phase("mixed", steps, terms=terms),)


def prompt_dropout(*, steps: int, share: float, prefix: int | str | None = "auto") -> Phases:
    """RL with each response's prompt taken away with probability `share`: between P(y|x) and P(y)."""
    return (Phase("prompt_dropout", steps, PromptDropout(share, prefix)),)
