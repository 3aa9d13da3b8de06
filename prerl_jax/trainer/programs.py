"""The compiled programs of a run: sampling, preparing, stepping and aligning, each made once and reused.

A program is kept by what it computes, not by the phase it is for: phases with the same objective, learning rate and
temperature share the train step, whatever their space, credit and weighing. So that they can, their batches have the
same fields, and rows as long as those of the longest phase.

Between preparing and stepping the batch passes through the host, where it is packed: rows without a trained token are
left out, and what remains is laid into the first parts of a batch of a fixed number of rows. The step does not compute
the parts that stay empty, so one program serves steps of few rows and of many.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prerl_jax.core.batches import make_prepare
from prerl_jax.core.dual import make_dual_gradients
from prerl_jax.core.logprobs import chunk_length
from prerl_jax.core.packing import pack, plan
from prerl_jax.core.phases import Phase, advance
from prerl_jax.core.spaces import PostTrainSpace, PreTrainSpace
from prerl_jax.core.train_step import make_train_step, trained_tokens
from prerl_jax.core.types import Array, Batch, Objective, Params, Rollouts, TrainState
from prerl_jax.data.prefix import prefix_id
from prerl_jax.rollout.engine import Engine
from prerl_jax.rollout.pool import make_pool
from prerl_jax.rollout.sampler import SamplerConfig
from prerl_jax.runtime.mesh import batch_sharding, batch_shards, local_rows, replicated
from prerl_jax.trainer.assembly import Assembly, evaluation_shape
from prerl_jax.trainer.critic import critic_step, values_program, with_values

MakeEngine = Callable[[Any, SamplerConfig, int], Engine]
Metrics = dict[str, Array]
Branch = Callable[[Rollouts, Array, Array], tuple[Batch, Metrics]]
"""(rollouts, key, phase_step) -> (unpacked batch, statistics)."""
PREPARE = 0x70726570
"""Folded into a step's key, gives that of preparing: any number but those of prompts, which the sampler folds in."""


