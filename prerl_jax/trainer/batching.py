"""From rollouts to the batches of a step's updates: prepared on the mesh, packed on the host.

Phases with the same fields and rows in a batch share a program that is told the phase by its number, so that few are
compiled in the middle of a run; their rows are as long as those of the longest phase. An unpacked batch passes through
the host, where it is packed: rows without a trained token are left out, and what remains is laid into the first parts
of a batch of a fixed number of rows. The train step does not compute the parts that stay empty, so one program serves
steps of few rows and of many.

What is held against the policy before its updates, or against a reference, is scored on packed rows too. Where credit
depends on it, or rows are trained on more than once, all rows are scored first and laid back (`score`); otherwise only
those that are left of the batch, by the reference (`anchored`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prerl_jax.core.batches import make_layout, make_prepare
from prerl_jax.core.objectives import Reinforce
from prerl_jax.core.packing import pack, plan, unpack
from prerl_jax.core.phases import Phase
from prerl_jax.core.scoring import make_score_old_and_reference
from prerl_jax.core.train_step import Metrics, trained_tokens
from prerl_jax.core.types import Array, Batch, Params, Rollouts, ValueBatch
from prerl_jax.runtime.mesh import batch_sharding, global_rows, local_rows, replicated
from prerl_jax.trainer.critic import with_values
from prerl_jax.trainer.setup import Setup

SHUFFLE = 0x73687566
"""Folded into a step's key of preparing, gives that of the order of groups: a number that no term has."""

COUNTS = frozenset({"train/tokens", "train/skipped", "train/critic_skipped"})
OF_UPDATES = frozenset(
    f"train/{name}" for what in ("", "critic_") for name in (f"{what}grad_norm", f"{what}update_norm")
) | {"train/loss", "train/kept_fraction", "train/trained_fraction", "train/value_loss", "train/value_clip_fraction"}

Given = dict[str, Any]
"""What `make_prepare`'s function takes by keyword, all but rows."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """What the fields and the rows of a phase's batches depend on."""

    minibatches: int
    several_updates: bool
    scored: tuple[str, ...]

    @classmethod
    def of(cls, phase: Phase) -> Kind:
        return cls(phase.minibatches, phase.updates > 1, phase.logprobs_needed_before_update)


