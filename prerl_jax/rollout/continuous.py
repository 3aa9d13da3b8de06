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
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from prerl_jax.core.types import Array, Params, Prompts, Rollouts
from prerl_jax.models.cache import whole_lines
from prerl_jax.rollout.cache_rings import columns_of, ring_of, with_ring
from prerl_jax.rollout.continuous_programs import (
    Assignment,
    ChunkResult,
    PoolShape,
    Programs,
    make_programs,
)
from prerl_jax.rollout.sampler import SamplerConfig
from prerl_jax.rollout.scheduler import Queue
from prerl_jax.runtime.mesh import batch_shards, global_rows, local_rows, replicate, replicated

OnComplete = Callable[[np.ndarray, np.ndarray, np.ndarray], None]
"""on_complete(rows i64[n], responses i32[n, R], lengths i64[n]): rows that have ended, each told once.

`rows` are numbers of this process's rows of the call: sample j of its prompt i is i * group_size + j. Responses are
right-padded with 0; the arrays are the callee's to keep. It is called on the thread that samples, while the device
decodes the next chunk, so it should be quick: give the work to another thread. Rows of a tail are told when its last
one has ended. What it raises ends the call.
"""
AHEAD = 2
"""Chunks that the device has been given, when no row waits."""
SHORTEST_RING = 512
FEWEST_ROOM = 128
"""Responses shorter than these are not worth a program more, for fewer slots: they have a tail."""
FEWEST_SLOTS = 8
"""Nor are fewer slots than these: the weights are read once for all of them."""


def make_pool(
    model: Any,
    config: SamplerConfig,
    group_size: int = 1,
    *,
    slots: int | None = None,
    chunk: int = 16,
    rings: tuple[int, ...] | None = None,
    shrink: tuple[int, ...] | None = None,
    tail: int | None = None,
) -> Pool:
    """An engine that decodes `slots` rows at once, however many there are.

    Args:
      model: a `Decoder`, or what has its `init_cache`, `decode_slots`, `decoding`, `pin_cache` and `mesh`.
      config: how to sample. Pools that differ in temperature alone share their programs, but for greedy ones.
      group_size: samples a prompt.
      slots: rows at once; None, or more than there are, for one a row. Must divide over the parts of the mesh.
      chunk: tokens between two looks at what has finished, at most; but a tail is one chunk.
      rings: lengths of the responses' cache, rising; the last is enough for `max_new_tokens`. Each is a program more.
        None: `max_new_tokens` and thirds of it, down to SHORTEST_RING, see `whole_lines`.
      shrink: numbers of slots to go on with when no row waits, falling. Each is a program more. None: halves of the
        slots down to a sixteenth and FEWEST_SLOTS, where responses have FEWEST_ROOM tokens or more; with several
        rings a quarter and a sixteenth, so that going on needs no more memory than a longer ring does. (): never.
      tail: when no row waits and no more slots are active, these are decoded to their ends in one chunk, which needs a
        second ring of so many, and results of `max_new_tokens` for all slots at every chunk; 0 for never. It goes
        without `shrink` and with one ring. None: an eighth of the slots, where `shrink` is None too, responses have
        fewer than FEWEST_ROOM tokens and that is at least FEWEST_SLOTS.

    Raises ValueError for numbers below these, slots that do not divide over the mesh, rings that are too short, and a
    tail beside several rings or `shrink`.
    """
    for name, value, least in (
        ("group_size", group_size, 1),
        ("slots", slots, 1),
        ("chunk", chunk, 1),
        ("tail", tail, 0),
    ):
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}.")
    if not hasattr(model, "decode_slots"):
        raise ValueError(f"{type(model).__name__} has no decode_slots, which a pool needs; sample with make_sampler.")
    parts = 1 if model.mesh is None else batch_shards(model.mesh)
    for count in (slots or parts, *(shrink or ()), tail or 0):
        if count % parts:
            raise ValueError(
                f"{count} slots do not divide over the {parts} parts of the mesh (data x fsdp); use a multiple."
            )
    needed = max(config.max_new_tokens - 1, 1)
    rings = _rings(needed) if rings is None else tuple(min(ring, needed) for ring in rings)
    if not rings or rings[-1] < needed or list(rings) != sorted(set(rings)) or rings[0] < 1:
        raise ValueError(f"rings {rings} must rise to at least max_new_tokens - 1 = {needed} columns.")
    if tail and (len(rings) > 1 or shrink):
        raise ValueError(
            f"A tail ({tail}) is decoded in one ring and ends all: not beside rings {rings}, shrink {shrink}."
        )
    return Pool(model, config, group_size, slots, chunk, rings, shrink, tail)


