"""The device programs of continuous batching: prefill, a chunk of decoding, a longer ring, fewer slots.

The programs run on the mesh of the decode layout (`rollout.layout`). The rows belong to the shard of the batch that
their prompt lies on, and so do slots: with D shards of S / D slots, slot n serves rows of shard n // (S / D). Rows are
moved only within a shard; indices of prompts and slots count within their shard.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from prerl_jax.core.pytree import pytree
from prerl_jax.core.types import Array, Params, Prompts
from prerl_jax.rollout.cache_rings import (
    Ring,
    SlotSharding,
    active_first,
    cache_formats,
    empty_slot_cache,
    grow_ring,
    put_by_shard,
    ring_length,
    select_slots,
    take_by_shard,
)
from prerl_jax.rollout.decode import (
    Drawn,
    SlotModel,
    Slots,
    decode_while,
    draw_first_tokens,
    empty_slots,
    make_is_last,
)
from prerl_jax.rollout.draw import make_draw, row_keys
from prerl_jax.rollout.layout import make_lay_out, on_decode_mesh, vocab_parts
from prerl_jax.rollout.plan import BatchingPlan
from prerl_jax.rollout.sampler import SamplerConfig, cast_params, prefill
from prerl_jax.rollout.slot_numbers import SlotNumbers, count_slots


@pytree
class PromptStore:
    """The prefilled prompts, from which fresh rows start.

    Attributes:
      hidden: [Q, D], the last hidden state of each prompt.
      keys: as `Cache.prompt_key`; None where the slots' cache holds all prompts throughout.
      values: as `Cache.prompt_value`, or None.
      mask: bool[Q, P], or None.
    """

    hidden: Array
    keys: Any
    values: Any
    mask: Array | None


@pytree
class Assignment:
    """The host's input to a chunk: which row each of S slots decodes.

    Attributes:
      prompt: i32[S], the prompt of the slot's row.
      id: i32[S], this prompt's id.
      sample: i32[S], the row's sample number.
      fresh: bool[S], True where the slot has just received the row.
      waiting: i32[D], rows of each shard that have no slot yet.
    """

    prompt: Array
    id: Array
    sample: Array
    fresh: Array
    waiting: Array


@pytree
class ChunkResult:
    """The host's part of a chunk's output.

    Attributes:
      drawn: the tokens of the chunk, S rows.
      done: bool[S], `Slots.done` after the chunk.
      status: i32[4], the same on every process: active slots, active slots of the shard with the most, tokens of the
        longest active row, and rows that wait for a slot.
    """

    drawn: Drawn
    done: Array
    status: Array


@dataclasses.dataclass(frozen=True)
class ContinuousPrograms:
    """The jitted programs; each is compiled once for every number of slots and length of the ring.

    Attributes:
      lay_out: params -> weights on the mesh of decoding; None where decoding reads the parameters where they are.
      prefill: (weights, prompts) -> (the weights as decoding reads them, the prompt store, empty slots). The result of
        `lay_out` is donated; without that program, the parameters are not.
      decode: (weights, prompt store, slots, assignment, key, temperature) -> (slots, chunk result).
        The slots are donated. Where every active row needs a longer ring, or there is no row, nothing is drawn.
      grow: ring -> the same in a ring of the next length, see `ring_of` and `with_ring`. Prompts stay as they are.
      shrink: (slots, the kept slots i32[S'], their prompts i32[S']) -> S' slots.
    """

    lay_out: jax.stages.Wrapped | None
    prefill: jax.stages.Wrapped
    decode: jax.stages.Wrapped
    grow: jax.stages.Wrapped
    shrink: jax.stages.Wrapped


def make_continuous_programs(policy: SlotModel, config: SamplerConfig, plan: BatchingPlan) -> ContinuousPrograms:
    """The programs for a model on the training mesh, and a plan.

    Of `config.temperature` they depend only on whether it is 0.
    """
    model = on_decode_mesh(policy, plan.mesh)
    shards, pin = plan.shards, SlotSharding(model)

    def start(weights: Params, prompts: Prompts) -> tuple[Params, PromptStore, Slots]:
        weights = cast_params(weights, model)
        ring = plan.rings[0]
        group = plan.group_size if plan.shared else 1
        hidden, cache = prefill(model, weights, prompts, group, ring if plan.shared else 1, config.cache_dtype)
        if plan.shared:
            store = PromptStore(hidden, None, None, None)
        else:
            store = PromptStore(hidden, cache.prompt_key, cache.prompt_value, cache.prompt_mask)
            cache = empty_slot_cache(cache, plan.slots, ring)
        slots = empty_slots(plan.slots, cache, done=True)
        return model.decoding(weights), pin.rows(store), pin.slots(slots)

    def decode_chunk(
        weights: Params, store: PromptStore, slots: Slots, assignment: Assignment, key: Array, temperature: Array
    ) -> tuple[Slots, ChunkResult]:
        chunk = _Chunk(model, config, plan, weights, store, assignment, key, temperature)
        slots, drawn = chunk.decode(_start_fresh_rows(store, slots, assignment, shards))
        numbers = chunk.numbers(slots)
        status = jnp.stack([numbers.active, numbers.most, numbers.longest, numbers.waiting])
        return pin.slots(slots), ChunkResult(pin.rows(drawn), pin.rows(slots.done), pin.replicated(status))

    def longer_ring(ring: Ring) -> Ring:
        clock, *held = grow_ring(ring, plan.rings)
        return pin.replicated(clock), *pin.rows(held)

    def fewer_slots(slots: Slots, which: Array, prompt: Array) -> Slots:
        return pin.slots(select_slots(slots, which, prompt, shards))

    start.__name__ = "prefill"
    return _jitted(model, make_lay_out(policy, model), start, decode_chunk, longer_ring, fewer_slots)


def _jitted(
    model: SlotModel,
    lay_out: jax.stages.Wrapped | None,
    start: Callable,
    chunk: Callable,
    grow: Callable,
    shrink: Callable,
) -> ContinuousPrograms:
    """The functions of `ContinuousPrograms`, jitted; their caches are laid out as decoding reads them."""
    unspecified: Any = None
    cache = cache_formats(model)
    slots = Slots(unspecified, unspecified, unspecified, unspecified, cache)
    copied = () if lay_out is None else (0,)
    return ContinuousPrograms(
        lay_out,
        jax.jit(start, donate_argnums=copied, out_shardings=(None, None, slots)),
        jax.jit(chunk, donate_argnums=2, out_shardings=(slots, None)),
        jax.jit(grow, out_shardings=(None, cache.key, cache.value)),
        jax.jit(shrink, out_shardings=slots),
    )


@dataclasses.dataclass(frozen=True)
class _Chunk:
    """The arguments of one call of `ContinuousPrograms.decode`."""

    model: SlotModel
    config: SamplerConfig
    plan: BatchingPlan
    weights: Params
    store: PromptStore
    assignment: Assignment
    key: Array
    temperature: Array

    def decode(self, slots: Slots) -> tuple[Slots, Drawn]:
        """Decodes at most `chunk` tokens of every slot; or, once only the tail is active, all of its tokens."""
        if not self.plan.tail:
            return self._decode_some(slots)
        only_tail = self._only_tail_active(self.numbers(slots)) & ~self.assignment.fresh.any()
        return jax.lax.cond(only_tail, self._decode_tail, self._decode_some, slots)

    def _decode_some(self, slots: Slots) -> tuple[Slots, Drawn]:
        ring, refill = ring_length(slots.cache.key), max(1, slots.done.shape[0] // self.plan.refill)

        def steps_left(slots: Slots) -> Array:
            all_slots = self.numbers(slots)
            goes_on = (all_slots.active > 0) & (all_slots.refillable < refill) & ~self._only_tail_active(all_slots)
            return jnp.where(goes_on, jnp.maximum(ring + 1 - all_slots.longest, 0), 0)

        def hidden() -> Array:
            return take_by_shard(self.store.hidden, self.assignment.prompt, self.plan.shards)

        functions = self._functions(self.assignment.id, self.assignment.sample)
        draw, is_last = functions["draw"], functions["is_last"]
        slots, drawn = draw_first_tokens(slots, self._columns, hidden, self.assignment.fresh, draw, is_last)
        return decode_while(steps_left, slots, drawn, jnp.int32(0), self.plan.chunk, **functions)[:2]

    def _decode_tail(self, slots: Slots) -> tuple[Slots, Drawn]:
        """Decodes the tail in slots of its own. The ring of `slots` is not updated, since nothing reads it again."""
        shards, tail = self.plan.shards, self.plan.tail
        which = active_first(slots, tail, shards)
        rows = (self.assignment.prompt, self.assignment.id, self.assignment.sample)
        prompt, ids, samples = take_by_shard(rows, which, shards)
        drawn = Drawn.empty(tail, self._columns)
        few = select_slots(slots, which, prompt, shards)
        start, last = jnp.int32(-1), self._columns - 1  # no first tokens are drawn, so the steps begin with column 0
        functions = self._functions(ids, samples)
        _, drawn, _ = decode_while(lambda few: jnp.where(few.done.all(), 0, last), few, drawn, start, last, **functions)
        nothing = Drawn.empty(slots.done.shape[0], self._columns)
        return dataclasses.replace(slots, done=jnp.ones_like(slots.done)), put_by_shard(nothing, drawn, which, shards)

    def numbers(self, slots: Slots) -> SlotNumbers:
        """The numbers of all slots."""
        return count_slots(slots, self.assignment.waiting, SlotSharding(self.model).replicated)

    def _only_tail_active(self, numbers: SlotNumbers) -> Array:
        if not self.plan.tail:
            return jnp.zeros((), bool)
        return (numbers.waiting == 0) & (numbers.most * self.plan.shards <= self.plan.tail)

    @property
    def _columns(self) -> int:
        """C, columns of the chunk's `Drawn`."""
        chunk = self.plan.chunk + 1
        return max(chunk, self.config.max_new_tokens) if self.plan.tail else chunk

    def _functions(self, ids: Array, samples: Array) -> dict[str, Any]:
        """The keyword arguments of `decode_while`, for rows with these prompt ids and sample numbers, i32[S]."""
        config = self.config
        keys, temperature = row_keys(self.key, ids, samples), self.temperature if config.temperature else None
        head = self.model.head(self.weights)

        def decode(slots: Slots) -> tuple[Array, Any]:
            lengths = jnp.where(slots.done, -1, slots.count - 1)
            return self.model.decode_slots(self.weights, slots.cache, slots.token, lengths, slots.clock)

        return {
            "decode": decode,
            "draw": make_draw(head, keys, temperature, config.top_k, config.top_p, vocab_parts(self.model)),
            "is_last": make_is_last(config.max_new_tokens, config.stop_tokens),
            "shards": self.plan.shards,
        }


def _start_fresh_rows(store: PromptStore, slots: Slots, assignment: Assignment, shards: int) -> Slots:
    """Resets the slots of fresh rows: no tokens, no columns of the ring, and the row's own prompt in the cache."""
    fresh = assignment.fresh
    slots = dataclasses.replace(slots, count=jnp.where(fresh, 0, slots.count), done=slots.done & ~fresh)
    if store.mask is None:
        return slots
    cache = slots.cache
    held = (cache.prompt_key, cache.prompt_value, cache.prompt_mask)

    def copy_prompts(held: Any) -> Any:
        def choose(old: Array, new: Array) -> Array:
            axis = max(old.ndim - 4, 0)
            return jnp.where(fresh.reshape(*(1,) * axis, -1, *(1,) * (old.ndim - axis - 1)), new, old)

        prompts = take_by_shard((store.keys, store.values, store.mask), assignment.prompt, shards)
        return jax.tree.map(choose, held, prompts)

    key, value, mask = jax.lax.cond(fresh.any(), copy_prompts, lambda same: same, held)
    cache = dataclasses.replace(cache, prompt_key=key, prompt_value=value, prompt_mask=mask)
    return dataclasses.replace(slots, cache=cache)
