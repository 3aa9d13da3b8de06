"""The compiled programs of a run: sampling, preparing, stepping and aligning, each made once and reused.

A program is kept by what it computes, not by the phase it is for: phases with the same objective, learning rate and
temperature share the train step, whatever their space, credit and weighing, where their batches have the same fields.
What makes the batches is in `batching`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from prerl_jax.alignment.gradients import make_dual_gradients
from prerl_jax.alignment.measurements import BUFFERS, make_space_measurements
from prerl_jax.core.logprobs import chunk_length
from prerl_jax.core.phases import Phase, advance
from prerl_jax.core.spaces import PostTrainSpace, PreTrainSpace
from prerl_jax.core.train_step import Metrics, make_train_step
from prerl_jax.core.types import Array, Batch, Params, Rollouts, TrainState
from prerl_jax.core.xla_cpu import after
from prerl_jax.data.prefix import prefix_id
from prerl_jax.rollout.engine import Engine
from prerl_jax.rollout.sampler import SamplerConfig
from prerl_jax.runtime.mesh import batch_shards, replicated
from prerl_jax.trainer.batching import Batching, over_updates, rollout_statistics
from prerl_jax.trainer.critic import critic_step, values_program
from prerl_jax.trainer.setup import Setup, evaluation_shape

MakeEngine = Callable[[Any, SamplerConfig, int], Engine]
PREPARE = 0x70726570
"""Folded into a step's key, gives that of preparing: any number but those of prompts, which the sampler folds in."""


