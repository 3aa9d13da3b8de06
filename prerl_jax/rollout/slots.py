"""Decoding a few tokens for every slot: what the sampler and the pool have in common.

A slot holds one row at a time. It draws the first token of a fresh row from the prompt's last hidden state, and every
further one after the last was fed. Token t of sample j of prompt i is drawn with fold_in(key, i, j, t), so what a row
says depends neither on its slot nor on when it got it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from prerl_jax.core.types import Array
from prerl_jax.rollout.draw import categorical, truncate

Decode = Callable[["Slots"], tuple[Array, Any]]
Draw = Callable[[Array, Array], tuple[Array, Array]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Slots:
    """The rows that are being decoded: `count` tokens of each are drawn, the last of them not yet fed."""

    clock: Array
    """i32[], tokens that slots have been fed since the cache was laid out."""
    token: Array
    """i32[S], the last one drawn."""
    count: Array
    """i32[S]."""
    done: Array
    """bool[S], whether the row has ended, or there is none."""
    cache: Any
    """The model's."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Drawn:
    """What a chunk of C steps drew: in column 0 the first tokens of fresh rows, then one token a step."""

    tokens: Array
    """i32[S, C + 1], 0 where nothing was drawn."""
    logprobs: Array
    """f32[S, C + 1]."""
    mask: Array
    """bool[S, C + 1], where something was drawn."""

    @staticmethod
    def nothing(slots: int, columns: int) -> Drawn:
        """With every column still to be put."""
        shape = (slots, columns)
        return Drawn(jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.float32), jnp.zeros(shape, bool))

    def put(self, column: Array | int, token: Array, logprob: Array, active: Array) -> Drawn:
        """With a column of what active slots drew."""
        here = (jnp.where(active, token, 0), jnp.where(active, logprob, 0.0), active)
        columns = zip((self.tokens, self.logprobs, self.mask), here, strict=True)
        return Drawn(*(jax.lax.dynamic_update_slice(old, new[:, None], (0, column)) for old, new in columns))


def empty(slots: int, cache: Any, *, done: bool) -> Slots:
    """Slots that have drawn nothing."""
    zeros = jnp.zeros(slots, jnp.int32)
    return Slots(jnp.zeros((), jnp.int32), zeros, zeros, jnp.full(slots, done), cache)


def row_keys(key: Array, ids: Array, samples: Array) -> Array:
    """One key a row: fold_in(key, id, sample)."""
    return jax.vmap(lambda i, j: jax.random.fold_in(jax.random.fold_in(key, i), j))(ids, samples)


def make_draw(
    unembedding: Array, keys: Array, temperature: Array | float | None, top_k: int | None, top_p: float | None
) -> Draw:
    """draw(hidden [S, D], index i32[S]) -> (token i32[S], its log-probability f32[S]).

    A temperature of None takes the likeliest token. Log-probabilities are those at the temperature (1 where it is None)
    without truncation.
    """

    def draw(hidden: Array, index: Array) -> tuple[Array, Array]:
        logits = jnp.einsum("bd,dv->bv", hidden, unembedding, preferred_element_type=jnp.float32)
        if temperature is None:
            token = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        else:
            logits = logits / temperature
            uniform = jax.vmap(lambda k, t: jax.random.uniform(jax.random.fold_in(k, t)))(keys, index)
            token = categorical(truncate(logits, top_k, top_p), uniform)
        chosen = jnp.take_along_axis(logits, token[:, None], axis=-1)[:, 0]
        return token, chosen - jax.nn.logsumexp(logits, axis=-1)

    return draw


def decode_chunk(
    slots: Slots,
    stages: tuple[int, ...],
    *,
    first: Callable[[], Array],
    fresh: Array | None,
    decode: Decode,
    draw: Draw,
    more: Callable[[Slots], Array],
    limit: int,
    stop_tokens: tuple[int, ...],
    longer: Callable[[Slots], Slots] | None = None,
) -> tuple[Slots, Drawn]:
    """Draws first tokens, then decodes at most C tokens of every slot, as long as `more`.

    Args:
      slots: those of fresh rows have count 0.
      stages: rising numbers of tokens, the last of them C: a loop is compiled for each.
      first: the hidden states [S, D] that fresh rows draw their first token from.
      fresh: bool[S]; None for all.
      decode: slots -> (hidden [S, D] after their last tokens, the cache with these).
      draw: see `make_draw`.
      more: slots -> bool[], whether to go on.
      limit: tokens that end a row.
      stop_tokens: a row ends with any of these.
      longer: slots -> slots with a longer ring, for the next stage; None where there is one.
    """
    rows = slots.token.shape[0]
    drawn = Drawn.nothing(rows, stages[-1] + 1)

    def record(slots: Slots, drawn: Drawn, hidden: Array, active: Array, column: Array) -> tuple[Slots, Drawn]:
        token, logprob = draw(hidden, slots.count)
        count = slots.count + active
        ends = jnp.isin(token, jnp.asarray(stop_tokens, jnp.int32)) | (count >= limit)
        drawn = drawn.put(column, token, logprob, active)
        token = jnp.where(active, token, slots.token)
        return dataclasses.replace(slots, token=token, count=count, done=slots.done | (active & ends)), drawn

    def begin(small: Slots, drawn: Drawn) -> tuple[Slots, Drawn]:
        return record(small, drawn, first(), jnp.ones(rows, bool) if fresh is None else fresh, 0)

    small = dataclasses.replace(slots, cache=None)
    if fresh is None:
        small, drawn = begin(small, drawn)
    else:
        small, drawn = jax.lax.cond(fresh.any(), begin, lambda *same: same, small, drawn)
    slots = dataclasses.replace(small, cache=slots.cache)

    def body(carry: tuple[Array, Slots, Drawn]) -> tuple[Array, Slots, Drawn]:
        step, slots, drawn = carry
        hidden, cache = decode(slots)
        slots = dataclasses.replace(slots, cache=cache, clock=slots.clock + 1)
        return step + 1, *record(slots, drawn, hidden, ~slots.done, step + 1)

    step = jnp.zeros((), jnp.int32)
    for stage, end in enumerate(stages):
        slots = longer(slots) if stage else slots
        carry = step, slots, drawn
        step, slots, drawn = jax.lax.while_loop(lambda c, end=end: (c[0] < end) & more(c[1]), body, carry)
    return slots, drawn
