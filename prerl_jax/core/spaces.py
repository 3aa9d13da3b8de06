"""The two spaces: which tokens a policy gradient is taken through.

Post-train space P(y|x): tokens = prompt + response. Pre-train space P(y): tokens = prefix + response, positions from
0, the prompt nowhere in the input (paper arXiv 2604.14142, sections 3 and 4). The response is always one that was
sampled given the prompt, and the loss is on the response tokens alone. PromptDropout mixes the two by rows. A space
says with `given_prompt` whether its log-probabilities are those that the sampler drew from.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from prerl_jax.core.types import Array, Rollouts, Sequences


@dataclasses.dataclass(frozen=True)
class PostTrainSpace:
    """P(y|x): rows of prompt + response, T = P + R, with the prompt's left padding kept as padding."""

    given_prompt: ClassVar[bool] = True

    def __call__(self, rollouts: Rollouts) -> Sequences:
        prompt_mask, response_mask = rollouts.prompt_mask, rollouts.response_mask
        valid = jnp.concatenate([prompt_mask, response_mask], axis=1)
        tokens = jnp.concatenate([rollouts.prompt, rollouts.response], axis=1)
        mask = jnp.concatenate([jnp.zeros_like(prompt_mask), response_mask], axis=1)
        positions = jnp.maximum(jnp.cumsum(valid, axis=1) - 1, 0)
        return _rows(tokens, positions, valid, mask)


@dataclasses.dataclass(frozen=True)
class PreTrainSpace:
    """P(y): rows of prefix + response, T = 1 + R.

    Attributes:
      prefix: the token id that stands before the response. "auto" is the tokenizer's choice (`<|im_start|>` where there
        is one, else BOS, else EOS), any other string one token's text; the trainer resolves both before anything
        compiles. None: no prefix, T = R, and the first response token is not scored.
    """

    prefix: int | str | None = "auto"
    given_prompt: ClassVar[bool] = False

    def __post_init__(self):
        _check_prefix(self)

    def __call__(self, rollouts: Rollouts) -> Sequences:
        _check_resolved(self)
        tokens, valid = rollouts.response, rollouts.response_mask
        mask = valid
        if self.prefix is not None:
            first = jnp.full_like(tokens[:, :1], self.prefix)
            tokens = jnp.concatenate([first, tokens], axis=1)
            mask = jnp.concatenate([jnp.zeros_like(valid[:, :1]), valid], axis=1)
            valid = jnp.concatenate([jnp.ones_like(valid[:, :1]), valid], axis=1)
        return _rows(tokens, jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape), valid, mask)


@dataclasses.dataclass(frozen=True)
class PromptDropout:
    """Between the spaces: each row is of P(y) with probability `share`, else of P(y|x). T = max(P, 1) + R.

    Which rows lose their prompt is drawn from the step's key, row by row of the global batch: the same after a resume
    and on any split over devices.

    Attributes:
      share: the probability, from 0 (PostTrainSpace) to 1 (PreTrainSpace).
      prefix: what stands in the prompt's place, as in PreTrainSpace.
    """

    share: float
    prefix: int | str | None = "auto"
    given_prompt: ClassVar[bool] = False
    needs_key: ClassVar[bool] = True

    def __post_init__(self):
        if not 0 <= self.share <= 1:
            raise ValueError(f"PromptDropout.share is a probability, got {self.share}.")
        _check_prefix(self)

    def __call__(self, rollouts: Rollouts, *, key: Array) -> Sequences:
        _check_resolved(self)
        prompt, mask = rollouts.prompt, rollouts.prompt_mask
        if not prompt.shape[1]:
            prompt, mask = (jnp.pad(x, [(0, 0), (1, 0)]) for x in (prompt, mask))
        dropped = jax.random.uniform(key, (prompt.shape[0], 1)) < self.share
        last = jnp.arange(prompt.shape[1]) == prompt.shape[1] - 1
        prompt = jnp.where(dropped, 0 if self.prefix is None else self.prefix, prompt)
        mask = jnp.where(dropped, last & (self.prefix is not None), mask)
        return PostTrainSpace()(dataclasses.replace(rollouts, prompt=prompt, prompt_mask=mask))


def _check_prefix(space: PreTrainSpace | PromptDropout) -> None:
    if not isinstance(space.prefix, str | None) and space.prefix < 0:
        raise ValueError(f"{type(space).__name__}.prefix is {space.prefix}; a token id is 0 or more.")


def _check_resolved(space: PreTrainSpace | PromptDropout) -> None:
    if isinstance(space.prefix, str):
        raise ValueError(
            f"{type(space).__name__}(prefix={space.prefix!r}) has no token id yet. Pass an int or None, or resolve it "
            f"with prerl_jax.resolve_prefix(phases, tokenizer)."
        )


def _rows(tokens, positions, valid, mask) -> Sequences:
    """One segment a row. A segment's first token has nothing before it that could predict it, and is never scored."""
    zero = jnp.zeros((), jnp.int32)
    return Sequences(
        tokens=jnp.where(valid, tokens, zero).astype(jnp.int32),
        positions=jnp.where(valid, positions, zero).astype(jnp.int32),
        segments=valid.astype(jnp.int32),
        mask=mask.astype(bool) & (positions > 0),
    )


def response_part(sequences: Sequences, rollouts: Rollouts, values):
    """Lays per-response values [B, R] out along the row's tokens [B, T]: the response is the row's last R tokens."""
    before = sequences.tokens.shape[1] - rollouts.response.shape[1]
    laid = jnp.pad(values, [(0, 0), (before, 0)])
    return jnp.where(sequences.mask, laid, jnp.zeros((), laid.dtype))