class Programs:
    """Makes each program at its first use.

    `make_engine` has the signature of `EngineSpec.make`; None is that of the config's engine.
    """

    def __init__(self, setup: Setup, make_engine: MakeEngine | None = None):
        make_engine = make_engine or setup.config.sampling.engine.make
        self.setup = setup
        self.batching = Batching(setup)
        self._engine = functools.cache(functools.partial(make_engine, setup.model))
        self.dual = functools.cache(self._dual)
        self._train = functools.cache(self._step)

    def step(self, phase: Phase) -> Callable[..., tuple[TrainState, Metrics]]:
        """(state, packed batch on the mesh) -> (the state, moved on to the next phase if it is time, metrics f32[]).

        The state is donated. Compiles once for batches of so many rows, whichever of them are used. Of several updates
        a step, only the one with `last=True` counts: the keyword is a bool, of all of them or of none.
        """
        rate = self.setup.config.optimizer.learning_rate if phase.learning_rate is None else phase.learning_rate
        what = {"objective": phase.objective, "learning_rate": rate, "temperature": phase.temperature}
        return self._train(Phase("train", 1, **what))

    @functools.cached_property
    def over_updates(self) -> Callable[[list[Metrics]], Metrics]:
        """The metrics of a step of those of its updates, see `batching.over_updates`."""
        return jax.jit(over_updates, out_shardings=replicated(self.setup.mesh))

    @functools.cached_property
    def step_keys(self) -> Callable[[Array, int], tuple[Array, Array]]:
        """(the run's key, steps done) -> the keys that the next step samples and prepares with; no host waits."""

        def step_keys(key: Array, done: Array) -> tuple[Array, Array]:
            key = jax.random.fold_in(key, done)
            return key, jax.random.fold_in(key, PREPARE)

        return jax.jit(step_keys, out_shardings=replicated(self.setup.mesh))

    def engine(self, phase: Phase | None) -> Engine:
        """The engine that samples for a phase, or, for None, for evaluation; shared where the settings are the same."""
        config = self.setup.config
        spec = config.evaluation if phase is None else config.sampling
        settings = SamplerConfig(
            max_new_tokens=config.sampling.max_new_tokens,
            temperature=config.evaluation.temperature if phase is None else phase.temperature,
            top_k=spec.top_k,
            top_p=spec.top_p,
            stop_tokens=self.setup.stop_tokens,
            cache_dtype=config.sampling.cache_dtype,
        )
        group_size = evaluation_shape(self.setup)[0] if phase is None else config.sampling.group_size
        return self._engine(settings, group_size)

    def values(self, phase: Phase, state: TrainState, rollouts: Rollouts) -> Array | None:
        """The critic's values f32[B, R] of rollouts on the mesh; something unread for a phase that reads none.

        None in a run without a critic.
        """
        if state.critic is None:
            return None
        return rollouts.logprobs if phase.value_advantage is None else self._values(state.critic.params, rollouts)

    @functools.cached_property
    def _values(self) -> Callable[[Params, Rollouts], Array]:
        return values_program(self.setup)

    @functools.cached_property
    def statistics(self) -> Callable[[Rollouts], Metrics]:
        """`rollout_statistics` of rollouts on the mesh that are not prepared as they are."""
        measure = functools.partial(rollout_statistics, group_size=self.setup.config.sampling.group_size)
        return jax.jit(measure, out_shardings=replicated(self.setup.mesh))

    def _step(self, phase: Phase) -> Callable[..., tuple[TrainState, Metrics]]:
        """The program of `step`, for a phase of which only what it depends on is said."""
        setup = self.setup
        tx = setup.optimizer(phase)
        shardings = jax.tree.map(lambda s: s.sharding, setup.abstract_state(phase))

        def step(state: TrainState, batch: Batch, last: Array | None = None) -> tuple[TrainState, Metrics]:
            rows, length = batch.weights.shape
            settings = {"microbatches": rows // setup.part_rows, "chunk": setup.chunk(length)}
            settings["temperature"] = phase.temperature
            settings["critic"] = critic_step(setup, batch)
            updated, metrics = make_train_step(setup.model, tx, phase.objective, **settings)(state, batch)
            if last is not None:
                counted = {n: jnp.where(last, getattr(updated, n), getattr(state, n)) for n in ("step", "phase_step")}
                updated = dataclasses.replace(updated, **counted)
            return advance(setup.phases, updated), metrics

        step.__name__ = "train"
        return jax.jit(step, donate_argnums=0, out_shardings=(shardings, replicated(setup.mesh)))

    def _dual(self, temperature: float) -> Callable[[Params, Rollouts], Metrics]:
        """How one objective's gradients align in the two spaces, see `alignment_phases`; then, token by token."""
        config = self.setup.config
        phases = alignment_phases(self.setup)
        pre, post = (dataclasses.replace(phase, temperature=temperature) for phase in phases)
        parts = self.setup.alignment_parts
        rows = config.alignment.prompts * config.sampling.group_size // parts
        length = config.data.max_prompt_tokens + config.sampling.max_new_tokens
        shards = batch_shards(self.setup.mesh)
        model, vocab = self.setup.model, self.setup.model.config.vocab_size
        dual = make_dual_gradients(
            model,
            pre,
            post,
            config.sampling.group_size,
            logprob_alignment=config.alignment.mean_logprob,
            chunk=chunk_length(rows, length, vocab, shards),
            microbatches=parts,
        )
        # In smaller parts, so that the program needs no more memory for them than it does for its gradients.
        finer = max(n for n in (1, 2, 4) if rows % (n * shards) == 0)
        measure = make_space_measurements(
            model,
            pre.space,
            post.space,
            self.setup.stop_tokens,
            temperature=temperature,
            chunk=chunk_length(BUFFERS * rows // finer, config.sampling.max_new_tokens, vocab, shards),
            microbatches=parts * finer,
        )

        def align(params: Params, rollouts: Rollouts) -> Metrics:
            metrics = dual(params, rollouts)[2]
            return metrics | after(metrics, measure, params, rollouts)

        return jax.jit(align, out_shardings=replicated(self.setup.mesh))


def alignment_phases(setup: Setup) -> tuple[Phase, Phase]:
    """(pre, post): the run's first objective in P(y|x), GRPO's if there is none, and the same moved to P(y).

    Objectives and credits that compare with a reference, the sampler or a critic are passed over.

    They differ in nothing but the space, so the cosine of their gradients measures the spaces, not the selections.
    """
    plain = [phase for phase in setup.phases if not phase.terms and not _needs_more(phase)]
    post = next((p for p in plain if isinstance(p.space, PostTrainSpace)), Phase("post", 1))
    pre = next((p.space for p in plain if isinstance(p.space, PreTrainSpace)), None)
    pre = pre or PreTrainSpace(prefix_id("auto", setup.tokenizer))
    return dataclasses.replace(post, space=pre), post


def _needs_more(phase: Phase) -> bool:
    """Whether its loss cannot be computed in both spaces from rollouts and the policy alone."""
    objective, shaping = phase.objective.traits, phase.reward_shaping
    compares = objective.needs_reference or (shaping is not None and shaping.traits.needs_reference)
    return compares or objective.needs_sampler_logprobs or phase.value_advantage is not None
