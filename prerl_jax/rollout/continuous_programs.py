"""The pool's device programs: prefill, a chunk of decoding, a longer ring, fewer slots.

Rows belong to the part of the mesh that their prompt lies on, and so do slots: slot n of D parts with S / D slots each
serves rows of part n // (S / D), and whatever is moved is moved within a part. Indices are those within a part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.layout import Format, Layout
from jax.sharding import NamedSharding

from prerl_jax.core.types import Array, Params, Prompts
from prerl_jax.models.cache import Cache
from prerl_jax.models.partitioning import partition_spec
from prerl_jax.rollout.cache_rings import (
    Ring,
    cache_of_slots,
    columns_of,
    first_active,
    grown,
    of_parts,
    put_parts,
    taken,
)
from prerl_jax.rollout.decode import Drawn, Slots, begin, empty, go_on, make_draw, make_end, row_keys
from prerl_jax.rollout.sampler import SamplerConfig, cast, decoding, prefill
from prerl_jax.runtime.mesh import batch_sharding, replicated


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Store:
    """What prefill made of the prompts, for slots to begin with."""

    hidden: Array
    """[Q, D], of the last token of each."""
    keys: Any
    """As `Cache.prompt_key`; None where the slots' cache holds all prompts for good."""
    values: Any
    """As `Cache.prompt_value`."""
    mask: Array | None
    """bool[Q, P]."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Assignment:
    """What the host says of the slots before a chunk."""

    prompt: Array
    """i32[S], of the slot's row."""
    id: Array
    """i32[S], of that prompt."""
    sample: Array
    """i32[S], which of the prompt's samples the row is."""
    fresh: Array
    """bool[S], whether the row is new."""
    waiting: Array
    """i32[D], rows of each part that have no slot yet."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ChunkResult:
    """What the host learns of a chunk."""

    drawn: Drawn
    done: Array
    """bool[S], as `Slots.done` is left."""
    status: Array
    """i32[4]: active slots, those of the part that has most, tokens drawn of the longest active row, and rows that
    wait for a slot; the same on every process."""


@dataclasses.dataclass(frozen=True)
class BatchingPlan:
    """What a pool's programs are compiled for, beside the prompts."""

    group_size: int
    slots: int
    parts: int
    """D, of the mesh."""
    shared: bool
    """Whether there is a slot for every row: then a group shares its prompt's part of the cache."""
    chunk: int
    """Tokens that are decoded between two looks at what has finished, at most; but for the tail."""
    rings: tuple[int, ...]
    """Columns of the responses' cache, rising: the next is taken when a row needs it."""
    shrink: tuple[int, ...]
    """Numbers of slots, falling, to go on with when no row waits and no more are active."""
    tail: int = 0
    """When no row waits and no more slots are active, these are decoded to their ends at once, in a chunk of their
    own; 0 for never. With one ring only."""
    refill: int = 8
    """A chunk ends early when one slot in so many could be refilled."""


@dataclasses.dataclass(frozen=True)
class ContinuousPrograms:
    """Each jitted once; compiled once for every shape of the slots."""

    prefill: Callable[..., tuple[Params, Store, Slots]]
    """(params, prompts) -> (weights to decode with, what slots begin with, the first slots)."""
    decode: Callable[..., tuple[Slots, ChunkResult]]
    """(weights, store, slots, assignment, key, temperature) -> (slots, what the host learns); the slots are donated.
    Where no slot can go on, for want of columns or of rows, nothing is drawn."""
    grow: Callable[[Ring], Ring]
    """A ring of the next length: see `ring_of`, `with_ring`. Prompts are left where they are."""
    shrink: Callable[..., Slots]
    """(slots, which of its part each new one is i32[S'], its prompt i32[S']) -> fewer slots."""