class Programs:
    """Makes each program at its first use.

    `make_engine` has the signature of `make_sampler`; None makes pools of as many slots as the config says.
    """

    def __init__(self, assembly: Assembly, make_engine: MakeEngine | None = None):
        make_engine = make_engine or functools.partial(make_pool, slots=assembly.config.sampling.slots)
        self.assembly = assembly
        self._engine = functools.cache(functools.partial(make_engine, assembly.model))
        self.dual = functools.cache(self._dual)
        self._train = functools.cache(self._step)

    def step(self, phase: Phase) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
        """(state, packed batch on the mesh) -> (the state, moved on to the next phase if it is time, metrics f32[]).

        The state is donated. Compiles once, whatever the phase's rows.
        """
        rate = self.assembly.config.optimizer.learning_rate if phase.learning_rate is None else phase.learning_rate
        what = {"objective": phase.objective, "learning_rate": rate, "temperature": phase.temperature}
        return self._train(Phase("train", 1, **what))

    @functools.cached_property
    def step_keys(self) -> Callable[[Array, int], tuple[Array, Array]]:
        """(the run's key, steps done) -> the keys that the next step samples and prepares with; no host waits."""

        def step_keys(key: Array, done: Array) -> tuple[Array, Array]:
            key = jax.random.fold_in(key, done)
            return key, jax.random.fold_in(key, PREPARE)

        return jax.jit(step_keys, out_shardings=replicated(self.assembly.mesh))

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

    def values(self, phase: Phase, state: TrainState, rollouts: Rollouts) -> Array | None:
        """The critic's values f32[B, R] of rollouts on the mesh; something unread for a phase that reads none.

        None in a run without a critic.
        """
        if state.critic is None:
            return None
        return rollouts.logprobs if phase.valued is None else self._values(state.critic.params, rollouts)

    @functools.cached_property
    def _values(self) -> Callable[[Params, Rollouts], Array]:
        return values_program(self.assembly)

    def prepare(
        self, phase: Phase, rollouts: Rollouts, key: Array, phase_step: Array, values: Array | None = None
    ) -> tuple[Batch, Metrics]:
        """(unpacked batch, statistics of the rollouts), all on the mesh, of rollouts on it, verified and complete.

        `key` is the step's, of preparing; `phase_step` i32[] counts the steps done in the phase; `values` are those of
        `self.values`.
        """
        return self._prepare(rollouts, np.int32(self.assembly.phases.index(phase)), key, phase_step, values)

    @functools.cached_property
    def _branches(self) -> list[Branch]:
        """What each phase makes of rollouts, before it is made equal in shape."""
        return [self._branch(phase) for phase in self.assembly.phases]

    def _branch(self, phase: Phase) -> Branch:
        make = make_prepare(self.assembly.model, phase, self.assembly.config.sampling.group_size)
        terms = len(phase.parts)

        def branch(rollouts: Rollouts, key: Array, phase_step: Array, values: Array | None) -> tuple[Batch, Metrics]:
            batch = make({}, rollouts, key=key, phase_step=phase_step, values=values)
            batch, of_values = with_values(batch, rollouts, values)
            if batch.sampler_logprobs is None:
                batch = dataclasses.replace(batch, sampler_logprobs=jnp.zeros_like(batch.weights))
            trained = trained_tokens(batch, phase.objective).any(axis=1)
            return batch, of_values | {
                "train/kept": (batch.weights != 0).any(axis=1).reshape(terms, -1).any(axis=0).mean(),
                "train/computed": trained.reshape(terms, -1).any(axis=0).mean(),
            }

        return branch

    @functools.cached_property
    def batch_shape(self) -> tuple[int, int]:
        """(rows, tokens of a row) of an unpacked batch: as many and as long as those of any phase."""
        rollouts = self._abstract_rollouts()
        values = None if self.assembly.critic is None else rollouts.logprobs
        given = rollouts, jax.random.PRNGKey(0), np.int32(0), values
        shapes = [jax.eval_shape(branch, *given)[0].weights.shape for branch in self._branches]
        return tuple(map(max, zip(*shapes, strict=True)))

    @functools.cached_property
    def _prepare(self) -> Callable[..., tuple[Batch, Metrics]]:
        """One program for all phases, told by their number, so that none is compiled in the middle of a run."""
        group_size, mesh, shape = self.assembly.config.sampling.group_size, self.assembly.mesh, self.batch_shape

        def fill(x: Array) -> Array:
            return jnp.pad(x, [(0, whole - part) for whole, part in zip(shape, x.shape, strict=True)])

        def equal(branch: Branch) -> Branch:
            def padded(*given: Any) -> tuple[Batch, Metrics]:
                batch, statistics = branch(*given)
                critic, batch = batch.critic, dataclasses.replace(batch, critic=None)
                return dataclasses.replace(jax.tree.map(fill, batch), critic=critic), statistics

            return padded

        def prepare(rollouts: Rollouts, phase: Array, *more: Any) -> tuple[Batch, Metrics]:
            branches = [equal(branch) for branch in self._branches]
            batch, statistics = jax.lax.switch(phase, branches, rollouts, *more)
            return batch, statistics | rollout_statistics(rollouts, group_size)

        return jax.jit(prepare, out_shardings=(batch_sharding(mesh), replicated(mesh)))

    def _abstract_rollouts(self) -> Rollouts:
        config = self.assembly.config
        rows = config.sampling.prompts * config.sampling.group_size

        def tokens(width: int, dtype: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((rows, width), dtype)

        prompt, response = config.data.max_prompt_tokens, config.sampling.max_new_tokens
        return Rollouts(
            prompt=tokens(prompt, jnp.int32),
            prompt_mask=tokens(prompt, bool),
            response=tokens(response, jnp.int32),
            response_mask=tokens(response, bool),
            rewards=jax.ShapeDtypeStruct((rows,), jnp.float32),
            logprobs=tokens(response, jnp.float32),
            truncated=jax.ShapeDtypeStruct((rows,), bool),
        )

    def _step(self, phase: Phase) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
        """The program of `step`, for a phase of which only what it depends on is said."""
        assembly = self.assembly
        tx = assembly.optimizer(phase)
        shardings = jax.tree.map(lambda s: s.sharding, assembly.abstract_state(phase))

        def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
            rows, length = batch.weights.shape
            vocab, shards = assembly.model.config.vocab_size, batch_shards(assembly.mesh)
            chunk = chunk_length(assembly.part_rows, length, vocab, shards)
            parts = rows // assembly.part_rows
            settings = {"microbatches": parts, "temperature": phase.temperature, "chunk": chunk}
            settings["critic"] = critic_step(assembly, batch)
            state, metrics = make_train_step(assembly.model, tx, phase.objective, **settings)(state, batch)
            return advance(assembly.phases, state), metrics

        step.__name__ = "train"
        return jax.jit(step, donate_argnums=0, out_shardings=(shardings, replicated(assembly.mesh)))

    def pack(self, phase: Phase, batch: Batch) -> Batch:
        """This process's rows of an unpacked batch on the mesh, packed into as many, used ones first; numpy.

        Those of the critic as well; without them, where the phase has no use for a critic.
        """
        local = local_rows(batch)
        packed = self._pack(local, phase.objective, self.batch_shape)
        if phase.valued is None:
            return packed
        return dataclasses.replace(packed, critic=self._pack(local.critic, None, batch.critic.weights.shape))

    def _pack(self, local: Any, objective: Objective | None, shape: tuple[int, int]) -> Any:
        rows, length = shape
        groups, parts = plan(local, objective, length), rows // self.assembly.part_rows
        return pack(local, groups, rows // jax.process_count(), length, microbatches=parts)

    def _dual(self, temperature: float) -> Callable[[Params, Rollouts], Metrics]:
        """Alignment of one objective's gradients in the two spaces, see `alignment_phases`."""
        config = self.assembly.config
        phases = alignment_phases(self.assembly)
        pre, post = (dataclasses.replace(phase, temperature=temperature) for phase in phases)
        parts = self.assembly.alignment_parts
        rows = config.alignment_prompts * config.sampling.group_size // parts
        length = config.data.max_prompt_tokens + config.sampling.max_new_tokens
        shards = batch_shards(self.assembly.mesh)
        dual = make_dual_gradients(
            self.assembly.model,
            pre,
            post,
            config.sampling.group_size,
            logprob_alignment=config.alignment_logprob,
            chunk=chunk_length(rows, length, self.assembly.model.config.vocab_size, shards),
            microbatches=parts,
        )

        def align(params: Params, rollouts: Rollouts) -> Metrics:
            return dual(params, rollouts)[2]

        return jax.jit(align, out_shardings=replicated(self.assembly.mesh))


def alignment_phases(assembly: Assembly) -> tuple[Phase, Phase]:
    """(pre, post): the run's first objective in P(y|x), GRPO's if there is none, and the same moved to P(y).

    Objectives and credits that compare with a reference, the sampler or a critic are passed over.

    They differ in nothing but the space, so the cosine of their gradients measures the spaces, not the selections.
    """
    plain = [phase for phase in assembly.phases if not phase.terms and not _needs_more(phase)]
    post = next((p for p in plain if isinstance(p.space, PostTrainSpace)), Phase("post", 1))
    pre = next((p.space for p in plain if isinstance(p.space, PreTrainSpace)), None)
    pre = pre or PreTrainSpace(prefix_id("auto", assembly.tokenizer))
    return dataclasses.replace(post, space=pre), post


def _needs_more(phase: Phase) -> bool:
    """Whether its loss cannot be computed in both spaces from rollouts and the policy alone."""
    parts = (phase.objective, phase.shape, phase.credit)
    return any(getattr(p, f"needs_{what}", False) for p in parts for what in ("reference", "sampler", "values"))


def rollout_statistics(rollouts: Rollouts, group_size: int) -> Metrics:
    """Means over the global batch of rewards and lengths; f32[] each. A response is right at reward 1."""
    right = (rollouts.rewards >= 1).reshape(-1, group_size)
    lengths = rollouts.response_mask.sum(axis=1)
    return {
        "train/reward": rollouts.rewards.mean(),
        "train/accuracy": right.mean(),
        "train/solved_groups": right.all(axis=1).mean(),
        "train/unsolved_groups": (~right.any(axis=1)).mean(),
        "train/length": lengths.mean(),
        "train/truncated": rollouts.truncated.mean(),
        "train/sampler_logprob": rollouts.logprobs.sum() / jnp.maximum(lengths.sum(), 1),
    }