def _rings(needed: int) -> tuple[int, ...]:
    # Thirds: attention reads a whole ring, and so, of full rows, half as much again as it must; of quarters, 0.6.
    rings = [whole_lines(needed)]
    while -(-rings[0] // 3) >= SHORTEST_RING:
        rings.insert(0, whole_lines(-(-rings[0] // 3)))
    return tuple(rings)


@functools.lru_cache(maxsize=16)
def _programs(model: Any, config: SamplerConfig, shape: PoolShape) -> Programs:
    return make_programs(model, config, shape)


@dataclasses.dataclass(frozen=True)
class Pool:
    """(params, prompts, key) -> Rollouts, see `Engine`; made by `make_pool`."""

    model: Any
    config: SamplerConfig
    group_size: int
    slots: int | None
    chunk: int
    rings: tuple[int, ...]
    shrink: tuple[int, ...] | None
    tail: int | None
    _clock: _Clock = dataclasses.field(default_factory=lambda: _Clock(), compare=False, repr=False)
    reports_completed = True

    @property
    def idle(self) -> list[tuple[float, float]]:
        """(from, to) pairs of `time.perf_counter` in the last call, when the device had nothing to do."""
        return list(self._clock.spans)

    def programs(self, rows: int) -> tuple[PoolShape, Programs]:
        """What so many rows, over all processes, are sampled with."""
        slots = rows if self.slots is None else min(rows, self.slots)
        parts = 1 if self.model.mesh is None else batch_shards(self.model.mesh)
        shrink, tail = self._ending(slots, parts)
        shape = PoolShape(self.group_size, slots, parts, slots == rows, self.chunk, self.rings, shrink, tail)
        config = dataclasses.replace(self.config, temperature=float(self.config.temperature > 0))
        return shape, _programs(self.model, config, shape)

    def _ending(self, slots: int, parts: int) -> tuple[tuple[int, ...], int]:
        """(shrink, tail): what is done when no row waits, as `make_pool` was told or as fits the responses."""

        def shares(*divisors: int) -> tuple[int, ...]:
            found = (slots // divisor // parts * parts for divisor in divisors)
            return tuple(n for n in found if n >= FEWEST_SLOTS)

        shrink, tail, one_ring = self.shrink or (), self.tail or 0, len(self.rings) == 1
        if self.shrink is None and not tail:
            if self.config.max_new_tokens >= FEWEST_ROOM:
                shrink = shares(2, 4, 8, 16) if one_ring else shares(4, 16)
            elif self.tail is None and one_ring:
                tail = max(shares(8), default=0)
        return tuple(sorted({n for n in shrink if n < slots}, reverse=True)), min(tail, slots)

    def __call__(self, params: Params, prompts: Prompts, key: Array, on_complete: OnComplete | None = None) -> Rollouts:
        """Samples; `on_complete` hears of rows as they end, see `OnComplete`.

        Raises ValueError where the prompts do not divide over the mesh, or have no ids on several processes.
        """
        self._clock.spans.clear()
        self._clock.begins()
        mesh, processes = self.model.mesh, jax.process_count()
        if prompts.ids is None and processes > 1:
            raise ValueError("Prompts need ids on several processes: rows have no order there.")
        prompts = local_rows(prompts)
        local_parts = 1 if mesh is None else batch_shards(mesh) // processes
        if prompts.prompt.shape[0] % local_parts:
            count = prompts.prompt.shape[0]
            raise ValueError(f"{count} prompts do not divide over the {local_parts} parts of the mesh (data x fsdp).")
        shape, programs = self.programs(prompts.prompt.shape[0] * processes * self.group_size)
        queue = Queue(prompts, self.group_size, shape.slots // processes, local_parts, self.config.max_new_tokens)
        temperature = np.float32(self.config.temperature or 1)
        if mesh is not None:
            key, temperature = jax.device_put(key, replicated(mesh)), replicate(mesh, temperature)
        self._run(programs, shape, queue, params, key, temperature, on_complete)
        rollouts = self._place(queue.rollouts())
        self._clock.ends()
        return rollouts

    def compile(self, params: Params, prompts: Prompts, key: Array) -> Iterator[tuple[str, jax.stages.Compiled]]:
        """Every program for all slots, compiled ahead of time, one after the other, each with its name.

        They are "prefill" and, of every ring, "decode_chunk/COLUMNS", before it "longer_ring/COLUMNS" but for the
        first; then, in the longest ring, "fewer_slots/COUNT" from all slots. The arguments are trees of
        jax.ShapeDtypeStruct, with shardings where the model has a mesh.
        """
        shape, programs = self.programs(prompts.prompt.shape[0] * self.group_size)
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

    def _run(self, programs: Programs, shape: PoolShape, queue: Queue, params, key, temperature, on_complete) -> None:
        weights, store, slots = programs.prefill(params, self._place(queue.prompts))
        self._clock.ends()
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
                self._clock.ends()
                flying.append((queue.rows(), told))
                jax.tree.map(lambda x: x.copy_to_host_async(), told)
            if landed is not None:
                keep(*landed)
            rows, told = flying.popleft()
            active, most, longest, waiting = (int(n) for n in np.asarray(told.status))
            landed = rows, told, queue.end(rows, local_rows(told.done))
            if not flying or not (active or waiting):
                self._clock.begins()
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


class _Clock:
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
