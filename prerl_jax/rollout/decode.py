"""Decoding tokens in slots: what `make_sampler` and continuous batching share.

A slot holds one row, that is, one response that is being sampled. The first token of a row is drawn from the last
hidden state of its prompt, each further token after the previous one was fed to the model. Token t of sample j of
prompt i is drawn with the key fold_in(key, i, j, t). So the tokens of a row depend neither on its slot nor on when it
got the slot.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from prerl_jax.core.pytree import pytree
from prerl_jax.core.types import Array, Model, Params
from prerl_jax.rollout.draw import Draw

STRIDE = 4
"""Tokens between two looks at all rows where these lie on several shards: there, each look is a collective."""
Decode = Callable[["Slots"], tuple[Array, Any]]
"""slots -> (hidden [S, D] after each slot's last token, the cache with these tokens)."""
IsLast = Callable[[Array, Array], Array]
"""(token i32[S], count i32[S] with this token) -> bool[S]: the token completes its response."""


@runtime_checkable
class SlotModel(Model, Protocol):
    """A `Model` whose cache holds rows of different lengths, which continuous batching needs; `Decoder` is one.

    Attributes:
      mesh: the devices; None for the default device.
      rules: what is split over which axis of the mesh.
      compute_dtype: the dtype of the weights and activations while decoding.
      unroll_decode: whether decoding is compiled layer by layer, instead of as a loop over the layers.
      reads_filled: whether attention reads only the filled columns of a ring. Then a long ring costs memory alone, and
        a slot whose row is complete costs no read.
    """

    mesh: Mesh | None
    rules: Any
    compute_dtype: Any
    unroll_decode: bool
    reads_filled: bool

    def decoding(self, params: Params) -> Params:
        """The parameters, arranged as `decode` and `decode_slots` read them."""

    def decode_slots(self, params: Params, cache: Any, tokens: Array, counts: Array, clock: Array) -> tuple[Array, Any]:
        """Feeds one token to each of S slots, whose rows may have different lengths.

        Args:
          params: what `decoding` returns.
          cache: the cache of S rows.
          tokens: i32[S], each slot's last token, to be fed.
          counts: i32[S], response tokens that were fed to each slot before; -1 for a slot whose result is not used.
          clock: i32[], steps since the cache was made. All slots write the column `clock % length` of the ring.

        Returns: (hidden [S, D] after these tokens, the cache with them).
        """

    def pin_cache(self, x: Array) -> Array:
        """An array of the cache, such as the keys [S, N, K, columns], constrained to its sharding on the mesh."""


@pytree
class Slots:
    """The state of S slots: `count` tokens of each row are drawn, and all of them but the last were fed to the model.

    Attributes:
      clock: i32[], steps since the cache was made.
      token: i32[S], the token drawn last.
      count: i32[S], tokens drawn of the slot's row.
      done: bool[S], True where the row is complete, and where the slot holds no row.
      cache: the model's cache of S rows.
    """

    clock: Array
    token: Array
    count: Array
    done: Array
    cache: Any


@pytree
class Drawn:
    """The tokens of one call: column 0 holds first tokens of fresh rows, each further column the tokens of one step.

    Attributes:
      tokens: i32[S, C], 0 where nothing was drawn.
      logprobs: f32[S, C], 0 where nothing was drawn.
      mask: bool[S, C], True where a token was drawn.
    """

    tokens: Array
    logprobs: Array
    mask: Array

    @staticmethod
    def empty(slots: int, columns: int) -> Drawn:
        """No tokens in any of the columns."""
        shape = (slots, columns)
        return Drawn(jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.float32), jnp.zeros(shape, bool))

    def put(self, column: Array | int, token: Array, logprob: Array, active: Array) -> Drawn:
        """The same with one column replaced: by token i32[S] and logprob f32[S] where active, bool[S]."""
        new_column = (jnp.where(active, token, 0), jnp.where(active, logprob, 0.0), active)
        columns = zip((self.tokens, self.logprobs, self.mask), new_column, strict=True)
        return Drawn(*(jax.lax.dynamic_update_slice(old, new[:, None], (0, column)) for old, new in columns))


def empty_slots(slots: int, cache: Any, *, done: bool) -> Slots:
    """S slots without any token; `done` for all of them."""
    zeros = jnp.zeros(slots, jnp.int32)
    return Slots(jnp.zeros((), jnp.int32), zeros, zeros, jnp.full(slots, done), cache)


