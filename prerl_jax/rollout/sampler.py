"""Sampling responses y ~ pi(.|x): one prefill a prompt, then one compiled loop for all samples of all prompts.

The samples of a prompt share its part of the cache; the loop carries the cache and updates it in place, and ends when
every row has stopped. Long responses take two loops, the first with a ring of half the length: attention reads all of a
ring, and so, for full rows, 1.5 times what it must instead of twice. Sample j of prompt i draws its t-th token with
fold_in(key, id_i, j, t): what a row says does not depend on which rows share its call. `rollout.continuous` samples the same
without waiting for the longest row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from prerl_jax.core.types import Array, Model, Params, Prompts, Rollouts
from prerl_jax.models.cache import CACHE_DTYPES, whole_lines
from prerl_jax.rollout.cache_rings import longer, ring_of, with_ring
from prerl_jax.rollout.decode import SlotModel, Slots, begin, empty, go_on, make_draw, make_end, row_keys

SHORTEST_HALF = 32
"""A ring of fewer columns saves less than it takes to compile a second loop."""


@dataclasses.dataclass(frozen=True)
class SamplerConfig:
    """How to sample.

    Attributes:
      max_new_tokens: R, the most tokens a response has; one that reaches it without a stop token is truncated.
      temperature: divides the logits; 0 takes the likeliest token.
      top_k: sample among the k likeliest tokens; None for all.
      top_p: sample among the smallest set of likeliest tokens with at least this mass; None for all.
      stop_tokens: a response ends with the first of these, which belongs to it; () for never.
      cache_dtype: what keys and values are stored in: None for the compute dtype, "bfloat16", or "int8" with a scale
        for every head of every token. Less than the compute dtype samples from a policy near the one that is scored.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    stop_tokens: tuple[int, ...] = ()
    cache_dtype: str | None = None

    def __post_init__(self):
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}.")
        if not self.temperature >= 0:
            raise ValueError(f"temperature must be 0 (greedy) or more, got {self.temperature}.")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, or None for all tokens; got {self.top_k}.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], or None for all tokens; got {self.top_p}.")
        if self.cache_dtype not in CACHE_DTYPES:
            raise ValueError(f"cache_dtype must be one of {CACHE_DTYPES}, got {self.cache_dtype!r}.")

    @property
    def traced_temperature(self) -> float | None:
        """What `make_draw` takes: None for the likeliest token."""
        return self.temperature or None


def make_sampler(
    model: Model, config: SamplerConfig, group_size: int = 1
) -> Callable[[Params, Prompts, Array], Rollouts]:
    """sample(params, prompts of Q rows, key) -> Rollouts of Q * group_size rows; jitted.

    Sample j of prompt i is row i * group_size + j. Rewards are zero. Log-probabilities are those of the distribution at
    the sampling temperature (1 where it is 0) without truncation: the trainer's score of the same tokens.
    """
    if group_size < 1:
        raise ValueError(f"group_size must be at least 1, got {group_size}.")

    def sample(params: Params, prompts: Prompts, key: Array) -> Rollouts:
        params = cast(params, model)
        rows, length = prompts.prompt.shape[0] * group_size, config.max_new_tokens
        rings = _rings(max(length - 1, 1), model)
        hidden, cache = prefill(model, params, prompts, group_size, rings[0], config.cache_dtype)
        weights = decoding(params, model)
        keys = row_keys(key, *identities(prompts, group_size))

        def decode(slots: Slots) -> tuple[Array, object]:
            return model.decode(weights, slots.cache, slots.token, slots.clock)

        draw = make_draw(model.head(params), keys, config.traced_temperature, config.top_k, config.top_p)
        end = make_end(length, config.stop_tokens)
        slots = empty(rows, cache, done=False)
        carry = *begin(slots, length, lambda: jnp.repeat(hidden, group_size, axis=0), None, draw, end), jnp.int32(0)
        how = {"decode": decode, "draw": draw, "end": end, "more": lambda slots: ~slots.done.all()}
        for columns in rings:
            slots, drawn, step = carry
            if columns != rings[0]:
                slots = with_ring(slots, longer(ring_of(slots), rings))
            carry = go_on(slots, drawn, step, min(columns, length - 1), **how)
        drawn = carry[1]
        return Rollouts(
            prompt=jnp.repeat(tokens_of(prompts), group_size, axis=0),
            prompt_mask=jnp.repeat(prompts.prompt_mask, group_size, axis=0),
            response=drawn.tokens,
            response_mask=drawn.mask,
            rewards=jnp.zeros(rows, jnp.float32),
            logprobs=drawn.logprobs,
        )

    return jax.jit(sample)


def _rings(needed: int, model: Model) -> tuple[int, ...]:
    """Columns of the responses' cache in each loop; one loop for a model whose cache may be anything."""
    if not isinstance(model, SlotModel):
        return (needed,)
    whole = whole_lines(needed)
    half = whole_lines(-(-whole // 2))
    return (half, whole) if half >= SHORTEST_HALF else (whole,)


def cast(params: Params, model: Model) -> Params:
    """The parameters in the compute dtype of a `SlotModel`: cast once, not at every decoded token."""
    if not isinstance(model, SlotModel):
        return params
    return jax.tree.map(lambda p: p.astype(model.compute_dtype), params)


def decoding(params: Params, model: Model) -> Params:
    """The parameters, arranged as the model decodes with them."""
    return model.decoding(params) if isinstance(model, SlotModel) else params


def tokens_of(prompts: Prompts) -> Array:
    """i32[B, P], 0 at padding."""
    return jnp.where(prompts.prompt_mask, prompts.prompt, 0).astype(jnp.int32)


def prefill(
    model: Model, params: Params, prompts: Prompts, group_size: int, length: int, dtype: str | None
) -> tuple[Array, object]:
    """(hidden [Q, D] of the prompts' last tokens, a cache for Q * group_size rows of `length` further tokens)."""
    segments = prompts.prompt_mask.astype(jnp.int32)
    positions = jnp.maximum(jnp.cumsum(segments, axis=1) - 1, 0)
    stored = {} if dtype is None else {"dtype": dtype}
    return model.init_cache(params, tokens_of(prompts), positions, segments, group_size, length, **stored)


def identities(prompts: Prompts, group_size: int) -> tuple[Array, Array]:
    """(ids i32[B * group_size], samples i32[B * group_size]): what the rows' randomness is drawn from."""
    count = prompts.prompt.shape[0]
    ids = jnp.arange(count) if prompts.ids is None else jnp.asarray(prompts.ids)
    first = jnp.zeros(count, jnp.int32) if prompts.first_sample is None else jnp.asarray(prompts.first_sample)
    samples = first[:, None] + jnp.arange(group_size)
    return jnp.repeat(ids, group_size), samples.reshape(-1)
