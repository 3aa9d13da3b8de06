"""From rollouts to the batches of a step's updates: prepared on the mesh, packed on the host.

Phases whose batches have the same fields and rows share one program, which takes the number of the phase as an input.
This keeps the number of programs that are compiled during a run small. All rows are as long as those of the longest
phase.

The host packs an unpacked batch: it drops rows without a trained token and puts the others into as few rows as it can,
at the beginning of a batch with a fixed number of rows. The train step skips empty microbatches. So one program serves
batches of any number of used rows.

The log-probabilities of the old and of the reference policy are computed on packed rows, too. If the advantages depend
on them, or if rows are trained on more than once, all rows are scored before the batches are prepared (`score`).
Otherwise only the rows of the packed batch are scored under the reference (`place`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prerl_jax.core.batches import make_layout, make_prepare, unknown_logprobs
from prerl_jax.core.grouping import over_known
from prerl_jax.core.objectives import Reinforce
from prerl_jax.core.packing import pack, plan_bins, unpack
from prerl_jax.core.phases import Phase
from prerl_jax.core.scoring import make_score_old_and_reference
from prerl_jax.core.train_step import Metrics, trained_tokens
from prerl_jax.core.types import Array, Batch, Params, Rollouts
from prerl_jax.runtime.mesh import batch_sharding, global_rows, local_rows, replicated
from prerl_jax.runtime.row_share import row_share
from prerl_jax.trainer.abstract import abstract_rollouts
from prerl_jax.trainer.critic import with_values
from prerl_jax.trainer.setup import Setup

SHUFFLE = 0x73687566
"""`fold_in(key for preparing, SHUFFLE)` shuffles groups into minibatches. No term folds in this number."""

PrepareInputs = dict[str, Any]
"""The keyword arguments of `prepare` (see `core.batches.make_prepare`), without `rows`."""


@dataclasses.dataclass(frozen=True)
class BatchKind:
    """The properties of a phase that decide the fields and shapes of its batches. Phases of one kind share a program.

    Attributes:
      minibatches: the number of minibatches of an epoch.
      several_updates: whether a step has more than one update.
      scored: which log-probabilities are scored before the batches are prepared.
    """

    minibatches: int
    several_updates: bool
    scored: tuple[str, ...]

    @classmethod
    def of(cls, phase: Phase) -> BatchKind:
        """The kind of a phase."""
        return cls(phase.minibatches, phase.updates > 1, phase.logprobs_needed_before_update)


class Batching:
    """Makes the batches of a run. Each program is made at its first use.

    `prepare_program(kind)` and `score_program(temperature)` are the jitted functions.

    Args:
      setup: the run's config, model and mesh.
    """

    def __init__(self, setup: Setup):
        self.setup = setup
        self.prepare_program = functools.cache(self._make_prepare)
        self.score_program = functools.cache(self._make_score)
        self._layout = functools.cache(self._make_layout)

    @functools.cached_property
    def shape(self) -> tuple[int, int]:
        """(rows, tokens of a row) of an unpacked batch: the largest of all phases."""
        rollouts, key = abstract_rollouts(self.setup), jax.random.PRNGKey(0)
        layouts = [functools.partial(make_layout(phase), key=key) for phase in self.setup.phases]
        shapes = [jax.eval_shape(layout, rollouts).weights.shape for layout in layouts]
        rows, lengths = zip(*shapes, strict=True)
        return max(rows), max(lengths)

    def score(
        self, phase: Phase, rollouts: Rollouts, key: Array, policy: Params, reference: Params | None
    ) -> tuple[PrepareInputs, np.ndarray]:
        """Computes the log-probabilities that the phase needs before its batches are prepared.

        Args:
          phase: the current phase.
          rollouts: all rollouts of the step, on the mesh.
          key: the step's key for preparing.
          policy: the parameters before the first update.
          reference: the parameters of the reference policy; None where the phase has none.

        Returns: (log-probabilities f32[rows, T] of the unpacked batch on the mesh, by field name; i64[n], the tokens of
          every sequence of this process that was scored, once for each policy).
        """
        if not phase.logprobs_needed_before_update:
            return {}, np.zeros(0, np.int64)
        local = local_rows(self._layout(phase)(rollouts, key))
        bins, valid = plan_bins(local, Reinforce(), self.shape[1]), local.sequences.segments > 0
        batch = global_rows(self.setup.mesh, self._packed(local, bins, self.shape))
        both: dict[str, Any] = {"old_logprobs": policy, "ref_logprobs": reference}
        policies = {name: both[name] for name in phase.logprobs_needed_before_update}
        found = self.score_program(phase.temperature)(batch, policies)
        parts = self.shape[0] // self.setup.part_rows
        unpacked = {n: unpack(values, bins, valid, microbatches=parts) for n, values in local_rows(found).items()}
        lengths = valid[valid.any(axis=1)].sum(axis=1)
        return global_rows(self.setup.mesh, unpacked), np.tile(lengths, len(unpacked))

    def prepare(
        self, phase: Phase, rollouts: Rollouts, inputs: PrepareInputs, update: int = 0
    ) -> tuple[Batch, Metrics]:
        """(the unpacked batch of one update, statistics), on the mesh.

        Args:
          phase: the current phase.
          rollouts: all rollouts of the step, verified, on the mesh.
          inputs: `key`, the step's key for preparing; `phase_step` i32[], the steps done in the phase; `values`
            f32[B, R], or None in a run without a critic; and the log-probabilities from `score`.
          update: the number of the update within the step.
        """
        number = np.int32(self.setup.phases.index(phase))
        return self.prepare_program(BatchKind.of(phase))(rollouts, number, inputs, np.int32(update))

    def pack(self, phase: Phase, batch: Batch) -> Batch:
        """Packs this process's rows of an unpacked batch; used rows come first, the number of rows stays. Numpy.

        The critic's rows are packed as well; in a phase that does not read its values they are left out.
        """
        local, rows = local_rows(batch), len(batch.weights)
        packed = self._packed(local, plan_bins(local, phase.objective, self.shape[1]), (rows, self.shape[1]))
        if phase.value_advantage is None or batch.critic is None:
            return packed
        rows, length = batch.critic.weights.shape
        critic = self._packed(local.critic, plan_bins(local.critic, None, length), (rows, length))
        return dataclasses.replace(packed, critic=critic)

    def place(self, phase: Phase, packed: Batch, reference: Params | None) -> Batch:
        """Puts this process's packed rows onto the mesh, with the reference's log-probabilities if it has any.

        They are scored here unless the batch has them already.
        """
        mesh, critic = self.setup.mesh, packed.critic
        batch = global_rows(mesh, dataclasses.replace(packed, critic=None))
        if critic is not None:  # it has one row per rollout, the policy has one per rollout and term
            batch = dataclasses.replace(batch, critic=global_rows(mesh, critic))
        if reference is None or batch.ref_logprobs is not None:
            return batch
        return dataclasses.replace(batch, **self.score_program(phase.temperature)(batch, {"ref_logprobs": reference}))

    def _packed(self, local: Any, bins: list[list[int]], shape: tuple[int, int]) -> Any:
        rows, length = shape
        mine = rows // row_share(self.setup.mesh).count
        return pack(local, bins, mine, length, microbatches=rows // self.setup.part_rows)

    def _make_prepare(self, kind: BatchKind) -> Callable[..., tuple[Batch, Metrics]]:
        """(rollouts, number of the phase, inputs, number of the update) -> (unpacked batch, statistics)."""
        sampling, mesh, phases = self.setup.config.sampling, self.setup.mesh, self.setup.phases
        alike = [phase for phase in phases if BatchKind.of(phase) == kind]
        branches = [functools.partial(self._batch, phase) for phase in alike]
        branch_of_phase = np.asarray([alike.index(phase) if phase in alike else 0 for phase in phases], np.int32)

        def prepare(rollouts: Rollouts, number: Array, inputs: PrepareInputs, update: Array) -> tuple[Batch, Metrics]:
            rows = None
            if kind.minibatches > 1:
                key = jax.random.fold_in(inputs["key"], SHUFFLE)
                rows = minibatch(key, update, kind.minibatches, sampling.prompts_per_step, sampling.group_size)
            branch = jnp.asarray(branch_of_phase)[number]
            batch, statistics = jax.lax.switch(branch, branches, rollouts, inputs, rows)
            return batch, statistics | rollout_statistics(rollouts, sampling.group_size)

        return jax.jit(prepare, out_shardings=(batch_sharding(mesh), replicated(mesh)))

    def _batch(
        self, phase: Phase, rollouts: Rollouts, inputs: PrepareInputs, rows: Array | None
    ) -> tuple[Batch, Metrics]:
        """The batch of one phase, filled up to the size of the largest phase."""
        group_size = self.setup.config.sampling.group_size
        prepare = make_prepare(phase, group_size)
        terms, of_critic = len(phase.all_terms), (rollouts, inputs["values"])
        batch, value_metrics = with_values(prepare(rollouts, **inputs), *of_critic)
        no_advantage = zero_advantage_groups(batch.advantages, terms, group_size)
        if rows is not None:  # the statistics are over all rollouts, the batch is one minibatch
            of_critic = jax.tree.map(lambda x: x[rows], of_critic)
            batch, _ = with_values(prepare(rollouts, **inputs, rows=rows), *of_critic)
        critic, batch = batch.critic, dataclasses.replace(batch, critic=None)
        if batch.sampler_logprobs is None:  # phases of one run share programs, and so the fields of their batches
            batch = dataclasses.replace(batch, sampler_logprobs=unknown_logprobs(batch))
        trained = trained_tokens(batch, phase.objective).any(axis=1)
        statistics = value_metrics | {
            "train/zero_advantage_groups": no_advantage,
            "train/kept_fraction": (batch.weights != 0).any(axis=1).reshape(terms, -1).any(axis=0).mean(),
            "train/trained_fraction": trained.reshape(terms, -1).any(axis=0).mean(),
        }
        return dataclasses.replace(_filled(batch, self.shape, phase.minibatches), critic=critic), statistics

    def _make_layout(self, phase: Phase) -> Callable[[Rollouts, Array], Batch]:
        def lay_out(rollouts: Rollouts, key: Array) -> Batch:
            return _filled(make_layout(phase)(rollouts, key=key), self.shape, 1)

        return jax.jit(lay_out, out_shardings=batch_sharding(self.setup.mesh))

    def _make_score(self, temperature: float) -> Callable[[Batch, dict[str, Params]], dict[str, Array]]:
        """(packed batch on the mesh, parameters by field name) -> log-probabilities f32[rows, T] by field name."""
        setup = self.setup

        def score(batch: Batch, policies: dict[str, Params]) -> dict[str, Array]:
            rows, length = batch.weights.shape
            how = {"microbatches": rows // setup.part_rows, "chunk": setup.chunk(length)}
            fill = make_score_old_and_reference(setup.model, temperature, **how)
            found = fill(batch, old=policies.get("old_logprobs"), reference=policies.get("ref_logprobs"))
            return {name: getattr(found, name) for name in policies}

        return jax.jit(score, out_shardings=batch_sharding(setup.mesh))


def minibatch(key: Array, update: Array, minibatches: int, prompts: int, group_size: int) -> Array:
    """i32[N], the rows of one minibatch: whole groups, in an order that is drawn anew for every epoch.

    Args:
      key: the step's key for the order of groups.
      update: i32[], the number of the update within the step.
      minibatches: the number of minibatches of an epoch; it must divide `prompts`.
      prompts: groups of the global batch.
      group_size: rollouts of a group, side by side.
    """
    epoch, part = update // minibatches, update % minibatches
    order = jax.random.permutation(jax.random.fold_in(key, epoch), prompts).reshape(minibatches, -1)
    return (order[part][:, None] * group_size + jnp.arange(group_size)).ravel()


def rollout_statistics(rollouts: Rollouts, group_size: int) -> Metrics:
    """Statistics of the global batch, f32[] each.

    Rewards and accuracy are means over the responses with a known verdict, NaN if there is none. A group is solved if
    all its known responses are right, unsolved if all are wrong, and neither if none is known.
    """
    known, right = rollouts.known_mask, rollouts.right_mask
    by_group = (known.reshape(-1, group_size), right.reshape(-1, group_size))
    any_known, any_right, any_wrong = (x.any(axis=1) for x in (by_group[0], by_group[1], by_group[0] & ~by_group[1]))
    lengths = rollouts.response_mask.sum(axis=1)
    return {
        "train/reward": over_known(lambda where: rollouts.rewards.mean(where=where), known),
        "train/accuracy": over_known(lambda where: right.mean(where=where), known),
        "train/unknown": (~known).mean(),
        "train/solved_groups": (any_known & ~any_wrong).mean(),
        "train/unsolved_groups": (any_known & ~any_right).mean(),
        "train/length": lengths.mean(),
        "train/truncated": jnp.asarray(rollouts.truncated).mean(),
        "train/sampler_logprob": rollouts.logprobs.sum() / jnp.maximum(lengths.sum(), 1),
    }


def zero_advantage_groups(advantages: Array, terms: int, group_size: int) -> Array:
    """f32[], the share of groups in which every advantage of f32[terms * B, T] is 0."""
    some = (advantages != 0).any(axis=1).reshape(terms, -1, group_size).any(axis=(0, 2))
    return (~some).mean()


def _filled(batch: Batch, shape: tuple[int, int], minibatches: int) -> Batch:
    """Pads the batch to the largest minibatch of all phases, by the rows and tokens in `shape`."""
    whole = shape[0] // minibatches, shape[1]
    return jax.tree.map(lambda x: jnp.pad(x, [(0, a - b) for a, b in zip(whole, x.shape, strict=True)]), batch)