def make_is_last(max_new_tokens: int, stop_tokens: tuple[int, ...]) -> IsLast:
    """The function that says which tokens complete their responses: stop tokens, and the `max_new_tokens`-th."""
    stops = jnp.asarray(stop_tokens, jnp.int32)
    return lambda token, count: jnp.isin(token, stops) | (count >= max_new_tokens)


def draw_first_tokens(
    slots: Slots, columns: int, hidden: Callable[[], Array], fresh: Array | None, draw: Draw, is_last: IsLast
) -> tuple[Slots, Drawn]:
    """Draws the first token of every fresh row.

    Args:
      slots: the slots; the count of fresh rows is 0.
      columns: C, columns of the second result.
      hidden: () -> [S, D], the last hidden state of each row's prompt.
      fresh: bool[S]; None for all. Where no row is fresh, nothing is computed.
      draw: see `make_draw`.
      is_last: see `make_is_last`.

    Returns: the slots, and the first tokens in column 0.
    """
    rows = slots.token.shape[0]
    without_cache, nothing = dataclasses.replace(slots, cache=None), Drawn.empty(rows, columns)

    def first(slots: Slots, drawn: Drawn) -> tuple[Slots, Drawn]:
        active = jnp.ones(rows, bool) if fresh is None else fresh
        return _draw_column(slots, drawn, 0, hidden(), active, draw, is_last)

    if fresh is None:
        begun, drawn = first(without_cache, nothing)
    else:
        begun, drawn = jax.lax.cond(fresh.any(), first, lambda *same: same, without_cache, nothing)
    return dataclasses.replace(begun, cache=slots.cache), drawn


def decode_while(
    steps_left: Callable[[Slots], Array],
    slots: Slots,
    drawn: Drawn,
    step: Array,
    last: int,
    *,
    shards: int,
    decode: Decode,
    draw: Draw,
    is_last: IsLast,
) -> tuple[Slots, Drawn, Array]:
    """Decodes one token after the other of every slot that is not done.

    Args:
      steps_left: slots -> i32[], how many further steps may be made; 0 ends the loop. It is asked after each step, or
        after every STRIDE steps where the slots lie on several shards.
      slots: the state before.
      drawn: takes the tokens: those of the n-th step of this `drawn` go to column n.
      step, last: i32[], steps made before, and the most steps with these.
      shards: how many shards of the mesh the slots lie on.
      decode, draw, is_last: see `Decode`, `make_draw` and `make_is_last`.

    Returns: the slots, the drawn tokens, and the steps made.
    """

    def body(carry: tuple[Slots, Drawn, Array]) -> tuple[Slots, Drawn, Array]:
        slots, drawn, step = carry
        hidden, cache = decode(slots)
        slots = dataclasses.replace(slots, cache=cache, clock=slots.clock + 1)
        return *_draw_column(slots, drawn, step + 1, hidden, ~slots.done, draw, is_last), step + 1

    carry = slots, drawn, step
    if shards == 1:
        return jax.lax.while_loop(lambda c: (c[2] < last) & (steps_left(c[0]) > 0), body, carry)

    def look(carry: tuple[Slots, Drawn, Array]) -> Array:
        return carry[2] + jnp.minimum(steps_left(carry[0]), STRIDE)

    def body_and_look(state: tuple[tuple[Slots, Drawn, Array], Array]) -> tuple[tuple[Slots, Drawn, Array], Array]:
        carry, until = body(state[0]), state[1]
        return carry, jax.lax.cond(carry[2] < until, lambda _: until, look, carry)

    return jax.lax.while_loop(lambda s: (s[0][2] < last) & (s[0][2] < s[1]), body_and_look, (carry, look(carry)))[0]


def _draw_column(
    slots: Slots, drawn: Drawn, column: Array | int, hidden: Array, active: Array, draw: Draw, is_last: IsLast
) -> tuple[Slots, Drawn]:
    """Draws a token of every active slot, bool[S], and puts it into a column of `drawn`."""
    token, logprob = draw(hidden, slots.count)
    count = slots.count + active
    drawn = drawn.put(column, token, logprob, active)
    done = slots.done | (active & is_last(token, count))
    return dataclasses.replace(slots, token=jnp.where(active, token, slots.token), count=count, done=done), drawn
