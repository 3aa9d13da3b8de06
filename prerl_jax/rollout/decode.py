"""Decoding tokens for every slot, one after the other: what the sampler and the pool have in common.

A slot holds one row at a time. It draws the first token of a fresh row from the prompt's last hidden state, and every
further one after the last was fed. Token t of sample j of prompt i is drawn with fold_in(key, i, j, t), so what a row
says depends neither on its slot nor on when it got it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from prerl_jax.core.types import Array, Model, Params
from prerl_jax.core.head import Head

BLOCK = 128
Decode = Callable[["Slots"], tuple[Array, Any]]
Draw = Callable[[Array, Array], tuple[Array, Array]]
End = Callable[[Array, Array], Array]


@runtime_checkable
class SlotModel(Model, Protocol):
    """A `Model` whose cache holds rows of any age side by side, which continuous batching needs; `Decoder` is one.

    Attributes:
      mesh: the devices; None for the default device.
      rules: what is split over which axis of the mesh.
      compute_dtype: the dtype of the weights and activations while decoding.
      unroll_decode: whether decoding is compiled layer by layer, instead of as a loop over the layers.
    """

    mesh: Mesh | None
    rules: Any
    compute_dtype: Any
    unroll_decode: bool

    def decoding(self, params: Params) -> Params:
        """The parameters, arranged as `decode` and `decode_slots` read them."""

    def decode_slots(self, params: Params, cache: Any, tokens: Array, counts: Array, clock: Array) -> tuple[Array, Any]:
        """One step of S slots of any age.

        Args:
          params: what `decoding` returns.
          cache: the cache of S rows.
          tokens: i32[S], each slot's last token, to be fed.
          counts: i32[S], response tokens that were fed to each slot before.
          clock: i32[], steps since the cache was made; the column `clock % length` of the ring is written.

        Returns: (hidden [S, D] after these tokens, the cache with them).
        """

    def pin_cache(self, x: Array) -> Array:
        """An array of the cache, constrained to its sharding on the mesh."""


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
    """What a call drew: in column 0 the first tokens of fresh rows, then one token a step, of C - 1."""

    tokens: Array
    """i32[S, C], 0 where nothing was drawn."""
    logprobs: Array
    """f32[S, C]."""
    mask: Array
    """bool[S, C], where something was drawn."""

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
    head: Head, keys: Array, temperature: Array | float | None, top_k: int | None, top_p: float | None
) -> Draw:
    """draw(hidden [S, D], index i32[S]) -> (token i32[S], its log-probability f32[S]).

    A temperature of None takes the likeliest token. Log-probabilities are those at the temperature (1 where it is None)
    without truncation.
    """

    def draw(hidden: Array, index: Array) -> tuple[Array, Array]:
        logits = head.logits(hidden)
        if temperature is None:
            token = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        else:
            logits = logits / temperature
            uniform = jax.vmap(lambda k, t: jax.random.uniform(jax.random.fold_in(k, t)))(keys, index)
            token = categorical(truncate(logits, top_k, top_p), uniform)
        chosen = jnp.take_along_axis(logits, token[:, None], axis=-1)[:, 0]
        return token, chosen - jax.nn.logsumexp(logits, axis=-1)

    return draw


def make_end(limit: int, stop_tokens: tuple[int, ...]) -> End:
    """end(token i32[S], count i32[S]) -> bool[S]: a row ends with any of these tokens, or with so many."""
    stops = jnp.asarray(stop_tokens, jnp.int32)
    return lambda token, count: jnp.isin(token, stops) | (count >= limit)


def begin(
    slots: Slots, columns: int, hidden: Callable[[], Array], fresh: Array | None, draw: Draw, end: End
) -> tuple[Slots, Drawn]:
    """Draws the first tokens of fresh rows, bool[S] or None for all, from hidden() [S, D]; their count is 0.

    The second result has so many columns, of which this is the first.
    """
    rows = slots.token.shape[0]
    small, nothing = dataclasses.replace(slots, cache=None), Drawn.nothing(rows, columns)

    def first(small: Slots, drawn: Drawn) -> tuple[Slots, Drawn]:
        active = jnp.ones(rows, bool) if fresh is None else fresh
        return _record(small, drawn, 0, hidden(), active, draw, end)

    if fresh is None:
        small, drawn = first(small, nothing)
    else:
        small, drawn = jax.lax.cond(fresh.any(), first, lambda *same: same, small, nothing)
    return dataclasses.replace(small, cache=slots.cache), drawn


def go_on(
    slots: Slots,
    drawn: Drawn,
    step: Array,
    last: int,
    *,
    decode: Decode,
    draw: Draw,
    end: End,
    more: Callable[[Slots], Array],
) -> tuple[Slots, Drawn, Array]:
    """Decodes one token after the other of every slot that is not done.

    Args:
      slots: as they are.
      drawn: what this call draws in its n-th step goes to column n.
      step: i32[], steps done before.
      last: steps that may be done in all.
      decode: slots -> (hidden [S, D] after their last tokens, the cache with these).
      draw: see `make_draw`.
      end: see `make_end`.
      more: slots -> bool[], whether to go on.

    Returns: the slots, what was drawn, and the steps done.
    """

    def body(carry: tuple[Slots, Drawn, Array]) -> tuple[Slots, Drawn, Array]:
        slots, drawn, step = carry
        hidden, cache = decode(slots)
        slots = dataclasses.replace(slots, cache=cache, clock=slots.clock + 1)
        return *_record(slots, drawn, step + 1, hidden, ~slots.done, draw, end), step + 1

    return jax.lax.while_loop(lambda c: (c[2] < last) & more(c[0]), body, (slots, drawn, step))


def _record(
    slots: Slots, drawn: Drawn, column: Array | int, hidden: Array, active: Array, draw: Draw, end: End
) -> tuple[Slots, Drawn]:
    """Draws a token of every active slot, and puts it in a column."""
    token, logprob = draw(hidden, slots.count)
    count = slots.count + active
    drawn = drawn.put(column, token, logprob, active)
    done = slots.done | (active & end(token, count))
    return dataclasses.replace(slots, token=jnp.where(active, token, slots.token), count=count, done=done), drawn


# Drawing one token


def truncate(logits: Array, top_k: int | None, top_p: float | None) -> Array:
    """Logits f32[B, V] with -inf outside the top k, and outside the smallest set of the rest with mass >= top_p.

    What ties with the last one inside stays as well. top_p = 1 keeps all: cumulative sums would lose some to rounding.
    """
    top_p = None if top_p == 1 else top_p
    if top_k is None and top_p is None:
        return logits
    ordered = -jnp.sort(-logits, axis=-1)
    if top_k is not None:
        ordered = ordered[:, : min(top_k, logits.shape[-1])]
    if top_p is not None:
        probabilities = jax.nn.softmax(ordered, axis=-1)
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        ordered = jnp.where(before < top_p, ordered, jnp.inf)
    return jnp.where(logits >= ordered.min(axis=-1, keepdims=True), logits, -jnp.inf)


def categorical(logits: Array, uniform: Array) -> Array:
    """Tokens i32[B] ~ softmax(logits f32[B, V]), each by its row's uniform number in [0, 1).

    Of a row with a logit that is not a number, or is infinite, any token.
    """
    rows, vocab = logits.shape
    mass = jnp.exp(logits - logits.max(axis=-1, keepdims=True))
    blocks = jnp.pad(mass, [(0, 0), (0, -vocab % BLOCK)]).reshape(rows, -1, BLOCK)
    totals = blocks.sum(axis=-1)
    target = uniform * totals.sum(axis=-1)
    block, rest = _invert(totals, target)
    within = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]
    token, _ = _invert(within, rest)
    return jnp.minimum(block * BLOCK + token, vocab - 1)


def _invert(mass: Array, target: Array) -> tuple[Array, Array]:
    """The first index with any mass whose cumulative mass exceeds the target, and the target within it.

    Rounding may leave the target at or above the whole mass: then it is the last index that has any. It may also let
    a parallel sum grow where the mass is 0, so that the sum alone would not keep such an index out.
    """
    cumulative = jnp.cumsum(mass, axis=-1)
    last = mass.shape[-1] - 1 - jnp.argmax(mass[:, ::-1] > 0, axis=-1)
    above = (cumulative > target[:, None]) & (mass > 0)
    index = jnp.where(above.any(axis=-1), jnp.argmax(above, axis=-1), last).astype(jnp.int32)
    before = jnp.take_along_axis(cumulative - mass, index[:, None], axis=-1)[:, 0]
    return index, jnp.maximum(target - before, 0.0)