def make_continuous_programs(model: Any, config: SamplerConfig, shape: BatchingPlan) -> ContinuousPrograms:
    """The programs of a pool of this shape; of `config.temperature` only whether it is 0."""
    parts, places = shape.parts, _Places(model)

    def start(params: Params, prompts: Prompts) -> tuple[Params, Store, Slots]:
        params = cast(params, model)
        columns = shape.rings[0]
        group = shape.group_size if shape.shared else 1
        hidden, cache = prefill(model, params, prompts, group, columns if shape.shared else 1, config.cache_dtype)
        if shape.shared:
            store = Store(hidden, None, None, None)
        else:
            store = Store(hidden, cache.prompt_key, cache.prompt_value, cache.prompt_mask)
            cache = cache_of_slots(cache, shape.slots, columns)
        slots = empty(shape.slots, cache, done=True)
        return decoding(params, model), places.rows(store), places.slots(slots)

    def decode_chunk(
        weights: Params, store: Store, slots: Slots, given: Assignment, key: Array, temperature: Array
    ) -> tuple[Slots, ChunkResult]:
        how = _Chunk(model, config, shape, weights, store, given, key, temperature)
        slots, drawn = how.decode(_begun(store, slots, given, parts))
        active = (~slots.done).sum()
        status = jnp.stack([active, _most(slots, parts), _longest(slots), given.waiting.sum()]).astype(jnp.int32)
        return places.slots(slots), ChunkResult(places.rows(drawn), places.rows(slots.done), places.whole(status))

    def longer_ring(ring: Ring) -> Ring:
        clock, *held = grown(ring, shape.rings)
        return places.whole(clock), *places.rows(held)

    def fewer_slots(slots: Slots, which: Array, prompt: Array) -> Slots:
        return places.slots(taken(slots, which, prompt, parts))

    start.__name__ = "prefill"
    return _jitted(model, start, decode_chunk, longer_ring, fewer_slots)


def _jitted(model: Any, start: Callable, chunk: Callable, grow: Callable, shrink: Callable) -> ContinuousPrograms:
    """The functions of `ContinuousPrograms` as programs, whose rings lie as decoding reads them."""
    key, value = _ring_formats(model)
    slots = Slots(None, None, None, None, Cache(None, None, None, key, value))
    return ContinuousPrograms(
        jax.jit(start, out_shardings=(None, None, slots)),
        jax.jit(chunk, donate_argnums=2, out_shardings=(slots, None)),
        jax.jit(grow, out_shardings=(None, key, value)),
        jax.jit(shrink, out_shardings=slots),
    )


def _ring_formats(model: Any) -> tuple[Any, Any]:
    """How a TPU holds the rings: as decoding reads them, [L, S, N, B, K], or every program would hold them twice."""
    if model.mesh is None or model.unroll_decode or model.mesh.devices.flat[0].platform != "tpu":
        return None, None
    axes = ("layers", "batch", "kv_heads", None, None)
    sharding = NamedSharding(model.mesh, partition_spec(model.rules, axes))
    return tuple(Format(Layout(major_to_minor=order), sharding) for order in ((0, 4, 2, 1, 3), (0, 3, 2, 1, 4)))


class _Places:
    """Pins what goes from program to program to one sharding, so that none is compiled twice."""

    def __init__(self, model: Any):
        self._model, self._mesh = model, model.mesh

    def rows(self, tree: Any) -> Any:
        """Split over the rows; what is a cache, over its heads as well."""
        if self._mesh is None:
            return tree
        return jax.tree.map(self._leaf, tree)

    def whole(self, x: Array) -> Array:
        return x if self._mesh is None else jax.lax.with_sharding_constraint(x, replicated(self._mesh))

    def slots(self, slots: Slots) -> Slots:
        return dataclasses.replace(self.rows(slots), clock=self.whole(slots.clock))

    def _leaf(self, x: Array) -> Array:
        if x.ndim >= 4:
            return self._model.pin_cache(x)
        rows = batch_sharding(self._mesh) if x.ndim else replicated(self._mesh)
        return jax.lax.with_sharding_constraint(x, rows)


