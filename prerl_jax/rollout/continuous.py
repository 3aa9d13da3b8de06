"""A pool of slots: rows are decoded a chunk of tokens at a time, and a slot whose row has ended takes the next one.

The host looks at what a chunk has drawn, keeps it, hands finished rows on, and says which rows begin. While no row
waits for a slot, none of that settles what the next chunk is, which is asked for before the last one is over: the
device never waits for the host. While rows wait, it waits until the host has said which of them begin.

The prompts are prefilled once a group. With a slot for every row, a group's slots share their prompt's keys and values;
with fewer, every slot has a copy of its prompt's, made when a row begins: sharing would tie a group's slots together
until its last row has ended. The ring of the responses' cache starts short and grows when a row needs it; when no row
waits, what is still active goes on in fewer slots. Short responses have one program for all of that: when no more than
the tail is active, an eighth of the slots, it is decoded to the end in one chunk.

Token t of sample j of prompt i is drawn with fold_in(key, i, j, t): rows say what `make_sampler` has them say, whatever
the slots, the chunks and the refills, but for ties within rounding.

On several processes each keeps the rows of its own prompts, and all call the same programs in the same order: what is
called next is told by numbers that every device has.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from prerl_jax.core.types import Array, Params, Prompts
from prerl_jax.models.cache import whole_lines
from prerl_jax.rollout.cache_rings import columns_of, ring_of, with_ring
from prerl_jax.rollout.continuous_programs import (
    Assignment,
    BatchingPlan,
    ChunkResult,
    ContinuousPrograms,
    make_continuous_programs,
)
from prerl_jax.rollout.decode import SlotModel
from prerl_jax.rollout.engine import OnComplete, Sampled, on_host
from prerl_jax.rollout.sampler import SamplerConfig
from prerl_jax.rollout.scheduler import Queue
from prerl_jax.runtime.mesh import batch_shards, global_rows, local_rows, replicate, replicated

AHEAD = 2
"""Chunks that the device has been given, when no row waits."""
SHORTEST_RING = 512
SHORTEST_SHRINK = 128
"""Responses shorter than these are not worth a program more, for fewer slots: they have a tail."""
FEWEST_SLOTS = 8
"""Nor are fewer slots than these: the weights are read once for all of them."""


@dataclasses.dataclass(frozen=True)
class ContinuousBatching:
    """An `EngineSpec`: a fixed number of slots, each of which takes the next response when its own is complete.

    Attributes:
      slots: responses decoded at once, over all devices, which bounds the cache of keys and values. None, or more than
        there are responses: one slot for each response, and a group shares its prompt's part of the cache; with fewer
        slots, each has a copy of its prompt's part. A multiple of the shards of the mesh (data x fsdp).
      chunk: tokens that are decoded between two looks of the host, at most; a tail is decoded in one chunk.
      rings: lengths of the responses' cache, rising; the last is at least `max_new_tokens - 1`. A cache starts with the
        first length and grows to the next when a response needs it. One more compiled program each. None: that number,
        and thirds of it down to SHORTEST_RING, see `whole_lines`.
      shrink: numbers of slots, falling: when no response waits for a slot, decoding continues in that many slots as
        soon as the active ones fit. One more compiled program each. None: halves of the slots down to a sixteenth and
        FEWEST_SLOTS, where responses have SHORTEST_SHRINK tokens or more; with several rings a quarter and a
        sixteenth, so that it needs no more memory than a longer ring does. (): never.
      tail: when no response waits for a slot and at most this many slots are active, these are decoded to their ends in
        one chunk. It needs a second cache of that many slots, and a result of `max_new_tokens` for all slots at every
        chunk. 0 is never. It excludes `shrink` and several rings. None: an eighth of the slots, where `shrink` is None
        too, responses have fewer than SHORTEST_SHRINK tokens and that is at least FEWEST_SLOTS.

    Raises ValueError for numbers below 1 (`tail`: 0).
    """

    slots: int | None = None
    chunk: int = 16
    rings: tuple[int, ...] | None = None
    shrink: tuple[int, ...] | None = None
    tail: int | None = None

    def __post_init__(self) -> None:
        for name, value, least in (("slots", self.slots, 1), ("chunk", self.chunk, 1), ("tail", self.tail, 0)):
            _at_least(name, value, least)

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
          group_size: samples a prompt.

        Raises ValueError if `group_size` is below 1, the model is no `SlotModel`, slots do not divide over its mesh,
        the rings are too short for `max_new_tokens`, or there is a tail beside several rings or `shrink`.
        """
        _at_least("group_size", group_size, 1)
        if not isinstance(model, SlotModel):
            raise ValueError(
                f"{type(model).__name__} is not a SlotModel: it has no decode_slots, or lacks another of the methods "
                "that continuous batching needs. Use StaticBatching() as the engine."
            )
        self.check(1 if model.mesh is None else batch_shards(model.mesh))
        needed = max(config.max_new_tokens - 1, 1)
        rings = _rings(needed) if self.rings is None else tuple(min(ring, needed) for ring in self.rings)
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


