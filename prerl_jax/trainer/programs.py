"""The compiled programs of a run: sampling, preparing, stepping and aligning, each made once and reused.

Between preparing and stepping the batch passes through the host, where it is packed: rows without a trained token are
left out, and the number of rows is rounded up to a bucket that divides over the mesh and into microbatches, so that a
phase compiles a handful of steps.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from prerl_jax.core.batches import make_prepare
from prerl_jax.core.dual import make_dual_gradients
from prerl_jax.core.logprobs import chunk_length
from prerl_jax.core.packing import bucket, pack, plan
from prerl_jax.core.phases import Phase
from prerl_jax.core.spaces import PostTrainSpace, PreTrainSpace
from prerl_jax.core.train_step import make_train_step, trained_tokens
from prerl_jax.core.types import Array, Batch, Params, Rollouts, TrainState
from prerl_jax.data.prefix import prefix_id
from prerl_jax.rollout.engine import Engine
from prerl_jax.rollout.sampler import SamplerConfig, make_sampler
from prerl_jax.runtime.mesh import agree_max, batch_sharding, batch_shards, global_rows, local_rows, replicated
from prerl_jax.runtime.state import abstract_state
from prerl_jax.trainer.assembly import Assembly, evaluation_shape

MakeEngine = Callable[[Any, SamplerConfig, int], Engine]
Metrics = dict[str, Array]


class Programs:
    """Makes each program at its first use. `make_engine` has the signature of `make_sampler`."""

    def __init__(self, assembly: Assembly, make_engine: MakeEngine = make_sampler):
        self.assembly = assembly
        self._engine = functools.cache(functools.partial(make_engine, assembly.model))
        self.prepare = functools.cache(self._prepare)
        self.step = functools.cache(self._step)
        self.dual = functools.cache(self._dual)

    def engine(self, phase: Phase | None) -> Engine:
        """The engine that samples for a phase, or, for None, for evaluation; shared where the settings are the same."""
        config = self.assembly.config
        spec = config.evaluation if phase is None else config.sampling
        settings = SamplerConfig(
            max_new_tokens=config.sampling.max_new_tokens,
            temperature=config.evaluation.temperature if phase is None else phase.temperature,
            top_k=spec.top_k,
            top_p=spec.top_p,
            stop_tokens=self.assembly.stop_tokens,
        )
        group_size = evaluation_shape(self.assembly)[0] if phase is None else config.sampling.group_size
        return self._engine(settings, group_size)

    def _prepare(self, phase: Phase) -> Callable[[Rollouts, Array], tuple[Batch, Metrics]]:
        """(rollouts, truncated bool[B]) -> (unpacked batch, statistics of the rollouts), all on the mesh."""
        config = self.assembly.config
        make_batch = make_prepare(self.assembly.model, phase, config.sampling.group_size)

        def prepare(rollouts: Rollouts, truncated: Array) -> tuple[Batch, Metrics]:
            batch = make_batch({}, rollouts)
            trained = trained_tokens(batch, phase.objective).any(axis=1)
            terms = len(phase.parts)
            return batch, rollout_statistics(rollouts, truncated, config.sampling.group_size) | {
                "train/kept": (batch.weights != 0).any(axis=1).reshape(terms, -1).any(axis=0).mean(),
                "train/computed": trained.reshape(terms, -1).any(axis=0).mean(),
            }

        mesh = self.assembly.mesh
        return jax.jit(prepare, out_shardings=(batch_sharding(mesh), replicated(mesh)))

    def _step(self, phase: Phase) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
        """The train step of a phase on packed rows; the state is donated. Compiles once a row bucket."""
        assembly = self.assembly
        tx = assembly.optimizer(phase)
        shardings = jax.tree.map(
            lambda s: s.sharding, abstract_state(assembly.model.abstract_params(), tx, assembly.mesh)
        )

        def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
            rows, length = batch.weights.shape
            parts = max(1, rows // assembly.microbatch_rows)
            vocab, shards = assembly.model.config.vocab_size, batch_shards(assembly.mesh)
            chunk = chunk_length(rows // parts, length, vocab, shards)
            settings = {"microbatches": parts, "temperature": phase.temperature, "chunk": chunk}
            return make_train_step(assembly.model, tx, phase.objective, **settings)(state, batch)

        step.__name__ = f"train_{phase.name}"
        return jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))

    def place(self, phase: Phase, batch: Batch) -> Batch:
        """Packs this process's rows of an unpacked batch on the mesh, and puts them back on the mesh."""
        mesh = self.assembly.mesh
        local = local_rows(batch)
        groups = plan(local, phase.objective)
        processes = jax.process_count()
        rows = row_bucket(agree_max(len(groups)) * processes, batch_shards(mesh), self.assembly.microbatch_rows)
        return global_rows(mesh, pack(local, groups, rows // processes))

    def _dual(self, temperature: float) -> Callable[[Params, Rollouts], Metrics]:
        """Alignment of one objective's gradients in the two spaces, see `alignment_phases`."""
        config = self.assembly.config
        phases = alignment_phases(self.assembly)
        pre, post = (dataclasses.replace(phase, temperature=temperature) for phase in phases)
        rows = config.alignment_prompts * config.sampling.group_size
        length = config.data.max_prompt_tokens + config.sampling.max_new_tokens
        shards = batch_shards(self.assembly.mesh)
        dual = make_dual_gradients(
            self.assembly.model,
            pre,
            post,
            config.sampling.group_size,
            logprob_alignment=config.alignment_logprob,
            chunk=chunk_length(rows, length, self.assembly.model.config.vocab_size, shards),
        )
        return jax.jit(lambda params, rollouts: dual(params, rollouts)[2])


def row_bucket(needed: int, shards: int, microbatch_rows: int) -> int:
    """Rows of a packed batch: a bucket that divides over the shards, and, past one microbatch, into microbatches.

    What packs into fewer rows takes fewer microbatches of the same size.
    """
    if needed <= microbatch_rows:
        return min(bucket(needed, shards), microbatch_rows)
    return bucket(needed, microbatch_rows)


def alignment_phases(assembly: Assembly) -> tuple[Phase, Phase]:
    """(pre, post): the run's first objective in P(y|x), GRPO's if there is none, and the same moved to P(y).

    They differ in nothing but the space, so the cosine of their gradients measures the spaces, not the selections.
    """
    plain = [phase for phase in assembly.phases if not phase.terms]
    post = next((p for p in plain if isinstance(p.space, PostTrainSpace)), Phase("post", 1))
    pre = next((p.space for p in plain if isinstance(p.space, PreTrainSpace)), None)
    pre = pre or PreTrainSpace(prefix_id("auto", assembly.tokenizer))
    return dataclasses.replace(post, space=pre), post


def rollout_statistics(rollouts: Rollouts, truncated: Array, group_size: int) -> Metrics:
    """Means over the global batch of rewards and lengths; f32[] each. A response is right at reward 1."""
    right = (rollouts.rewards >= 1).reshape(-1, group_size)
    lengths = rollouts.response_mask.sum(axis=1)
    return {
        "train/reward": rollouts.rewards.mean(),
        "train/accuracy": right.mean(),
        "train/solved_groups": right.all(axis=1).mean(),
        "train/unsolved_groups": (~right.any(axis=1)).mean(),
        "train/length": lengths.mean(),
        "train/truncated": truncated.mean(),
        "train/sampler_logprob": rollouts.logprobs.sum() / jnp.maximum(lengths.sum(), 1),
    }