@dataclasses.dataclass(frozen=True)
class _Chunk:
    """What a call of `ContinuousPrograms.decode` decodes its slots with."""

    model: Any
    config: SamplerConfig
    shape: BatchingPlan
    weights: Params
    store: Store
    given: Assignment
    key: Array
    temperature: Array

    def decode(self, slots: Slots) -> tuple[Slots, Drawn]:
        """Some tokens of every slot; or, once there is but the tail, all of its."""
        if not self.shape.tail:
            return self._some(slots)
        return jax.lax.cond(self._at_tail(slots) & ~self.given.fresh.any(), self._tail, self._some, slots)

    def _some(self, slots: Slots) -> tuple[Slots, Drawn]:
        room, enough = columns_of(slots.cache.key), max(1, slots.done.shape[0] // self.shape.refill)

        def more(slots: Slots) -> Array:
            done = slots.done.reshape(self.shape.parts, -1).sum(axis=1)
            fillable = jnp.minimum(done, self.given.waiting).sum()
            return ~slots.done.all() & (_longest(slots) <= room) & (fillable < enough) & ~self._at_tail(slots)

        def hidden() -> Array:
            return of_parts(self.store.hidden, self.given.prompt, self.shape.parts)

        how = self._how(self.given.id, self.given.sample)
        slots, drawn = begin(slots, self._columns, hidden, self.given.fresh, how["draw"], how["end"])
        return go_on(slots, drawn, jnp.int32(0), self.shape.chunk, more=more, **how)[:2]

    def _tail(self, slots: Slots) -> tuple[Slots, Drawn]:
        """The ring is left as it was: no one reads it again."""
        parts, rows = self.shape.parts, (self.given.prompt, self.given.id, self.given.sample)
        which = first_active(slots, self.shape.tail, parts)
        prompt, ids, samples = of_parts(rows, which, parts)
        drawn = Drawn.nothing(self.shape.tail, self._columns)
        few = taken(slots, which, prompt, parts)
        # From -1, for no first token takes column 0.
        _, drawn, _ = go_on(
            few, drawn, jnp.int32(-1), self._columns - 1, more=lambda few: ~few.done.all(), **self._how(ids, samples)
        )
        nothing = Drawn.nothing(slots.done.shape[0], self._columns)
        return dataclasses.replace(slots, done=jnp.ones_like(slots.done)), put_parts(nothing, drawn, which, parts)

    def _at_tail(self, slots: Slots) -> Array:
        if not self.shape.tail:
            return jnp.zeros((), bool)
        return (self.given.waiting.sum() == 0) & (_most(slots, self.shape.parts) * self.shape.parts <= self.shape.tail)

    @property
    def _columns(self) -> int:
        chunk = self.shape.chunk + 1
        return max(chunk, self.config.max_new_tokens) if self.shape.tail else chunk

    def _how(self, ids: Array, samples: Array) -> dict[str, Callable]:
        """`decode`, `draw` and `end` of `go_on`, for slots of rows with these ids and samples i32[S]."""
        keys, temperature = row_keys(self.key, ids, samples), self.temperature if self.config.temperature else None
        draw = make_draw(self.model.head(self.weights), keys, temperature, self.config.top_k, self.config.top_p)

        def decode(slots: Slots) -> tuple[Array, Any]:
            return self.model.decode_slots(self.weights, slots.cache, slots.token, slots.count - 1, slots.clock)

        return {"decode": decode, "draw": draw, "end": make_end(self.config.max_new_tokens, self.config.stop_tokens)}


def _longest(slots: Slots) -> Array:
    return jnp.where(slots.done, 0, slots.count).max()


def _most(slots: Slots, parts: int) -> Array:
    """i32[], active slots of the part that has most."""
    return (~slots.done).reshape(parts, -1).sum(axis=1).max()


def _begun(store: Store, slots: Slots, given: Assignment, parts: int) -> Slots:
    """Fresh slots begin: nothing drawn, nothing of the ring theirs, their prompt in its place."""
    slots = dataclasses.replace(slots, count=jnp.where(given.fresh, 0, slots.count), done=slots.done & ~given.fresh)
    if store.mask is None:
        return slots
    cache = slots.cache
    held = (cache.prompt_key, cache.prompt_value, cache.prompt_mask)

    def put(held: Any) -> Any:
        def choose(old: Array, new: Array) -> Array:
            axis = max(old.ndim - 4, 0)
            fresh = given.fresh.reshape(*(1,) * axis, -1, *(1,) * (old.ndim - axis - 1))
            return jnp.where(fresh, new, old)

        return jax.tree.map(choose, held, of_parts((store.keys, store.values, store.mask), given.prompt, parts))

    key, value, mask = jax.lax.cond(given.fresh.any(), put, lambda same: same, held)
    return dataclasses.replace(
        slots, cache=dataclasses.replace(cache, prompt_key=key, prompt_value=value, prompt_mask=mask)
    )
