"""Spaces: the rows of tokens whose log-probability the policy gradient raises or lowers.

Post-train space P(y|x): tokens = prompt + response. Pre-train space P(y): tokens = prefix + response, positions from 0,
without the prompt (arXiv 2604.14142, sections 3 and 4). In both, the response was sampled given the prompt, and the
loss is on response tokens alone. PromptDropout chooses one of the two for each row.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from prerl_jax.core.traits import SpaceTraits
from prerl_jax.core.types import Array, Rollouts, Sequences


@dataclasses.dataclass(frozen=True)
class PostTrainSpace:
    """P(y|x) (arXiv 2604.14142, section 3): rows of prompt + response, T = P + R. The prompt's left padding stays."""

    traits = SpaceTraits(given_prompt=True)

    def __call__(self, rollouts: Rollouts) -> Sequences:
        prompt_mask = rollouts.prompt_mask
        valid = jnp.concatenate([prompt_mask, rollouts.response_mask], axis=1)
        tokens = jnp.concatenate([rollouts.prompt, rollouts.response], axis=1)
        mask = jnp.concatenate([jnp.zeros_like(prompt_mask), rollouts.trained_mask], axis=1)
        positions = jnp.maximum(jnp.cumsum(valid, axis=1) - 1, 0)
        return _rows(tokens, positions, valid, mask)


@dataclasses.dataclass(frozen=True)
class PreTrainSpace:
    """P(y) (arXiv 2604.14142, section 3): rows of prefix + response, T = 1 + R.

    A call raises ValueError while the prefix is still text, see `prerl_jax.resolve_prefix`.

    Attributes:
      prefix: the token id before the response, 0 or more. "auto" is the tokenizer's choice (`<|im_start|>` if it has
        this token, else BOS, else EOS), any other string is the text of one token; the trainer resolves both before
        anything compiles. None: no prefix, T = R, and the first response token is not scored.
    """

    prefix: int | str | None = "auto"
    traits = SpaceTraits()

    def __post_init__(self):
        _check_prefix(self)

    def __call__(self, rollouts: Rollouts) -> Sequences:
        prefix = _resolved(self)
        tokens, valid, mask = rollouts.response, rollouts.response_mask, rollouts.trained_mask
        if prefix is not None:
            first = jnp.full_like(tokens[:, :1], prefix)
            tokens = jnp.concatenate([first, tokens], axis=1)
            mask = jnp.concatenate([jnp.zeros_like(mask[:, :1]), mask], axis=1)
            valid = jnp.concatenate([jnp.ones_like(valid[:, :1]), valid], axis=1)
        return _rows(tokens, jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape), valid, mask)


@dataclasses.dataclass(frozen=True)
class PromptDropout:
    """Each row is of P(y) with probability `share`, else of P(y|x). T = max(P, 1) + R.

    The rows that lose their prompt are drawn from the step's key, for each row of the global batch. The draw is the
    same after a resume and on any number of devices. A call raises ValueError without a key.

    A call takes B rollouts and returns rows [B, T].

    Attributes:
      share: the probability, from 0 (PostTrainSpace) to 1 (PreTrainSpace).
      prefix: replaces the prompt, as in PreTrainSpace.

    Raises:
      ValueError: `share` is not in [0, 1], or `prefix` is below 0.
    """

    share: float
    prefix: int | str | None = "auto"
    traits = SpaceTraits(needs_key=True)

    def __post_init__(self):
        if not 0 <= self.share <= 1:
            raise ValueError(f"PromptDropout.share is {self.share}; a probability is between 0 and 1.")
        _check_prefix(self)

    def __call__(self, rollouts: Rollouts, *, key: Array | None = None) -> Sequences:
        prefix = _resolved(self)
        if key is None:
            raise missing_key(self)
        prompt, mask = rollouts.prompt, rollouts.prompt_mask
        if not prompt.shape[1]:
            prompt, mask = (jnp.pad(x, [(0, 0), (1, 0)]) for x in (prompt, mask))
        dropped = jax.random.uniform(key, (prompt.shape[0], 1)) < self.share
        last = jnp.arange(prompt.shape[1]) == prompt.shape[1] - 1
        prompt = jnp.where(dropped, prefix or 0, prompt)
        mask = jnp.where(dropped, last & (prefix is not None), mask)
        return PostTrainSpace()(dataclasses.replace(rollouts, prompt=prompt, prompt_mask=mask))


def missing_key(space: object) -> ValueError:
    """The error of a space that draws at random and is given no key."""
    return ValueError(f"{space} draws at random: pass prepare(..., key=k), a PRNG key that depends on the step.")


def _check_prefix(space: PreTrainSpace | PromptDropout) -> None:
    if not isinstance(space.prefix, str | None) and space.prefix < 0:
        raise ValueError(f"{type(space).__name__}.prefix is {space.prefix}; a token id is 0 or more.")


def _resolved(space: PreTrainSpace | PromptDropout) -> int | None:
    """The prefix's token id; ValueError if it is still text."""
    if isinstance(space.prefix, str):
        raise ValueError(
            f"{type(space).__name__}(prefix={space.prefix!r}) has no token id yet. Pass an int or None, or resolve it "
            f"with prerl_jax.resolve_prefix(phases, tokenizer)."
        )
    return space.prefix


def _rows(tokens: Array, positions: Array, valid: Array, mask: Array) -> Sequences:
    """Rows of one segment each. The first token of a segment follows no token, so it is never scored."""
    zero = jnp.zeros((), jnp.int32)
    return Sequences(
        tokens=jnp.where(valid, tokens, zero).astype(jnp.int32),
        positions=jnp.where(valid, positions, zero).astype(jnp.int32),
        segments=valid.astype(jnp.int32),
        mask=mask.astype(bool) & (positions > 0),
    )


def response_part(sequences: Sequences, rollouts: Rollouts, values: Array) -> Array:
    """Places values [B, R] of the response tokens in the rows [B, T], whose last R tokens are the response.

    The result is 0 where the rows' mask is False.
    """
    before = sequences.tokens.shape[1] - rollouts.response.shape[1]
    laid = jnp.pad(values, [(0, 0), (before, 0)])
    return jnp.where(sequences.mask, laid, jnp.zeros((), laid.dtype))