class Batching:
    """Makes each program at its first use."""

    def __init__(self, setup: Setup):
        self.setup = setup
        self._prepare = functools.cache(self._program)
        self._lay_out = functools.cache(self._layout)
        self._scores = functools.cache(self._anchor)

    @functools.cached_property
    def shape(self) -> tuple[int, int]:
        """(rows, tokens of a row) of an unpacked batch: as many and as long as those of any phase."""
        rollouts, key = _abstract_rollouts(self.setup), jax.random.PRNGKey(0)
        layouts = [functools.partial(make_layout(phase), key=key) for phase in self.setup.phases]
        shapes = [jax.eval_shape(layout, rollouts).weights.shape for layout in layouts]
        return tuple(map(max, zip(*shapes, strict=True)))

    def prepare(self, phase: Phase, rollouts: Rollouts, given: Given, update: int = 0) -> tuple[Batch, Metrics]:
        """(the unpacked batch of one of the step's updates, statistics), all on the mesh, of rollouts on it.

        Args:
          phase: one of the run's.
          rollouts: of the global batch, verified and complete.
          given: `key`, the step's of preparing; `phase_step` i32[], the steps done in the phase; `values` f32[B, R], or
            None in a run without a critic; and what `score` has returned.
          update: its number within the step.
        """
        number = np.int32(self.setup.phases.index(phase))
        return self._prepare(Kind.of(phase))(rollouts, number, given, np.int32(update))

    def score(
        self, phase: Phase, rollouts: Rollouts, key: Array, policy: Params, reference: Params | None
    ) -> tuple[Given, np.ndarray]:
        """(the log-probabilities of all rows that preparing asks for, the tokens of what was scored for them).

        The first are f32[rows, T], of the unpacked batch on the mesh; the second i64[n], of this process's sequences,
        each as often as it was scored.
        """
        if not phase.logprobs_needed_before_update:
            return {}, np.zeros(0, np.int64)
        local = local_rows(self._lay_out(phase)(rollouts, key))
        groups, valid = plan(local, Reinforce(), self.shape[1]), local.sequences.segments > 0
        batch = global_rows(self.setup.mesh, self._packed(local, groups, self.shape))
        named = {"old_logprobs": policy, "ref_logprobs": reference}
        found = self._scores(phase.temperature)(
            batch, {name: named[name] for name in phase.logprobs_needed_before_update}
        )
        parts = self.shape[0] // self.setup.part_rows
        back = {n: unpack(values, groups, valid, microbatches=parts) for n, values in local_rows(found).items()}
        return global_rows(self.setup.mesh, back), np.tile(valid[valid.any(axis=1)].sum(axis=1), len(back))

    def pack(self, phase: Phase, batch: Batch) -> Batch:
        """This process's rows of an unpacked batch on the mesh, packed into as many, used ones first; numpy.

        Those of the critic as well; without them, where the phase has no use for a critic.
        """
        local, rows = local_rows(batch), len(batch.weights)
        packed = self._packed(local, plan(local, phase.objective, self.shape[1]), (rows, self.shape[1]))
        if phase.value_advantage is None:
            return packed
        shape = batch.critic.weights.shape
        return dataclasses.replace(packed, critic=self._packed(local.critic, plan(local.critic, None, shape[1]), shape))

    def anchored(self, phase: Phase, packed: Batch, reference: Params | None) -> Batch:
        """This process's packed rows -> the batch on the mesh to train on, held against the reference if there is one.

        What preparing has held against it already stays as it is.
        """
        mesh, critic = self.setup.mesh, packed.critic
        batch = global_rows(mesh, dataclasses.replace(packed, critic=None))
        if critic is not None:  # one row a rollout at most, where the policy has one for each of several terms
            batch = dataclasses.replace(batch, critic=global_rows(mesh, critic))
        if reference is None or batch.ref_logprobs is not None:
            return batch
        return dataclasses.replace(batch, **self._scores(phase.temperature)(batch, {"ref_logprobs": reference}))

    def _packed(self, local: Batch | ValueBatch, groups: list[list[int]], shape: tuple[int, int]) -> Any:
        rows, length = shape
        return pack(local, groups, rows // jax.process_count(), length, microbatches=rows // self.setup.part_rows)

    def _program(self, kind: Kind) -> Callable[..., tuple[Batch, Metrics]]:
        """(rollouts, number of the phase, given, number of the update) -> (unpacked batch, statistics)."""
        sampling, mesh, phases = self.setup.config.sampling, self.setup.mesh, self.setup.phases
        alike = [phase for phase in phases if Kind.of(phase) == kind]
        branches = [functools.partial(self._batch, phase) for phase in alike]
        places = np.asarray([alike.index(phase) if phase in alike else 0 for phase in phases], np.int32)

        def prepare(rollouts: Rollouts, number: Array, given: Given, update: Array) -> tuple[Batch, Metrics]:
            rows = None
            if kind.minibatches > 1:
                order = jax.random.fold_in(given["key"], SHUFFLE)
                rows = minibatch(order, update, kind.minibatches, sampling.prompts_per_step, sampling.group_size)
            batch, statistics = jax.lax.switch(jnp.asarray(places)[number], branches, rollouts, given, rows)
            return batch, statistics | rollout_statistics(rollouts, sampling.group_size)

        return jax.jit(prepare, out_shardings=(batch_sharding(mesh), replicated(mesh)))

    def _batch(self, phase: Phase, rollouts: Rollouts, given: Given, rows: Array | None) -> tuple[Batch, Metrics]:
        """What a phase makes of rollouts, as long as the batches of all."""
        make = make_prepare(phase, self.setup.config.sampling.group_size)
        terms, mine = len(phase.all_terms), (rollouts, given["values"])
        batch, of_values = with_values(make(rollouts, **given), *mine)
        if rows is not None:  # the values were those of all; the batch is a part
            batch, _ = with_values(make(rollouts, **given, rows=rows), *jax.tree.map(lambda x: x[rows], mine))
        critic, batch = batch.critic, dataclasses.replace(batch, critic=None)
        if batch.sampler_logprobs is None:
            batch = dataclasses.replace(batch, sampler_logprobs=jnp.full_like(batch.weights, jnp.nan))
        trained = trained_tokens(batch, phase.objective).any(axis=1)
        statistics = of_values | {
            "train/kept_fraction": (batch.weights != 0).any(axis=1).reshape(terms, -1).any(axis=0).mean(),
            "train/trained_fraction": trained.reshape(terms, -1).any(axis=0).mean(),
        }
        return dataclasses.replace(_filled(batch, self.shape, phase.minibatches), critic=critic), statistics

    def _layout(self, phase: Phase) -> Callable[[Rollouts, Array], Batch]:
        def lay_out(rollouts: Rollouts, key: Array) -> Batch:
            return _filled(make_layout(phase)(rollouts, key=key), self.shape, 1)

        return jax.jit(lay_out, out_shardings=batch_sharding(self.setup.mesh))

    def _anchor(self, temperature: float) -> Callable[[Batch, dict[str, Params]], dict[str, Array]]:
        """(packed batch on the mesh, name of a field -> parameters) -> name -> f32[rows, T]."""
        setup = self.setup

        def anchor(batch: Batch, given: dict[str, Params]) -> dict[str, Array]:
            rows, length = batch.weights.shape
            how = {"microbatches": rows // setup.part_rows, "chunk": setup.chunk(length)}
            fill = make_score_old_and_reference(setup.model, temperature, **how)
            found = fill(batch, old=given.get("old_logprobs"), reference=given.get("ref_logprobs"))
            return {name: getattr(found, name) for name in given}

        return jax.jit(anchor, out_shardings=batch_sharding(setup.mesh))


def minibatch(key: Array, update: Array, minibatches: int, prompts: int, group_size: int) -> Array:
    """i32[N], the rollouts of one of an epoch's minibatches: whole groups, in an order that is drawn for every epoch.

    Args:
      key: the step's.
      update: i32[], its number within the step.
      minibatches: of an epoch; must divide the prompts.
      prompts: groups of the global batch.
      group_size: rollouts of one, side by side.
    """
    epoch, part = update // minibatches, update % minibatches
    order = jax.random.permutation(jax.random.fold_in(key, epoch), prompts).reshape(minibatches, -1)
    return (order[part][:, None] * group_size + jnp.arange(group_size)).ravel()


def over_updates(found: list[Metrics]) -> Metrics:
    """The metrics of a step with several updates: of tokens their mean over all that were trained on, sums of counts.

    What is measured of an update as a whole, a loss or a norm, is the mean over updates. Traceable.
    """
    stacked = {name: jnp.stack([metrics[name] for metrics in found]) for name in found[0]}
    tokens = stacked["train/tokens"]

    def joined(name: str, values: Array) -> Array:
        if name in COUNTS:
            return values.sum()
        share = jnp.full(len(found), 1 / len(found)) if name in OF_UPDATES else tokens / jnp.maximum(tokens.sum(), 1.0)
        return values[0] + jnp.sum(share * (values - values[0]))  # what is the same in all of them stays as it is

    return {name: joined(name, values) for name, values in stacked.items()}


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


def _filled(batch: Batch, shape: tuple[int, int], minibatches: int) -> Batch:
    """The batch with rows and tokens of padding, as many and as long as the part of `shape` that a minibatch is."""
    whole = shape[0] // minibatches, shape[1]
    return jax.tree.map(lambda x: jnp.pad(x, [(0, a - b) for a, b in zip(whole, x.shape, strict=True)]), batch)


def _abstract_rollouts(setup: Setup) -> Rollouts:
    config = setup.config
    rows = config.sampling.prompts_per_step * config.sampling.group_size

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
