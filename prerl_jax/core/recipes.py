"""Recipes of the paper's algorithms, arXiv 2604.14142. Each returns a tuple of Phases; the train step is one for all.

docs/algorithms.md has the formula and the source of each; `baselines` has the recipes of other algorithms. PreRL, NSR,
PSR and DSRL select responses by the sign of the advantage. A setting out of range raises ValueError.
"""

from __future__ import annotations

import dataclasses

from prerl_jax.core.advantages import (
    GroupRelative,
)
from prerl_jax.core.aggregation import TokenMean
from prerl_jax.core.guards import FellBy, FellToRatio, Guard, RollBack, RoseBy, RoseToRatio, Warn
from prerl_jax.core.objectives import ClippedPG
from prerl_jax.core.phases import Phase, Phases, Term
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


def grpo(*, steps: int) -> Phases:
    """GRPO, the baseline of arXiv 2604.14142: all responses, clipped at 0.2 and 0.28.

    Args:
      steps: rollout batches, 1 or more.

    Returns:
      One phase.
    """
    return (_rl("grpo", steps, "all", 0.28),)


def nsr_rl(*, steps: int) -> Phases:
    """RL on only the responses with a negative advantage, in P(y|x) (arXiv 2604.14142).

    Args:
      steps: rollout batches, 1 or more.

    Returns:
      One phase.
    """
    return (_rl("nsr_rl", steps, "negative", 0.2),)


def psr_rl(*, steps: int) -> Phases:
    """RL on only the responses with a positive advantage, in P(y|x) (arXiv 2604.14142).

    Args:
      steps: rollout batches, 1 or more.

    Returns:
      One phase.
    """
    return (_rl("psr_rl", steps, "positive", 0.2),)


def prerl(*, steps: int, prefix: int | str | None = "auto") -> Phases:
    """PreRL: RL on all responses, in P(y) (arXiv 2604.14142).

    Args:
      steps: rollout batches, 1 or more.
      prefix: replaces the prompt, see PreTrainSpace.

    Returns:
      One phase.
    """
    return (_prerl("prerl", steps, "all", prefix),)


def nsr_prerl(*, steps: int, prefix: int | str | None = "auto") -> Phases:
    """PreRL on only the responses with a negative advantage: the warm-up of DSRL (arXiv 2604.14142).

    Args:
      steps: rollout batches, 1 or more.
      prefix: replaces the prompt, see PreTrainSpace.

    Returns:
      One phase.
    """
    return (_prerl("nsr_prerl", steps, "negative", prefix),)


def psr_prerl(*, steps: int, prefix: int | str | None = "auto") -> Phases:
    """PreRL on only the responses with a positive advantage (arXiv 2604.14142).

    Args:
      steps: rollout batches, 1 or more.
      prefix: replaces the prompt, see PreTrainSpace.

    Returns:
      One phase.
    """
    return (_prerl("psr_prerl", steps, "positive", prefix),)


def dsrl(*, warmup: int, total: int, prefix: int | str | None = "auto", guards: tuple[Guard, ...] = ()) -> Phases:
    """Dual-space RL (arXiv 2604.14142): `warmup` steps of NSR-PreRL, then GRPO up to `total` steps.

    The optimizer's moments are carried over.

    Args:
      warmup: rollout batches of NSR-PreRL, 0 or more; 0 leaves that phase out.
      total: rollout batches of both phases, 1 or more and at least `warmup`.
      prefix: replaces the prompt in the warm-up, see PreTrainSpace.
      guards: the guards of the warm-up, for instance WARMUP_GUARDS. If one ends the warm-up early, GRPO still has
        `total - warmup` steps.

    Returns:
      The phases "nsr_prerl" and "rl", without one that has no steps.

    Raises:
      ValueError: unless 0 <= warmup <= total and total >= 1.
    """
    if not 0 <= warmup <= total or total < 1:
        raise ValueError(f"dsrl needs 0 <= warmup <= total and total >= 1, got warmup={warmup}, total={total}.")
    first = nsr_prerl(steps=warmup, prefix=prefix) if warmup else ()
    first = tuple(dataclasses.replace(phase, guards=guards) for phase in first)
    second = (_rl("rl", total - warmup, "all", 0.2),) if total > warmup else ()
    return first + second


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

    Returns:
      One phase.
    """
    terms = (
        Term(PreTrainSpace(prefix), GroupRelative(False, keep), TokenMean(), pretrain),
        Term(PostTrainSpace(), GroupRelative(True), TokenMean(), posttrain),
    )
    return (Phase("mixed", steps, terms=terms),)


def prompt_dropout(*, steps: int, share: float, prefix: int | str | None = "auto") -> Phases:
    """RL in which each response loses its prompt with probability `share`, in [0, 1]: between P(y|x) and P(y).

    Args:
      steps: rollout batches, 1 or more.
      share: the probability that a response loses its prompt, in [0, 1].
      prefix: replaces the prompt, see PreTrainSpace.

    Returns:
      One phase.
    """
    return (Phase("prompt_dropout", steps, PromptDropout(share, prefix)),)
