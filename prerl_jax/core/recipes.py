"""Recipes: the paper's algorithms and their rivals. Each returns a tuple of Phases; the train step is the same for all.

docs/algorithms.md has the formula and the source of each. PreRL, NSR, PSR and DSRL select responses by the sign of the
advantage (arXiv 2604.14142). PSR, NSR and W-REINFORCE of RLVR-Decomposed (2506.01347) select by the reward, without a
baseline. A recipe is a starting point: `dataclasses.replace(phase, space=PreTrainSpace())` moves any of them to P(y).

In all of them `steps` is the number of rollout batches, at least 1, and `prefix` is that of PreTrainSpace. A setting
out of range raises ValueError.
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
"""The published coefficient of losses in pre-train space. With Adam its main effect is that gradients are rarely
clipped."""
WARMUP_GUARDS = (
    Guard("train/logprob", FellBy(0.25), RollBack()),
    Guard("train/unsolved_groups", RoseBy(0.2), RollBack(), patience=2),
    Guard("train/accuracy", FellBy(0.15), RollBack(), patience=2),
    Guard("train/entropy", RoseToRatio(1.5), Warn()),
    Guard("train/entropy", FellToRatio(0.66), Warn()),
    Guard("train/length", RoseToRatio(2.0), Warn()),
    Guard("train/length", FellToRatio(0.5), Warn()),
)
"""Guards for NSR-PreRL. docs/guards.md shows what each of them saw in the lab, and when."""


def _rl(name: str, steps: int, keep: str, high: float) -> Phase:
    return Phase(name, steps, PostTrainSpace(), GroupRelative(True, keep), ClippedPG(clip_low=0.2, clip_high=high))


def _prerl(name: str, steps: int, keep: str, prefix: int | str | None) -> Phase:
    aggregation = TokenMean(scale=PRETRAIN_SCALE)
    return Phase(name, steps, PreTrainSpace(prefix), GroupRelative(False, keep), ClippedPG(), aggregation)


def _binary(name: str, steps: int, advantage: BinaryAdvantage) -> Phase:
    return Phase(name, steps, advantage=advantage, objective=ClippedPG(dual_clip=None))


def grpo(*, steps: int) -> Phases:
    """GRPO, the baseline of arXiv 2604.14142: all responses, clipped at 0.2 and 0.28."""
    return (_rl("grpo", steps, "all", 0.28),)


def nsr_rl(*, steps: int) -> Phases:
    """RL on responses with a negative advantage alone, in P(y|x) (arXiv 2604.14142)."""
    return (_rl("nsr_rl", steps, "negative", 0.2),)


def psr_rl(*, steps: int) -> Phases:
    """RL on responses with a positive advantage alone, in P(y|x) (arXiv 2604.14142)."""
    return (_rl("psr_rl", steps, "positive", 0.2),)


def prerl(*, steps: int, prefix: int | str | None = "auto") -> Phases:
    """PreRL: RL on all responses, in P(y) (arXiv 2604.14142)."""
    return (_prerl("prerl", steps, "all", prefix),)


def nsr_prerl(*, steps: int, prefix: int | str | None = "auto") -> Phases:
    """PreRL on responses with a negative advantage alone: the warm-up of DSRL (arXiv 2604.14142)."""
    return (_prerl("nsr_prerl", steps, "negative", prefix),)


def psr_prerl(*, steps: int, prefix: int | str | None = "auto") -> Phases:
    """PreRL on responses with a positive advantage alone (arXiv 2604.14142)."""
    return (_prerl("psr_prerl", steps, "positive", prefix),)


def dsrl(*, warmup: int, total: int, prefix: int | str | None = "auto", guards: tuple[Guard, ...] = ()) -> Phases:
    """Dual-space RL (arXiv 2604.14142): `warmup` steps of NSR-PreRL, then GRPO up to `total` steps.

    The optimizer's moments are carried over. `guards` are those of the warm-up, for instance WARMUP_GUARDS; if one ends
    the warm-up early, GRPO still has `total - warmup` steps. Raises ValueError unless 0 <= warmup <= total.
    """
    if not 0 <= warmup <= total or total < 1:
        raise ValueError(f"dsrl needs 0 <= warmup <= total and total >= 1, got warmup={warmup}, total={total}.")
    first = nsr_prerl(steps=warmup, prefix=prefix) if warmup else ()
    first = tuple(dataclasses.replace(phase, guards=guards) for phase in first)
    second = (_rl("rl", total - warmup, "all", 0.2),) if total > warmup else ()
    return first + second


def dr_grpo(*, steps: int) -> Phases:
    """Dr.GRPO (arXiv 2503.20783): no standard deviation in the advantage, no response lengths in the mean."""
    advantage, objective = GroupRelative(normalize_std=False), ClippedPG(dual_clip=None)
    return (Phase("dr_grpo", steps, advantage=advantage, objective=objective, aggregation=SequenceMeanTokenSumNorm()),)


def dapo(*, steps: int, overlong_buffer: int, filter_truncated: bool = False, max_resamples: int = 3) -> Phases:
    """DAPO (arXiv 2503.14476): clip-higher, token mean, dynamic sampling and an overlong penalty.

    Args:
      steps: the number of rollout batches.
      overlong_buffer: the penalty rises over this many last tokens, see OverlongPenalty.
      filter_truncated: leave truncated responses out.
      max_resamples: the most further batches of prompts a step, see Phase.
    """
    phase = Phase(
        "dapo",
        steps,
        advantage=DropTruncated(GroupRelative()) if filter_truncated else GroupRelative(),
        objective=ClippedPG(clip_low=0.2, clip_high=0.28, dual_clip=None),
        reward_shaping=OverlongPenalty(overlong_buffer),
        max_resamples=max_resamples,
    )
    return (phase,)


def reinforce(*, steps: int, baseline: float = 0.0) -> Phases:
    """REINFORCE (Williams, 1992): reward minus a constant, times the log-probability of the whole response."""
    advantage, aggregation = ConstantBaseline(baseline), SequenceMeanTokenSum()
    return (Phase("reinforce", steps, advantage=advantage, objective=Reinforce(), aggregation=aggregation),)


def rloo(*, steps: int) -> Phases:
    """RLOO (arXiv 2402.14740): REINFORCE with the mean reward of the group's other responses as the baseline."""
    aggregation = SequenceMeanTokenSum()
    return (Phase("rloo", steps, advantage=LeaveOneOut(), objective=Reinforce(), aggregation=aggregation),)


