"""Continuous batching: rows are decoded in slots, a chunk of tokens at a time, and a free slot takes the next row.

After each chunk the host reads the drawn tokens, reports completed rows, and assigns waiting rows to free slots. While
rows wait, the next chunk depends on this assignment, so the device waits for the host. Once no row waits, the next
chunk does not depend on it: the host starts it before the last one is complete, and the device never waits.

Each prompt is prefilled once. With a slot for every row, the slots of a group share their prompt's keys and values.
With fewer slots, each has its own copy, made when a row starts: with a shared copy, no slot of a group could take a
row of another prompt before the group's last row is complete. The responses' cache is a ring (see `cache_rings`), which
starts short and grows when a row needs it. When no row waits, the rows still active continue in fewer slots. With a
small `max_new_tokens`, slots do not shrink: once at most an eighth of the slots (the tail) is active, one chunk decodes
these rows to their ends.

Token t of sample j of prompt i is drawn with the key fold_in(key, i, j, t). So with any slots, chunks and
refills, the tokens are those of `make_sampler`, except for ties within rounding.

Each process decodes the rows of its own prompts (see `row_share`), and all processes call the same programs in the same
order: what is called next depends only on numbers that every process has.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import deque
from collections.abc import Iterator
from typing import Any, cast

import jax
import numpy as np
from jax.sharding import Mesh

from prerl_jax.core.types import Array, Params, Prompts
from prerl_jax.rollout.ahead_of_time import compile_programs
from prerl_jax.rollout.cache_rings import ring_length, ring_of, with_ring
from prerl_jax.rollout.continuous_programs import (
    Assignment,
    ChunkResult,
    ContinuousPrograms,
    make_continuous_programs,
)
from prerl_jax.rollout.decode import SlotModel, Slots
from prerl_jax.rollout.engine import IdleClock, OnComplete, Sampled, on_host
from prerl_jax.rollout.layout import Layout
from prerl_jax.rollout.layout_choice import Cached, choose_layout
from prerl_jax.rollout.plan import BatchingPlan, default_ending, default_rings
from prerl_jax.rollout.sampler import SamplerConfig
from prerl_jax.rollout.scheduler import SlotScheduler
from prerl_jax.runtime.mesh import batch_shards, global_rows, local_rows, replicate, replicated
from prerl_jax.runtime.row_share import row_share

AHEAD = 2
"""Chunks that are started ahead when no row waits for a slot."""


@dataclasses.dataclass(frozen=True)
class ContinuousBatching:
    """An `EngineSpec`: a fixed number of slots, each of which takes the next response when its own is complete.

    Attributes:
      slots: responses decoded at once, over all devices, which bounds the cache of keys and values. None, or more than
        there are responses: one slot for each response, and a group shares its prompt's part of the cache; with fewer
        slots, each has a copy of its prompt's part. A multiple of the shards of the mesh (data x fsdp).
      chunk: the most tokens that are decoded before the host reads the results; a tail is decoded in one chunk.
      rings: lengths of the responses' cache, rising; the last is at least `max_new_tokens - 1`. A cache starts with the
        first length and grows to the next when a response needs it. Each length adds a compiled program. None: that
        number, and, unless the model reads only filled columns, thirds of it down to SHORTEST_RING (512).
      shrink: numbers of slots, falling: when no response waits for a slot, decoding continues in that many slots as
        soon as the active ones fit. Each number adds a compiled program. None: if `max_new_tokens` is SHORTEST_SHRINK
        (128) or more, a half, a quarter, an eighth and a sixteenth of the slots, but not below FEWEST_SLOTS (8); with
        several rings only a quarter and a sixteenth, so that shrinking needs no more memory than a longer ring does;
        never where the model reads only the filled columns. (): never.
      tail: when no response waits for a slot and at most this many slots are active, one chunk decodes them to their
        ends. This needs a second cache of that many slots, and every chunk returns `max_new_tokens` columns for all
        slots. 0: never. A tail cannot be combined with `shrink` or several rings. None: an eighth of the slots, if
        `shrink` is None too, `max_new_tokens` is below SHORTEST_SHRINK, the eighth is at least FEWEST_SLOTS, and the
        model reads whole rings.
      tensor: devices that share a copy of the weights while decoding. None: as the bytes say, see `choose_layout`.

    Raises ValueError for numbers below 1 (`tail`: 0).
    """

    slots: int | None = None
    chunk: int = 16
    rings: tuple[int, ...] | None = None
    shrink: tuple[int, ...] | None = None
    tail: int | None = None
    tensor: int | None = None

    def __post_init__(self) -> None:
        least = (("slots", self.slots, 1), ("chunk", self.chunk, 1), ("tail", self.tail, 0), ("tensor", self.tensor, 1))
        for name, value, number in least:
            _at_least(name, value, number)

    def check(self, shards: int) -> None:
        """Raises ValueError if a number of slots does not divide over the shards of the mesh (data x fsdp)."""
        for name, count in (("slots", self.slots), ("tail", self.tail), *(("shrink", n) for n in self.shrink or ())):
            if count and count % shards:
                raise ValueError(
                    f"ContinuousBatching has {name} = {count}, which do not divide over the {shards} shards of the "
                    "mesh (data x fsdp); use a multiple, or None."
                )

    def make(self, model: Any, config: SamplerConfig, group_size: int = 1) -> ContinuousBatchingEngine:
        """The engine for these settings.

        Args:
          model: a `Decoder`, or another `SlotModel`.
          config: how to sample. Engines that differ in temperature alone share their programs, except greedy ones.
          group_size: samples for each prompt.

        Raises ValueError if `group_size` is below 1, the model is no `SlotModel`, slots do not divide over its mesh,
        the rings are too short for `max_new_tokens`, or a tail is combined with several rings or `shrink`.
        """
        _at_least("group_size", group_size, 1)
        if not isinstance(model, SlotModel):
            raise ValueError(
                f"{type(model).__name__} is not a SlotModel: it has no decode_slots, or lacks another of the methods "
                "that continuous batching needs. Use StaticBatching() as the engine."
            )
        self.check(1 if model.mesh is None else batch_shards(model.mesh))
        needed = max(config.max_new_tokens - 1, 1)
        given = None if self.rings is None else tuple(min(ring, needed) for ring in self.rings)
        rings = default_rings(needed, model.reads_filled) if given is None else given
        if not rings or rings[-1] < needed or list(rings) != sorted(set(rings)) or rings[0] < 1:
            raise ValueError(f"rings {rings} must rise to at least max_new_tokens - 1 = {needed} columns.")
        if self.tail and (len(rings) > 1 or self.shrink):
            raise ValueError(
                f"A tail ({self.tail}) needs a single ring and no shrink, got rings {rings} and shrink {self.shrink}."
            )
        return ContinuousBatchingEngine(model, config, group_size, self, rings)


def _at_least(name: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}.")


_choose_layout = functools.lru_cache(maxsize=16)(choose_layout)


@functools.lru_cache(maxsize=16)
def _programs(model: Any, config: SamplerConfig, plan: BatchingPlan) -> ContinuousPrograms:
    return make_continuous_programs(model, config, plan)


@dataclasses.dataclass(frozen=True)
class ContinuousBatchingEngine:
    """An `Engine`, made by `ContinuousBatching`.

    Attributes:
      model: a `SlotModel`, on the training mesh.
      config: how to sample.
      group_size: samples for each prompt.
      batching: the numbers that it was made with.
      rings: lengths of the responses' cache, rising.
      held: bytes on a device that the run holds throughout, see `choose_layout`.
    """

    model: SlotModel
    config: SamplerConfig
    group_size: int
    batching: ContinuousBatching
    rings: tuple[int, ...]
    held: int | None = None

    def layout(self, rows: int, prompt: int) -> Layout:
        """How many devices share a copy of the weights while decoding, and why; for a call as in `plan`."""
        slots = self._slots(rows)
        prompts = rows // self.group_size if slots == rows else slots
        cache, model = Cached(prompts, prompt, slots, self.rings[-1]), cast(Any, self.model)
        return _choose_layout(model, self.batching.tensor, cache, self.config.cache_dtype, self.held)

    def _slots(self, rows: int) -> int:
        return rows if self.batching.slots is None else min(rows, self.batching.slots)

    def plan(self, rows: int, prompt: int) -> BatchingPlan:
        """The plan of a call with this many rows over all processes, and prompts of so many tokens."""
        given, slots, mesh = self.batching, self._slots(rows), self.layout(rows, prompt).mesh
        shards = 1 if mesh is None else batch_shards(mesh)
        shrink, tail = given.shrink or (), given.tail or 0
        if given.shrink is None and not tail:
            sizes = slots, shards, self.config.max_new_tokens, self.rings
            shrink, fitting_tail = default_ending(*sizes, self.model.reads_filled)
            tail = fitting_tail if given.tail is None else 0
        return BatchingPlan(
            group_size=self.group_size,
            slots=slots,
            mesh=mesh,
            shards=shards,
            shared=slots == rows,
            chunk=given.chunk,
            rings=self.rings,
            shrink=tuple(sorted({n for n in shrink if n < slots}, reverse=True)),
            tail=min(tail, slots),
        )

    def programs(self, plan: BatchingPlan) -> ContinuousPrograms:
        """The programs of a call with this plan. Equal ones are shared."""
        config = dataclasses.replace(self.config, temperature=float(self.config.temperature > 0))
        model: Any = self.model
        return _programs(model, config, plan)

    def sample(self, params: Params, prompts: Prompts, key: Array, on_complete: OnComplete | None = None) -> Sampled:
        """See `Engine.sample`. `on_complete` is called after each chunk that completes rows.

        Raises ValueError if the prompts do not divide over the shards of the mesh, or have no ids on several processes.
        """
        clock = IdleClock()
        clock.start()
        share, prompts = row_share(self.model.mesh), on_host(prompts)
        count, length = prompts.prompt.shape
        plan = self.plan(count * share.count * self.group_size, length)
        programs, mesh = self.programs(plan), plan.mesh
        local_shards = 1 if mesh is None else batch_shards(mesh) // share.count
        if count % local_shards:
            raise ValueError(f"{count} prompts do not divide over the {local_shards} shards of the mesh (data x fsdp).")
        local_slots = plan.slots // share.count
        scheduler = SlotScheduler(prompts, self.group_size, local_slots, local_shards, self.config.max_new_tokens)
        temperature: Any = np.float32(self.config.temperature or 1)
        if mesh is not None:
            key, temperature = jax.device_put(key, replicated(mesh)), replicate(mesh, temperature)
        self._decode(plan, programs, scheduler, clock, on_complete, params, key, temperature)
        rollouts = scheduler.rollouts()
        clock.stop()
        return Sampled(rollouts, tuple(clock.spans))

    def _decode(
        self,
        plan: BatchingPlan,
        programs: ContinuousPrograms,
        scheduler: SlotScheduler,
        clock: IdleClock,
        on_complete: OnComplete | None,
        params: Params,
        key: Array,
        temperature: Any,
    ) -> None:
        """Decodes all rows of the scheduler."""
        weights = params if programs.lay_out is None else programs.lay_out(params)
        weights, store, slots = programs.prefill(weights, _place(plan.mesh, scheduler.prompts))
        clock.stop()
        in_flight: deque[tuple[np.ndarray, ChunkResult]] = deque()
        previous: tuple[np.ndarray, ChunkResult, np.ndarray] | None = None
        waiting = int(not plan.shared)

        def record(rows: np.ndarray, result: ChunkResult, completed: np.ndarray) -> None:
            scheduler.record(rows, local_rows(result.drawn))
            if len(completed) and on_complete is not None:
                on_complete(*scheduler.responses(completed))

        while True:
            while len(in_flight) < (1 if waiting else AHEAD):
                assignment = Assignment(**{name: _place(plan.mesh, x) for name, x in scheduler.assign().items()})
                slots, result = programs.decode(weights, store, slots, assignment, key, temperature)
                clock.stop()
                in_flight.append((scheduler.rows_in_slots(), result))
                jax.tree.map(lambda x: x.copy_to_host_async(), result)
            if previous is not None:  # while the device decodes
                record(*previous)
            rows, result = in_flight.popleft()
            active, most, longest, waiting = (int(n) for n in np.asarray(result.status))
            previous = rows, result, scheduler.complete(rows, local_rows(result.done))
            if not in_flight or not (active or waiting):
                clock.start()
            if not active and not waiting:
                return record(*previous)
            if active and longest > ring_length(slots.cache.key):
                slots = with_ring(slots, programs.grow(ring_of(slots)))
            if not waiting:
                slots = self._shrink(plan, programs, scheduler, slots, most)

    def _shrink(
        self, plan: BatchingPlan, programs: ContinuousPrograms, scheduler: SlotScheduler, slots: Slots, most: int
    ) -> Slots:
        """The slots, or fewer if the active ones fit. `most`: the active slots of the shard that has the most."""
        # Shrinks step by step through the plan's numbers, so that every program has one fixed pair of sizes.
        for fewer in [n for n in plan.shrink if n < slots.done.shape[0]]:
            if most * plan.shards <= fewer:
                which, prompt = scheduler.compact(fewer // row_share(self.model.mesh).count)
                slots = programs.shrink(slots, *(_place(plan.mesh, numbers) for numbers in (which, prompt)))
        return slots

    def compile(self, params: Params, prompts: Prompts, key: Array) -> Iterator[tuple[str, jax.stages.Compiled]]:
        """Compiles the programs ahead of time, see `compile_programs`.

        The arguments are trees of jax.ShapeDtypeStruct, with shardings where the model has a mesh.
        """
        count, length = prompts.prompt.shape
        plan = self.plan(count * self.group_size, length)
        return compile_programs(self.programs(plan), plan, params, prompts, key)


def _place(mesh: Mesh | None, tree: Any) -> Any:
    """This process's rows, on the device or split over the mesh."""
    return jax.device_put(tree) if mesh is None else global_rows(mesh, tree)
