"""Compiles the programs of continuous batching from shapes alone, also for devices that are not there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from prerl_jax.core.types import Params, Prompts
from prerl_jax.rollout.cache_rings import ring_of, with_ring
from prerl_jax.rollout.continuous_programs import Assignment, ContinuousPrograms
from prerl_jax.rollout.plan import BatchingPlan
from prerl_jax.runtime.mesh import batch_sharding, replicated


def compile_programs(
    programs: ContinuousPrograms, plan: BatchingPlan, params: Params, prompts: Prompts, key: Any
) -> Iterator[tuple[str, jax.stages.Compiled]]:
    """Compiles the programs, one after the other; yields each with its name.

    The names are "decode_weights" if they are copied; "prefill"; "decode_chunk/COLUMNS" for each ring, after
    "longer_ring/COLUMNS" for each but the first; then "fewer_slots/COUNT", from all slots, in the longest ring.

    Args:
      programs: of `plan`.
      plan: see `ContinuousBatchingEngine.plan`.
      params: the parameters, where training has them; a tree of jax.ShapeDtypeStruct, as the others.
      prompts: i32[Q, P] and their mask.
      key: the randomness of a call.
    """
    where = None if plan.mesh is None else batch_sharding(plan.mesh)
    shape = prompts.prompt.shape
    shapes: Any = (jax.ShapeDtypeStruct(shape, kind, sharding=where) for kind in (np.int32, bool))
    weights = params
    if plan.mesh is not None:
        key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=replicated(plan.mesh))
    if programs.lay_out is not None:
        copy = programs.lay_out.lower(params).compile()
        yield "decode_weights", copy
        weights = _outputs(copy, jax.eval_shape(programs.lay_out, params))
    arguments: Any = weights, Prompts(*shapes)
    prefill = programs.prefill.lower(*arguments).compile()
    yield "prefill", prefill
    weights, store, slots = _outputs(prefill, jax.eval_shape(programs.prefill, *arguments))
    numbers, flags = slots.count, slots.done

    def integers(n: int) -> Any:
        return jax.ShapeDtypeStruct((n,), numbers.dtype, sharding=numbers.sharding)

    assignment = Assignment(numbers, numbers, numbers, fresh=flags, waiting=integers(plan.shards))
    temperature = jax.ShapeDtypeStruct((), np.float32, sharding=slots.clock.sharding)
    for columns in plan.rings:
        if columns != plan.rings[0]:
            grow = programs.grow.lower(ring_of(slots)).compile()
            yield f"longer_ring/{columns}", grow
            slots = with_ring(slots, _outputs(grow, jax.eval_shape(programs.grow, ring_of(slots))))
        decode = programs.decode.lower(weights, store, slots, assignment, key, temperature)
        yield f"decode_chunk/{columns}", decode.compile()
    for fewer in plan.shrink:
        yield f"fewer_slots/{fewer}", programs.shrink.lower(slots, integers(fewer), integers(fewer)).compile()


def _outputs(compiled: jax.stages.Compiled, shapes: Any) -> Any:
    """A program's outputs as trees of jax.ShapeDtypeStruct with their formats."""
    return jax.tree.map(
        lambda x, form: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=form), shapes, compiled.output_formats
    )
