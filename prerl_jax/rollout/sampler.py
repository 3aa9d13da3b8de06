"""Sampling responses y ~ pi(.|x): one prefill a prompt, then one compiled loop for all samples of all prompts.

The samples of a prompt share its part of the cache; the loop carries the cache and updates it in place, and ends when
every row has stopped. Sample j of prompt i draws its t-th token with fold_in(key, id_i, j, t): what a row says does not
depend on which rows share its call.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from prerl_jax.core.types import Array, Model, Params, Prompts, Rollouts
from prerl_jax.rollout.draw import categorical, truncate


@dataclasses.dataclass(frozen=True)
class SamplerConfig:
    """How to sample.

    Attributes:
      max_new_tokens: R, the most tokens a response has; one that reaches it without a stop token is truncated.
      temperature: divides the logits; 0 takes the likeliest token.
      top_k: sample among the k likeliest tokens; None for all.
      top_p: sample among the smallest set of likeliest tokens with at least this mass; None for all.
      stop_tokens: a response ends with the first of these, which belongs to it; () for never.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    stop_tokens: tuple[int, ...] = ()

    def __post_init__(self):
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}.")
        if not self.temperature >= 0:
            raise ValueError(f"temperature must be 0 (greedy) or more, got {self.temperature}.")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, or None for all tokens; got {self.top_k}.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], or None for all tokens; got {self.top_p}.")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Loop:
    """The sampling loop's carry: `index` tokens of every row are drawn, the last of them not yet fed."""

    index: Array
    done: Array
    cache: object
    token: Array
    response: Array
    mask: Array
    logprobs: Array


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
        params = _cast(params, getattr(model, "compute_dtype", None))
        unembedding = model.unembedding(params)
        rows, length = prompts.prompt.shape[0] * group_size, config.max_new_tokens
        keys = _row_keys(key, prompts, group_size)
        tokens = jnp.where(prompts.prompt_mask, prompts.prompt, 0).astype(jnp.int32)
        segments = prompts.prompt_mask.astype(jnp.int32)
        positions = jnp.maximum(jnp.cumsum(segments, axis=1) - 1, 0)
        hidden, cache = model.init_cache(params, tokens, positions, segments, group_size, max(length - 1, 1))

        def record(loop: _Loop, hidden: Array) -> _Loop:
            token, logprob = _draw(hidden, unembedding, keys, loop.index, config)
            token, logprob = jnp.where(loop.done, 0, token), jnp.where(loop.done, 0.0, logprob)
            at = (0, loop.index)
            return dataclasses.replace(
                loop,
                index=loop.index + 1,
                done=loop.done | jnp.isin(token, jnp.asarray(config.stop_tokens, jnp.int32)),
                token=token,
                response=jax.lax.dynamic_update_slice(loop.response, token[:, None], at),
                mask=jax.lax.dynamic_update_slice(loop.mask, ~loop.done[:, None], at),
                logprobs=jax.lax.dynamic_update_slice(loop.logprobs, logprob[:, None], at),
            )

        def body(loop: _Loop) -> _Loop:
            hidden, cache = model.decode(weights, loop.cache, loop.token, loop.index - 1)
            return record(dataclasses.replace(loop, cache=cache), hidden)

        loop = _Loop(
            index=jnp.zeros((), jnp.int32),
            done=jnp.zeros(rows, bool),
            cache=cache,
            token=jnp.zeros(rows, jnp.int32),
            response=jnp.zeros((rows, length), jnp.int32),
            mask=jnp.zeros((rows, length), bool),
            logprobs=jnp.zeros((rows, length), jnp.float32),
        )
        weights = model.decoding(params) if hasattr(model, "decoding") else params
        loop = record(loop, jnp.repeat(hidden, group_size, axis=0))
        loop = jax.lax.while_loop(lambda s: (s.index < length) & ~s.done.all(), body, loop)
        return Rollouts(
            prompt=jnp.repeat(tokens, group_size, axis=0),
            prompt_mask=jnp.repeat(prompts.prompt_mask, group_size, axis=0),
            response=loop.response,
            response_mask=loop.mask,
            rewards=jnp.zeros(rows, jnp.float32),
            logprobs=loop.logprobs,
        )

    return jax.jit(sample)


def _cast(params: Params, dtype) -> Params:
    """Weights in the compute dtype once, not at every decoded token."""
    return params if dtype is None else jax.tree.map(lambda p: p.astype(dtype), params)


def _row_keys(key: Array, prompts: Prompts, group_size: int) -> Array:
    """One key a row: fold_in(key, id, sample)."""
    ids = jnp.arange(prompts.prompt.shape[0]) if prompts.ids is None else prompts.ids
    samples = jnp.tile(jnp.arange(group_size), ids.shape[0])
    return jax.vmap(lambda i, j: jax.random.fold_in(jax.random.fold_in(key, i), j))(
        jnp.repeat(ids, group_size), samples
    )


def _draw(hidden: Array, unembedding: Array, keys: Array, index: Array, config: SamplerConfig) -> tuple[Array, Array]:
    """(token i32[B], its log-probability f32[B]) after hidden states [B, D]."""
    logits = jnp.einsum("bd,dv->bv", hidden, unembedding, preferred_element_type=jnp.float32)
    if config.temperature == 0:
        token = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    else:
        logits = logits / config.temperature
        uniform = jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, index)))(keys)
        token = categorical(truncate(logits, config.top_k, config.top_p), uniform)
    chosen = jnp.take_along_axis(logits, token[:, None], axis=-1)[:, 0]
    return token, chosen - jax.nn.logsumexp(logits, axis=-1)
