"""Gradient alignment in a run: which groups it is measured on, with which two objectives, and the program."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import numpy as np

from prerl_jax.alignment.gradients import make_dual_gradients
from prerl_jax.alignment.measurements import BUFFERS, make_space_measurements
from prerl_jax.core.logprobs import chunk_length
from prerl_jax.core.phases import Phase
from prerl_jax.core.spaces import PostTrainSpace, PreTrainSpace
from prerl_jax.core.train_step import Metrics
from prerl_jax.core.types import Array, Params, Rollouts
from prerl_jax.core.xla_cpu import after
from prerl_jax.data.prefix import prefix_id
from prerl_jax.runtime.mesh import batch_shards, replicated
from prerl_jax.trainer.setup import Setup


def make_align(setup: Setup, temperature: float) -> Callable[[Params, Rollouts], Metrics]:
    """align(params, rollouts of a whole step on the mesh) -> the `alignment/` metrics; one compiled program.

    It measures the gradients of one objective in both spaces first, then the alignment token by token, on
    `alignment.prompts` groups of the step.
    """
    config, mesh = setup.config, setup.mesh
    pre, post = (dataclasses.replace(phase, temperature=temperature) for phase in alignment_phases(setup))
    parts, shards = setup.alignment_parts, batch_shards(mesh)
    rows = config.alignment.prompts * config.sampling.group_size // parts
    length = config.data.max_prompt_tokens + config.sampling.max_new_tokens
    model, vocab = setup.model, setup.model.config.vocab_size
    dual = make_dual_gradients(
        model,
        pre,
        post,
        config.sampling.group_size,
        logprob_alignment=config.alignment.mean_logprob,
        chunk=chunk_length(rows, length, vocab, shards),
        microbatches=parts,
    )
    # The token-wise measurements take smaller parts, so that they need no more memory than the gradients do.
    finer = max(n for n in (1, 2, 4) if rows % (n * shards) == 0)
    measure = make_space_measurements(
        model,
        pre.space,
        post.space,
        setup.stop_tokens,
        temperature=temperature,
        chunk=chunk_length(BUFFERS * rows // finer, config.sampling.max_new_tokens, vocab, shards),
        microbatches=parts * finer,
    )

    def align(params: Params, rollouts: Rollouts) -> Metrics:
        rollouts = measured_groups(rollouts, config.alignment.prompts, config.sampling.group_size, shards)
        metrics = dual(params, rollouts)[2]
        return metrics | after(metrics, measure, params, rollouts)

    return jax.jit(align, out_shardings=replicated(mesh))


def measured_groups(rollouts: Rollouts, groups: int, group_size: int, shards: int) -> Rollouts:
    """The rollouts of `groups` groups, evenly spread over the batch. Traceable. Every shard keeps its own rows.

    Args:
      rollouts: B rows, split over the mesh into `shards` parts of whole groups.
      groups: how many groups are taken, a multiple of `shards`.
      group_size: rows of a group.
      shards: the number of parts.
    """
    total = rollouts.response.shape[0] // group_size
    if groups == total:
        return rollouts
    chosen = np.arange(groups // shards) * (total // shards) // (groups // shards)

    def take(x: Array) -> Array:
        by_group = x.reshape(shards, total // shards, group_size, *x.shape[1:])
        return by_group[:, chosen].reshape(groups * group_size, *x.shape[1:])

    return jax.tree.map(take, rollouts)


def alignment_phases(setup: Setup) -> tuple[Phase, Phase]:
    """(pre, post): the run's first objective in P(y|x), or GRPO's if there is none, and the same objective in P(y).

    The two differ in the space alone. So the cosine of their gradients compares the spaces, not the selections. Phases
    that need a reference, the sampler's log-probabilities or a critic are skipped.
    """
    plain = [phase for phase in setup.phases if not phase.terms and not _needs_more(phase)]
    post = next((p for p in plain if isinstance(p.space, PostTrainSpace)), Phase("post", 1))
    pre = next((p.space for p in plain if isinstance(p.space, PreTrainSpace)), None)
    pre = pre or PreTrainSpace(prefix_id("auto", setup.tokenizer))
    return dataclasses.replace(post, space=pre), post


def _needs_more(phase: Phase) -> bool:
    """Whether the loss needs a reference, the sampler's log-probabilities or a critic."""
    objective, shaping = phase.objective.traits, phase.reward_shaping
    reference = objective.needs_reference or (shaping is not None and shaping.traits.needs_reference)
    return reference or objective.needs_sampler_logprobs or phase.advantage.traits.needs_values
