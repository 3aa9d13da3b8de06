"""The arrays that flow between the rooms, and the protocols of what is passed in.

B is the number of sequences, P the prompt length, R the response length, T the number of tokens in a row,
D the model's width, V the vocabulary size. Index t of every [B, T] array describes token t: `mask[b, t]` says whether
token t is trained on, `logprobs[b, t]` is the log-probability of token t given the tokens before it in its segment.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax

Array = jax.Array
Params = dict[str, Any]
"""A plain nested dict of trainable float arrays; a tied embedding is one leaf. Layers are stacked under "layers"."""


def _pytree(cls):
    return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True)(cls))


@_pytree
class Prompts:
    """Prompts to sample from."""

    prompt: Array
    """i32[B, P], left-padded."""
    prompt_mask: Array
    """bool[B, P], True on real tokens."""
    ids: Array | None = None
    """i32[B], the identity that a prompt's randomness is drawn from; its row number by default."""
    first_sample: Array | None = None
    """i32[B], the number of a prompt's first sample, 0 by default: several calls can share a prompt's samples."""


@_pytree
class Rollouts:
    """Sampled responses and their rewards. Groups are contiguous blocks of `group_size` rows with the same prompt."""

    prompt: Array
    """i32[B, P], left-padded."""
    prompt_mask: Array
    """bool[B, P], True on real tokens."""
    response: Array
    """i32[B, R], right-padded, the stop token included where one was sampled."""
    response_mask: Array
    """bool[B, R], True on sampled tokens, the stop token included."""
    rewards: Array
    """f32[B]; zero until verified."""
    logprobs: Array
    """f32[B, R], the sampler's log-probabilities at its temperature, without truncation; 0 at padding."""
    truncated: Array | None = None
    """bool[B], True where a response reached the length limit without a stop token; None where nobody looked."""


@_pytree
class Sequences:
    """Token rows: one sequence a row, or several, packed, told apart by their segment ids."""

    tokens: Array
    """i32[B, T]."""
    positions: Array
    """i32[B, T], from 0 in every segment."""
    segments: Array
    """i32[B, T], 1, 2, ... within a row; 0 is padding. A token attends to earlier tokens of its own segment."""
    mask: Array
    """bool[B, T], True exactly on the response tokens that are scored and trained on."""


@_pytree
class ValueBatch:
    """What the critic learns from: rows of its own, of P(y|x), one a rollout or several of them packed."""

    sequences: Sequences
    """The prompt and the response, whatever the policy's space; a value sees what stands before its token."""
    weights: Array
    """f32[B, T], normalised over the global batch; 0 on whatever does not take part."""
    targets: Array
    """f32[B, T], what the values are drawn to."""
    old_values: Array
    """f32[B, T], of the critic that the rollouts were judged by."""


@_pytree
class Batch:
    """What a train step takes: the loss is `sum(weights * per_token_loss)`, and nothing else decides it."""

    sequences: Sequences
    weights: Array
    """f32[B, T], normalised over the global batch; 0 on whatever does not take part."""
    advantages: Array
    """f32[B, T]."""
    old_logprobs: Array | None = None
    """f32[B, T], or None for one update per rollout: then they are stop_gradient of the current ones."""
    ref_logprobs: Array | None = None
    """f32[B, T] under the reference policy, in the phase's own space."""
    sampler_logprobs: Array | None = None
    """f32[B, T] as the sampler saw them, given the prompt."""
    critic: ValueBatch | None = None
    """The critic's rows, which are others than these; None where no critic learns."""


@_pytree
class CriticState:
    """What is trained of a critic."""

    params: Params
    """Trainable float32 leaves."""
    opt_state: Any
    """Its optimizer's state."""


@_pytree
class TrainState:
    """All that a checkpoint must carry of the optimisation."""

    step: Array
    """i32[], rollout batches consumed, skipped ones included."""
    params: Params
    """Trainable float32 leaves."""
    opt_state: Any
    """The optimizer's state, in the same structure for every phase."""
    rng: Array
    """The run's PRNG key; a step's randomness is `fold_in(rng, step)`, so it never changes."""
    phase: Array
    """i32[], index of the current phase."""
    phase_step: Array
    """i32[], steps done in the current phase."""
    critic: CriticState | None = None
    """None in a run without a critic."""


