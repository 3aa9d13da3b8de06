"""`make_sampler`: one compiled program that samples y ~ pi(.|x), several responses for each prompt.

Each prompt is prefilled once, and its part of the cache is shared by its samples. Then one loop decodes all rows, and
ends when every row is complete. Where attention reads the whole ring, long responses take two loops, the first with a
ring of half the length (see `cache_rings`). For full rows, this halves the unneeded columns: it reads 1.5 times what it
needs, instead of twice.

Token t of sample j of prompt i is drawn with the key fold_in(key, id_i, j, t), so the tokens of a row do not depend on
the other rows of the call. `ContinuousBatching` samples the same tokens without waiting for the longest row.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from prerl_jax.core.types import Array, Model, Params, Prompts, Rollouts
from prerl_jax.models.cache import CACHE_DTYPES, whole_lines
from prerl_jax.rollout.cache_rings import pad_ring, ring_of, with_ring
from prerl_jax.rollout.decode import (
    SlotModel,
    Slots,
    decode_while,
    draw_first_tokens,
    empty_slots,
    make_is_last,
)
from prerl_jax.rollout.draw import make_draw, row_keys
from prerl_jax.rollout.layout import vocab_parts
from prerl_jax.runtime.mesh import batch_shards

SHORTEST_HALF = 32
"""Columns of the shortest half ring: a shorter one saves less time than a second loop takes to compile."""


@dataclasses.dataclass(frozen=True)
class SamplerConfig:
    """How to sample.

    Attributes:
      max_new_tokens: R, the most tokens of a response, 1 or more. A response that reaches it without a stop token is
        truncated.
      temperature: divides the logits, 0 or more; 0 takes the most likely token.
      top_k: samples among the k most likely tokens, 1 or more; None samples among all.
      top_p: samples among the most likely tokens, the fewest that have at least this probability mass, in (0, 1]; None
        samples among all.
      stop_tokens: a response ends with the first of these token ids, which belongs to the response; () for none.
      cache_dtype: dtype of the cached keys and values: None for the compute dtype, "bfloat16", or "int8" with one scale
        for every head of every token. Below the compute dtype, the sampled policy is near the scored one, not equal.

    Raises ValueError for values outside of these ranges.
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


def make_sampler(
    model: Model, config: SamplerConfig, group_size: int = 1
) -> Callable[[Params, Prompts, Array], Rollouts]:
    """Makes the sampling function of a model; it is jitted.

    Args:
      model: any `Model`.
      config: how to sample.
      group_size: G, samples for each prompt, 1 or more.

    Returns: sample(params, prompts, key) -> Rollouts. Q prompts give Q * G rows, and sample j of prompt i is row
      i * G + j. Rewards are 0. `logprobs` f32[Q * G, R] are those at the sampling temperature (1 where it is 0), before
      top-k and top-p: the trainer's score of the same tokens.

    Raises ValueError for a `group_size` below 1.
    """
    if group_size < 1:
        raise ValueError(f"group_size must be at least 1, got {group_size}.")

    shards = batch_shards(model.mesh) if isinstance(model, SlotModel) and model.mesh is not None else 1

    def sample(params: Params, prompts: Prompts, key: Array) -> Rollouts:
        params = cast_params(params, model)
        rows, length = prompts.prompt.shape[0] * group_size, config.max_new_tokens
        rings = _ring_lengths(max(length - 1, 1), model)
        hidden, cache = prefill(model, params, prompts, group_size, rings[0], config.cache_dtype)
        weights = decoding_params(params, model)
        keys = row_keys(key, *row_identities(prompts, group_size))

        def decode(slots: Slots) -> tuple[Array, Any]:
            return model.decode(weights, slots.cache, slots.token, slots.clock)

        settings = (config.temperature or None, config.top_k, config.top_p, vocab_parts(model))
        draw = make_draw(model.head(params), keys, *settings)
        is_last = make_is_last(length, config.stop_tokens)
        slots, drawn = draw_first_tokens(
            empty_slots(rows, cache, done=False),
            length,
            lambda: jnp.repeat(hidden, group_size, axis=0),
            None,
            draw,
            is_last,
        )
        functions: dict[str, Any] = {"shards": shards, "decode": decode, "draw": draw, "is_last": is_last}
        step = jnp.int32(0)
        for ring in rings:
            if ring != rings[0]:
                slots = with_ring(slots, pad_ring(ring_of(slots), rings))
            steps_left = functools.partial(_steps_left, length)
            slots, drawn, step = decode_while(steps_left, slots, drawn, step, min(ring, length - 1), **functions)
        return Rollouts(
            prompt=jnp.repeat(prompt_tokens(prompts), group_size, axis=0),
            prompt_mask=jnp.repeat(prompts.prompt_mask, group_size, axis=0),
            response=drawn.tokens,
            response_mask=drawn.mask,
            rewards=jnp.zeros(rows, jnp.float32),
            logprobs=drawn.logprobs,
        )

    return jax.jit(sample)


def _steps_left(length: int, slots: Slots) -> Array:
    """i32[], `length` while a row is active."""
    return jnp.where(slots.done.all(), 0, length)


def _ring_lengths(needed: int, model: Model) -> tuple[int, ...]:
    """Length of the ring in each loop. A model that is no `SlotModel` may have any cache: it gets one loop."""
    if not isinstance(model, SlotModel):
        return (needed,)
    whole = whole_lines(needed)
    half = whole_lines(-(-whole // 2))
    return (whole,) if model.reads_filled or half < SHORTEST_HALF else (half, whole)


def cast_params(params: Params, model: Model) -> Params:
    """The parameters in the compute dtype of a `SlotModel`: cast once, not at every decoded token."""
    if not isinstance(model, SlotModel):
        return params
    return jax.tree.map(lambda p: p.astype(model.compute_dtype), params)


def decoding_params(params: Params, model: Model) -> Params:
    """The parameters, arranged as the model decodes with them."""
    return model.decoding(params) if isinstance(model, SlotModel) else params


def prompt_tokens(prompts: Prompts) -> Array:
    """i32[Q, P], the prompts' tokens, 0 at padding."""
    return jnp.where(prompts.prompt_mask, prompts.prompt, 0).astype(jnp.int32)


def prefill(
    model: Model, params: Params, prompts: Prompts, group_size: int, length: int, dtype: str | None
) -> tuple[Array, Any]:
    """(hidden [Q, D] of each prompt's last token, a cache for Q * group_size rows of `length` further tokens)."""
    segments = jnp.asarray(prompts.prompt_mask).astype(jnp.int32)
    positions = jnp.maximum(jnp.cumsum(segments, axis=1) - 1, 0)
    stored = {} if dtype is None else {"dtype": dtype}
    return model.init_cache(params, prompt_tokens(prompts), positions, segments, group_size, length, **stored)


def row_identities(prompts: Prompts, group_size: int) -> tuple[Array, Array]:
    """(prompt ids i32[Q * group_size], sample numbers i32[Q * group_size]), which the rows' keys are made from."""
    count = prompts.prompt.shape[0]
    ids = jnp.arange(count) if prompts.ids is None else jnp.asarray(prompts.ids)
    first = jnp.zeros(count, jnp.int32) if prompts.first_sample is None else jnp.asarray(prompts.first_sample)
    samples = first[:, None] + jnp.arange(group_size)
    return jnp.repeat(ids, group_size), samples.reshape(-1)