def reinforce_pp(*, steps: int, group_baseline: bool = False) -> Phases:
    """REINFORCE++ (arXiv 2501.03262): rewards normalised over the batch, see BatchNormalized for `group_baseline`."""
    name = "reinforce_pp_baseline" if group_baseline else "reinforce_pp"
    return (Phase(name, steps, advantage=BatchNormalized(group_baseline), objective=ClippedPG(dual_clip=None)),)


def gspo(*, steps: int, clip_low: float = 3e-4, clip_high: float = 4e-4) -> Phases:
    """GSPO (arXiv 2507.18071): one ratio a sequence, clipped to a small range."""
    return (Phase("gspo", steps, objective=GSPO(clip_low, clip_high), aggregation=SequenceMeanTokenMean()),)


def cispo(*, steps: int, clip_high: float = 4.0) -> Phases:
    """CISPO (arXiv 2506.13585): the ratio is a clipped weight, and every token keeps its gradient."""
    return (Phase("cispo", steps, objective=CISPO(clip_high=clip_high)),)


def psr(*, steps: int) -> Phases:
    """PSR (arXiv 2506.01347): responses with a right reward alone; `psr_rl` selects by the advantage."""
    return (_binary("psr", steps, BinaryAdvantage(keep="positive")),)


def nsr(*, steps: int) -> Phases:
    """NSR (arXiv 2506.01347): responses with a wrong reward alone; unlike `nsr_rl`, groups that are all wrong count."""
    return (_binary("nsr", steps, BinaryAdvantage(keep="negative")),)


def w_reinforce(*, steps: int, positive: float = 0.1) -> Phases:
    """W-REINFORCE (arXiv 2506.01347): wrong responses have advantage -1, right ones `positive`, above 0."""
    return (_binary("w_reinforce", steps, BinaryAdvantage(positive=positive)),)


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
    """PPO (arXiv 1707.06347) with a critic; the config needs a CriticSpec.

    Args:
      steps: rollout batches that train policy and critic.
      critic_warmup: rollout batches before them that train the critic alone. The aggregation has scale 0 there, so the
        policy has no trained token, and exactly no update.
      gamma: discount of GAE, in [0, 1].
      lam: lambda of GAE, in [0, 1].
      clip_low: the ratio is clipped below at 1 - clip_low.
      clip_high: the ratio is clipped above at 1 + clip_high.
      minibatches: minibatches of an epoch.
      epochs: the number of times that each rollout is trained on; a step has minibatches * epochs updates.
      kl: coefficient of a KL penalty in each token's reward, against the initial model. None: no penalty.
    """
    ppo = Phase(
        "ppo",
        steps,
        advantage=GAE(gamma, lam),
        objective=ClippedPG(clip_low, clip_high, dual_clip=None),
        reward_shaping=None if kl is None else KLPenalty(kl),
        reference=None if kl is None else InitialModel(),
        epochs=epochs,
        minibatches=minibatches,
    )
    if not critic_warmup:
        return (ppo,)
    warmup = dataclasses.replace(ppo, name="critic_warmup", steps=critic_warmup, aggregation=TokenMean(scale=0.0))
    return (warmup, ppo)


def mixed(
    *,
    steps: int,
    pretrain: float | Schedule = PRETRAIN_SCALE,
    posttrain: float | Schedule = 1.0,
    keep: str = "negative",
    prefix: int | str | None = "auto",
) -> Phases:
    """Both spaces in one step: PreRL on the responses that `keep` selects, and RL on all.

    Args:
      steps: the number of rollout batches.
      pretrain: coefficient of the term in P(y): a number above 0, or a Schedule.
      posttrain: coefficient of the term in P(y|x), likewise.
      keep: "all", "negative" or "positive", for the term in P(y).
      prefix: of the term in P(y), see PreTrainSpace.
    """
    terms = (
        Term(PreTrainSpace(prefix), GroupRelative(False, keep), TokenMean(), pretrain),
        Term(PostTrainSpace(), GroupRelative(True), TokenMean(), posttrain),
    )
    return (Phase("mixed", steps, terms=terms),)


def prompt_dropout(*, steps: int, share: float, prefix: int | str | None = "auto") -> Phases:
    """RL in which each response loses its prompt with probability `share`, in [0, 1]: between P(y|x) and P(y)."""
    return (Phase("prompt_dropout", steps, PromptDropout(share, prefix)),)