@runtime_checkable
class Model(Protocol):
    """What the core and the sampler ask of a language model; any object with these methods works."""

    def hidden(self, params: Params, tokens: Array, positions: Array, segments: Array) -> Array:
        """i32[B, T] x 3 -> [B, T, D], the final normalised hidden states, causal within each segment."""

    def unembedding(self, params: Params) -> Array:
        """[D, V], so that `hidden @ unembedding` are the logits."""

    def init_cache(
        self, params: Params, tokens: Array, positions: Array, segments: Array, group_size: int, length: int
    ) -> tuple[Array, Any]:
        """Prefill: left-padded i32[B, P] x 3 -> (hidden [B, D] of the last token, a cache for B * group_size rows).

        The cache has room for `length` further tokens a row; a prompt's part of it is held once for its group.
        """

    def decode(self, params: Params, cache: Any, tokens: Array, index: Array) -> tuple[Array, Any]:
        """One step: the index-th response tokens i32[B * group_size] -> (hidden [B * group_size, D], cache)."""


class Critic(Protocol):
    """A value model: what a response is expected to earn from a token on."""

    def values(self, params: Params, sequences: Sequences) -> Array:
        """f32[B, T]: index t is the value of what stands before token t in its segment; 0 where the mask is False."""


class Space(Protocol):
    """Rollouts -> Sequences of the same rows in the same order, with the mask on the response tokens.

    `needs_key = True` asks for the keyword `key`, the step's PRNG key.
    """

    def __call__(self, rollouts: Rollouts) -> Sequences: ...


class AdvantageEstimator(Protocol):
    """(rewards f32[B], group_size) -> (advantages f32[B], or f32[B, R] by token; keep bool[B]).

    `needs_values = True` asks for a call with (rollouts, values f32[B, R] of a critic) instead, and declares a method
    `targets(rollouts, values) -> f32[B, R]` that the critic learns from; `needs_rollouts = True` asks for a call with
    (rollouts, group_size, values or None). `compares_groups = True` declares that groups of one
    are refused, `judges = True` that a reward is taken for right or wrong, so that none may be shaped.
    """

    def __call__(self, rewards: Array, group_size: int) -> tuple[Array, Array]: ...


class RewardShaping(Protocol):
    """(rollouts, response_length) -> the rewards that credits are computed from, f32[B], or f32[B, R] by token.

    Metrics show the rollouts' own. `needs_reference = True` asks for the keywords `logprobs` and `reference`, both
    f32[B, R]: the responses under the policy before its update and under the reference, in the term's space.
    """

    def __call__(self, rollouts: Rollouts, response_length: int) -> Array: ...


class LossAggregation(Protocol):
    """(mask bool[B, T], keep bool[B], response_length) -> weights f32[B, T]."""

    def __call__(self, mask: Array, keep: Array, response_length: int) -> Array: ...


class Schedule(Protocol):
    """Learning rate: the steps done in the phase, i32[] -> f32[]."""

    def __call__(self, phase_step: Array) -> Array: ...


class Objective(Protocol):
    """(logprobs f32[B, T], batch) -> (per-token loss f32[B, T], {name: per-token metric f32[B, T]}); never reduces.

    `skips_zero_advantage = True` declares that the loss is 0 wherever the advantage is 0, so that such rows need not be
    computed. `needs_entropy = True` asks for the keyword `entropy` f32[B, T], with its gradient.
    `needs_reference = True` declares that `batch.ref_logprobs` is read, `needs_sampler = True` that
    `batch.sampler_logprobs` is, and `uses_ratio = True` that the policy's ratio to that before the update is.
    """

    def __call__(self, logprobs: Array, batch: Batch) -> tuple[Array, dict[str, Array]]: ...
