"""Recipes of other algorithms. Each returns a tuple of Phases, as in `recipes`; `steps` counts rollout batches.

docs/algorithms.md has the formula and the source of each. PSR, NSR and W-REINFORCE of RLVR-Decomposed (2506.01347)
select by the verdict, without a baseline. A recipe is a starting point: all of these train in P(y|x), and
`dataclasses.replace(phase, space=PreTrainSpace())` moves any of them to P(y). A setting out of range raises ValueError.
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
from prerl_jax.core.objectives import CISPO, GSPO, ClippedPG, Reinforce
from prerl_jax.core.phases import InitialModel, Phase, Phases
from prerl_jax.core.reward_shaping import KLPenalty, OverlongPenalty


def _binary(name: str, steps: int, advantage: BinaryAdvantage) -> Phase:
    return Phase(name, steps, advantage=advantage, objective=ClippedPG(dual_clip=None))


def dr_grpo(*, steps: int) -> Phases:
    """Dr.GRPO (arXiv 2503.20783): no standard deviation in the advantage, no response lengths in the mean.

    Args:
      steps: rollout batches, 1 or more.

    Returns:
      One phase.
    """
    advantage, objective = GroupRelative(normalize_std=False), ClippedPG(dual_clip=None)
    return (Phase("dr_grpo", steps, advantage=advantage, objective=objective, aggregation=SequenceMeanTokenSumNorm()),)


def dapo(*, steps: int, overlong_buffer: int, filter_truncated: bool = False, max_resamples: int = 3) -> Phases:
    """DAPO (arXiv 2503.14476): clip-higher, token mean, dynamic sampling and an overlong penalty.

    Args:
      steps: the number of rollout batches.
      overlong_buffer: the penalty rises to 0.5 over this many last tokens. For rewards of 1 and -1, see OverlongPenalty.
      filter_truncated: leave truncated responses out.
      max_resamples: the most further batches of prompts a step, see Phase.

    Returns:
      One phase.
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
    """REINFORCE (Williams, 1992): reward minus a constant, times the log-probability of the whole response.

    Args:
      steps: rollout batches, 1 or more.
      baseline: the constant, finite.

    Returns:
      One phase.
    """
    advantage, aggregation = ConstantBaseline(baseline), SequenceMeanTokenSum()
    return (Phase("reinforce", steps, advantage=advantage, objective=Reinforce(), aggregation=aggregation),)


def rloo(*, steps: int) -> Phases:
    """RLOO (arXiv 2402.14740): REINFORCE with the mean reward of the group's other responses as the baseline.

    Args:
      steps: rollout batches, 1 or more.

    Returns:
      One phase.
    """
    aggregation = SequenceMeanTokenSum()
    return (Phase("rloo", steps, advantage=LeaveOneOut(), objective=Reinforce(), aggregation=aggregation),)


def reinforce_pp(*, steps: int, group_baseline: bool = False) -> Phases:
    """REINFORCE++ (arXiv 2501.03262): rewards normalised over the batch, see BatchNormalized for `group_baseline`.

    Args:
      steps: rollout batches, 1 or more.
      group_baseline: subtract the mean of the group first, see BatchNormalized.

    Returns:
      One phase.
    """
    name = "reinforce_pp_baseline" if group_baseline else "reinforce_pp"
    return (Phase(name, steps, advantage=BatchNormalized(group_baseline), objective=ClippedPG(dual_clip=None)),)


def gspo(*, steps: int, clip_low: float = 3e-4, clip_high: float = 4e-4) -> Phases:
    """GSPO (arXiv 2507.18071): one ratio per sequence, clipped to a small range.

    Args:
      steps: rollout batches, 1 or more.
      clip_low: the sequence's ratio is clipped below at 1 - clip_low.
      clip_high: the sequence's ratio is clipped above at 1 + clip_high.

    Returns:
      One phase.
    """
    return (Phase("gspo", steps, objective=GSPO(clip_low, clip_high), aggregation=SequenceMeanTokenMean()),)


def cispo(*, steps: int, clip_high: float = 4.0) -> Phases:
    """CISPO (arXiv 2506.13585): the ratio is a clipped weight, and every token keeps its gradient.

    Args:
      steps: rollout batches, 1 or more.
      clip_high: the ratio is clipped above at 1 + clip_high.

    Returns:
      One phase.
    """
    return (Phase("cispo", steps, objective=CISPO(clip_high=clip_high)),)


def psr(*, steps: int) -> Phases:
    """PSR (arXiv 2506.01347): only right responses; `psr_rl` selects by the advantage.

    Args:
      steps: rollout batches, 1 or more.

    Returns:
      One phase.
    """
    return (_binary("psr", steps, BinaryAdvantage(keep="positive")),)


def nsr(*, steps: int) -> Phases:
    """NSR (arXiv 2506.01347): only wrong responses; unlike `nsr_rl`, groups that are all wrong count.

    Args:
      steps: rollout batches, 1 or more.

    Returns:
      One phase.
    """
    return (_binary("nsr", steps, BinaryAdvantage(keep="negative")),)


def w_reinforce(*, steps: int, positive: float = 0.1) -> Phases:
    """W-REINFORCE (arXiv 2506.01347): wrong responses have advantage -1, right ones `positive`, above 0.

    Args:
      steps: rollout batches, 1 or more.
      positive: the advantage of right responses, above 0.

    Returns:
      One phase.
    """
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
    beta: float | None = None,
) -> Phases:
    """PPO (arXiv 1707.06347) with a critic; the config needs a CriticSpec.

    Args:
      steps: rollout batches that train policy and critic.
      critic_warmup: rollout batches before them that train the critic alone. The aggregation has scale 0 there, so the
        policy has no trained token and is not updated at all.
      gamma: discount of GAE, in [0, 1].
      lam: lambda of GAE, in [0, 1].
      clip_low: the ratio is clipped below at 1 - clip_low.
      clip_high: the ratio is clipped above at 1 + clip_high.
      minibatches: minibatches of an epoch.
      epochs: the number of times that each rollout is trained on; a step has minibatches * epochs updates.
      beta: coefficient of a KL penalty in each token's reward, against the initial model. None: no penalty.

    Returns:
      One phase, after the phase `critic_warmup` if that has steps.
    """
    ppo = Phase(
        "ppo",
        steps,
        advantage=GAE(gamma, lam),
        objective=ClippedPG(clip_low, clip_high, dual_clip=None),
        reward_shaping=None if beta is None else KLPenalty(beta),
        reference=None if beta is None else InitialModel(),
        epochs=epochs,
        minibatches=minibatches,
    )
    if not critic_warmup:
        return (ppo,)
    warmup = dataclasses.replace(ppo, name="critic_warmup", steps=critic_warmup, aggregation=TokenMean(scale=0.0))
    return (warmup, ppo)