def _rings(needed: int) -> tuple[int, ...]:
    # Thirds: attention reads a whole ring, and so, of full rows, half as much again as it must; of quarters, 0.6.
    rings = [whole_lines(needed)]
    while -(-rings[0] // 3) >= SHORTEST_RING:
        rings.insert(0, whole_lines(-(-rings[0] // 3)))
    return tuple(rings)


@functools.lru_cache(maxsize=16)
def _programs(model: Any, config: SamplerConfig, shape: BatchingPlan) -> ContinuousPrograms:
    return make_continuous_programs(model, config, shape)


@dataclasses.dataclass(frozen=True)
class ContinuousBatchingEngine:
    """An `Engine`, made by `ContinuousBatching`.

    Attributes:
      model: a `SlotModel`.
      config: how to sample.
      group_size: samples a prompt.
      batching: the numbers that it was made with.
      rings: lengths of the responses' cache, rising.
    """

    model: Any
    config: SamplerConfig
    group_size: int
    batching: ContinuousBatching
    rings: tuple[int, ...]

    def plan(self, rows: int) -> BatchingPlan:
        """What `rows` responses, over all processes, are decoded in."""
        slots = rows if self.batching.slots is None else min(rows, self.batching.slots)
        parts = 1 if self.model.mesh is None else batch_shards(self.model.mesh)
        shrink, tail = self._ending(slots, parts)
        chunk = self.batching.chunk
        return BatchingPlan(self.group_size, slots, parts, slots == rows, chunk, self.rings, shrink, tail)

    def programs(self, rows: int) -> ContinuousPrograms:
        """The compiled programs that decode `rows` responses, over all processes; shared by engines alike."""
        config = dataclasses.replace(self.config, temperature=float(self.config.temperature > 0))
        return _programs(self.model, config, self.plan(rows))

    def _ending(self, slots: int, parts: int) -> tuple[tuple[int, ...], int]:
        """(shrink, tail) of a plan: as given, or as fits the length of responses."""

        def shares(*divisors: int) -> tuple[int, ...]:
            found = (slots // divisor // parts * parts for divisor in divisors)
            return tuple(n for n in found if n >= FEWEST_SLOTS)

        given, one_ring = self.batching, len(self.rings) == 1
        shrink, tail = given.shrink or (), given.tail or 0
        if given.shrink is None and not tail:
            if self.config.max_new_tokens >= SHORTEST_SHRINK:
                shrink = shares(2, 4, 8, 16) if one_ring else shares(4, 16)
            elif given.tail is None and one_ring:
                tail = max(shares(8), default=0)
        return tuple(sorted({n for n in shrink if n < slots}, reverse=True)), min(tail, slots)

    def sample(self, params: Params, prompts: Prompts, key: Array, on_complete: OnComplete | None = None) -> Sampled:
        """See `Engine.sample`. `on_complete` is called after each chunk that completes responses.

        Raises ValueError if the prompts do not divide over the shards of the mesh, or have no ids on several processes.
        """
        clock = _IdleClock()
        clock.begins()
        mesh, processes = self.model.mesh, jax.process_count()
        prompts = on_host(prompts)
        count = prompts.prompt.shape[0]
        local_parts = 1 if mesh is None else batch_shards(mesh) // processes
        if count % local_parts:
            raise ValueError(f"{count} prompts do not divide over the {local_parts} shards of the mesh (data x fsdp).")
        rows = count * processes * self.group_size
        plan, programs = self.plan(rows), self.programs(rows)
        queue = Queue(prompts, self.group_size, plan.slots // processes, local_parts, self.config.max_new_tokens)
        temperature = np.float32(self.config.temperature or 1)
        if mesh is not None:
            key, temperature = jax.device_put(key, replicated(mesh)), replicate(mesh, temperature)
        self._run(programs, plan, queue, params, key, temperature, on_complete, clock)
        rollouts = queue.rollouts()
        clock.ends()
        return Sampled(rollouts, tuple(clock.spans))

    def compile(self, params: Params, prompts: Prompts, key: Array) -> Iterator[tuple[str, jax.stages.Compiled]]:
        """Every program for all slots, compiled ahead of time, one after the other, each with its name.

        They are "prefill" and, of every ring, "decode_chunk/COLUMNS", before it "longer_ring/COLUMNS" but for the
        first; then, in the longest ring, "fewer_slots/COUNT" from all slots. The arguments are trees of
        jax.ShapeDtypeStruct, with shardings where the model has a mesh.
        """
        rows = prompts.prompt.shape[0] * self.group_size
        shape, programs = self.plan(rows), self.programs(rows)
        asked = params, Prompts(prompts.prompt, prompts.prompt_mask)
        prefill = programs.prefill.lower(*asked).compile()
        yield "prefill", prefill
        weights, store, slots = _put_out(prefill, jax.eval_shape(programs.prefill, *asked))
        numbers, flags = slots.count, slots.done

        def counts(n: int) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((n,), numbers.dtype, sharding=numbers.sharding)

        given = Assignment(numbers, numbers, numbers, fresh=flags, waiting=counts(shape.parts))
        temperature = jax.ShapeDtypeStruct((), np.float32, sharding=slots.clock.sharding)
        for columns in shape.rings:
            if columns != shape.rings[0]:
                grow = programs.grow.lower(ring_of(slots)).compile()
                yield f"longer_ring/{columns}", grow
                slots = with_ring(slots, _put_out(grow, jax.eval_shape(programs.grow, ring_of(slots))))
            yield (
                f"decode_chunk/{columns}",
                programs.decode.lower(weights, store, slots, given, key, temperature).compile(),
            )
        for fewer in shape.shrink:
            yield f"fewer_slots/{fewer}", programs.shrink.lower(slots, counts(fewer), counts(fewer)).compile()

    def _place(self, tree: Any) -> Any:
        """This process's rows on the device."""
        return jax.device_put(tree) if self.model.mesh is None else global_rows(self.model.mesh, tree)

    def _run(
        self,
        programs: ContinuousPrograms,
        shape: BatchingPlan,
        queue: Queue,
        params,
        key,
        temperature,
        on_complete,
        clock,
    ) -> None:
        weights, store, slots = programs.prefill(params, self._place(queue.prompts))
        clock.ends()
        flying: deque[tuple[np.ndarray, ChunkResult]] = deque()
        landed, waiting = None, not shape.shared

        def keep(rows: np.ndarray, told: ChunkResult, ended: np.ndarray) -> None:
            queue.keep(rows, local_rows(told.drawn))
            if len(ended) and on_complete is not None:
                on_complete(*queue.responses(ended))

        while True:
            while len(flying) < (1 if waiting else AHEAD):
                assignment = Assignment(**{name: self._place(x) for name, x in queue.assign().items()})
                slots, told = programs.decode(weights, store, slots, assignment, key, temperature)
                clock.ends()
                flying.append((queue.rows(), told))
                jax.tree.map(lambda x: x.copy_to_host_async(), told)
            if landed is not None:
                keep(*landed)
            rows, told = flying.popleft()
            active, most, longest, waiting = (int(n) for n in np.asarray(told.status))
            landed = rows, told, queue.end(rows, local_rows(told.done))
            if not flying or not (active or waiting):
                clock.begins()
            if not active and not waiting:
                break
            if active and longest > columns_of(slots.cache.key):
                slots = with_ring(slots, programs.grow(ring_of(slots)))
            # The next number down, not the least that would do: so programs are one a number.
            for fewer in [n for n in shape.shrink if n < slots.done.shape[0] and not waiting]:
                if most * shape.parts <= fewer:
                    which, prompt = queue.compact(fewer // jax.process_count())
                    slots = programs.shrink(slots, self._place(which), self._place(prompt))
        keep(*landed)


class _IdleClock:
    """Notes when the device has nothing to do."""

    def __init__(self):
        self.spans: list[tuple[float, float]] = []
        self._since: float | None = None

    def begins(self) -> None:
        self._since = time.perf_counter()

    def ends(self) -> None:
        if self._since is not None:
            self.spans.append((self._since, time.perf_counter()))
        self._since = None


def _put_out(compiled: jax.stages.Compiled, shapes: Any) -> Any:
    """What a program returns, as trees of jax.ShapeDtypeStruct."""
    return jax.tree.map(
        lambda x, form: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=form), shapes, compiled.output_formats
    )
