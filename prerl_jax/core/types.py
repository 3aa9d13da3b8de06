"""The arrays that the rooms exchange, and the protocols of the parts that a user can write.

Letters in shapes: B sequences, P prompt length, R response length, T tokens of a row, D width of the model, V size of
the vocabulary. Index t of a [B, T] array describes token t: `mask[b, t]` says whether token t is trained on, and
`logprobs[b, t]` is the log-probability of token t given the earlier tokens of its segment.

A part (a space, an advantage estimator, a reward shaping or an objective) declares what it needs in its attribute
`traits`, a small record (see `traits`). A part is any callable object with that attribute; its parameters may have any
names.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from prerl_jax.core.head import Head
from prerl_jax.core.pytree import pytree
from prerl_jax.core.traits import AdvantageTraits, ObjectiveTraits, RewardShapingTraits, SpaceTraits

Array = jax.Array
Params = dict[str, Any]
"""A nested dict of trainable float arrays. A tied embedding is one leaf. Layers are stacked under "layers"."""


@pytree
class Prompts:
    """Prompts to sample from: numpy arrays for an engine, which takes them from the host, or jax arrays.

    Attributes:
      prompt: i32[B, P], padded on the left.
      prompt_mask: bool[B, P], True on real tokens.
      ids: i32[B], the random numbers of a prompt's samples depend on its id. None: the row numbers.
      first_sample: i32[B], the number of each prompt's first sample, so that several calls can share the samples of
        a prompt. None: 0.
    """

    prompt: Array | np.ndarray
    prompt_mask: Array | np.ndarray
    ids: Array | np.ndarray | None = None
    first_sample: Array | np.ndarray | None = None


@pytree
class Rollouts:
    """Sampled responses and their rewards. A group is a block of `group_size` adjacent rows with the same prompt.

    Attributes:
      prompt: i32[B, P], padded on the left.
      prompt_mask: bool[B, P], True on real tokens.
      response: i32[B, R], padded on the right, with the stop token if one was sampled.
      response_mask: bool[B, R], True on the tokens of the response, the stop token included.
      rewards: f32[B]; zero before verification. A reward shaping may make them f32[B, R], one per token.
      logprobs: f32[B, R], log-probabilities under the sampler at its temperature, without top-k or top-p; 0 at padding.
      truncated: bool[B], True where a response reached the length limit without a stop token. None: unknown.
      loss_mask: bool[B, R], False on response tokens that are read but not trained on, such as the output of a tool.
        None: every token of the response is trained on.
      known: bool[B], True where the verdict on a response is known. None: all verdicts are known. The reward of a
        response with an unknown verdict is never read, and the response is never trained on.
      right: bool[B], True where the verdict on a response is "right". None: it is right if its reward is at least 1.
    """

    prompt: Array
    prompt_mask: Array
    response: Array
    response_mask: Array
    rewards: Array
    logprobs: Array
    truncated: Array | None = None
    loss_mask: Array | None = None
    known: Array | None = None
    right: Array | None = None

    @property
    def trained_mask(self) -> Array:
        """bool[B, R], True on the response tokens that are trained on: `response_mask` and `loss_mask`."""
        return self.response_mask if self.loss_mask is None else self.response_mask & self.loss_mask

    @property
    def known_mask(self) -> Array:
        """bool[B], True where the verdict is known: `known`, or True everywhere."""
        return jnp.ones(self.rewards.shape[0], bool) if self.known is None else jnp.asarray(self.known)

    @property
    def right_mask(self) -> Array:
        """bool[B], True where the verdict is known and "right": `right`, or a reward of at least 1."""
        rewards = self.rewards if self.rewards.ndim == 1 else self.rewards.sum(axis=1)
        return self.known_mask & (rewards >= 1 if self.right is None else self.right)


@pytree
class Sequences:
    """Rows of tokens. A row holds one sequence, or several packed ones with different segment ids.

    Attributes:
      tokens: i32[B, T].
      positions: i32[B, T], from 0 in every segment.
      segments: i32[B, T], 1, 2, ... within a row; 0 is padding. A token attends to earlier tokens of its own segment.
      mask: bool[B, T], True exactly on the response tokens that are scored and trained on.
    """

    tokens: Array
    positions: Array
    segments: Array
    mask: Array


@pytree
class ValueBatch:
    """The rows that the critic is trained on. They are rows of P(y|x), one per rollout or several rollouts packed.

    Attributes:
      sequences: the prompts and responses, whatever the policy's space is.
      weights: f32[B, T], normalised over the global batch; 0 on tokens that are not trained on.
      targets: f32[B, T], the returns that the values are regressed on.
      old_values: f32[B, T], the values that the advantages were computed from.
    """

    sequences: Sequences
    weights: Array
    targets: Array
    old_values: Array


@pytree
class Batch:
    """The input of a train step. The loss is `sum(weights * per_token_loss)`.

    Attributes:
      sequences: the rows, B of T tokens.
      weights: f32[B, T], normalised over the global batch; 0 on tokens that are not trained on.
      advantages: f32[B, T].
      old_logprobs: f32[B, T], under the policy before the first update. None where each rollout is trained on once:
        the current log-probabilities are then used instead, as constants.
      ref_logprobs: f32[B, T], under the reference policy, in the phase's space; None without a reference.
      sampler_logprobs: f32[B, T], as the sampler computed them, given the prompt; NaN, which is unknown, in rows of a
        space without the prompt. None: unknown for all rows.
      critic: the critic's rows, which differ from these; None where no critic is trained.
    """

    sequences: Sequences
    weights: Array
    advantages: Array
    old_logprobs: Array | None = None
    ref_logprobs: Array | None = None
    sampler_logprobs: Array | None = None
    critic: ValueBatch | None = None


@pytree
class CriticState:
    """The trained part of a critic.

    Attributes:
      params: trainable float32 leaves.
      opt_state: the state of the critic's own optimizer.
    """

    params: Params
    opt_state: Any


@pytree
class TrainState:
    """The state of the optimisation, as checkpoints save it.

    Attributes:
      step: i32[], the number of rollout batches used, skipped ones included.
      params: trainable float32 leaves.
      opt_state: the optimizer's state; its structure is the same in every phase.
      rng: key[], the run's PRNG key. It never changes: the random draws of a step use `fold_in(rng, step)`.
      phase: i32[], the index of the current phase.
      phase_step: i32[], the number of steps done in the current phase.
      critic: the critic's state; None in a run without a critic.
      frozen: the parameters that are not trained; `merge_params(params, frozen)` is the whole model. None: all
        parameters are trained.
    """

    step: Array
    params: Params
    opt_state: Any
    rng: Array
    phase: Array
    phase_step: Array
    critic: CriticState | None = None
    frozen: Params | None = None


@runtime_checkable
class Model(Protocol):
    """The methods of a language model that the core and the sampler use. Any object with them works."""

    def hidden(self, params: Params, tokens: Array, positions: Array, segments: Array) -> Array:
        """i32[B, T] x 3 -> [B, T, D], the final normalised hidden states, causal within each segment."""

    def head(self, params: Params) -> Head:
        """The head that turns hidden states into logits, see `Head`."""

    def init_cache(
        self, params: Params, tokens: Array, positions: Array, segments: Array, group_size: int, length: int
    ) -> tuple[Array, Any]:
        """Prefill: left-padded i32[B, P] x 3 -> (hidden [B, D] of the last token, a cache for B * group_size rows).

        The cache has room for `length` more tokens in each row. It stores each prompt once for its whole group.
        """

    def decode(self, params: Params, cache: Any, tokens: Array, index: Array) -> tuple[Array, Any]:
        """One step: the index-th response tokens i32[B * group_size] -> (hidden [B * group_size, D], cache)."""


class Critic(Protocol):
    """A value model: the expected reward of a response, at each of its tokens."""

    def values(self, params: Params, sequences: Sequences) -> Array:
        """f32[B, T]: index t is the value of the tokens before t in its segment; 0 where the mask is False."""


class Space(Protocol):
    """Turns rollouts into the rows that are trained on, one row a rollout, in the same order."""

    @property
    def traits(self) -> SpaceTraits:
        """What the part declares, see SpaceTraits."""

    def __call__(self, rollouts: Rollouts, /) -> Sequences:
        """The rows; their mask is True on response tokens alone, and False wherever `rollouts.loss_mask` is."""


class AdvantageEstimator(Protocol):
    """Turns rewards into advantages, and selects the responses that are trained on."""

    @property
    def traits(self) -> AdvantageTraits:
        """What the part declares, see AdvantageTraits."""

    def __call__(self, rollouts: Rollouts, group_size: int, values: Array | None = None, /) -> tuple[Array, Array]:
        """(advantages f32[B], or f32[B, R] by token; keep bool[B], False for responses that are left out).

        `values` are a critic's, f32[B, R]; None in a run without a critic.
        """


@runtime_checkable
class ValueAdvantageEstimator(AdvantageEstimator, Protocol):
    """An advantage estimator that reads a critic's values (`needs_values=True`)."""

    def targets(self, rollouts: Rollouts, values: Array, /) -> Array:
        """f32[B, R], the returns that the critic's values f32[B, R] are regressed on."""


class RewardShaping(Protocol):
    """Changes the rewards that advantages are computed from. Metrics still show the rewards of the verifier.

    With `needs_reference=True` it also takes the keywords `logprobs` and `reference`, both f32[B, R]: the responses'
    log-probabilities under the policy before the first update and under the reference, in the term's space.
    """

    @property
    def traits(self) -> RewardShapingTraits:
        """What the part declares, see RewardShapingTraits."""

    def __call__(self, rollouts: Rollouts, response_length: int, /) -> Array:
        """The new rewards, f32[B], or f32[B, R] by token, of responses of at most `response_length` tokens."""


class LossAggregation(Protocol):
    """Turns the selected tokens into the weights of the loss, normalised over the global batch."""

    def __call__(self, mask: Array, keep: Array, response_length: int, /) -> Array:
        """(mask bool[B, T], keep bool[B], maximum response length) -> weights f32[B, T]."""


class Schedule(Protocol):
    """A learning rate or a coefficient as a function of the steps done in the phase."""

    def __call__(self, phase_step: Array, /) -> Array:
        """i32[] -> f32[]."""


class Objective(Protocol):
    """The loss of each token. It never reduces over tokens."""

    @property
    def traits(self) -> ObjectiveTraits:
        """What the part declares, see ObjectiveTraits."""

    def __call__(self, logprobs: Array, batch: Batch, entropy: Array, /) -> tuple[Array, dict[str, Array]]:
        """(log-probabilities f32[B, T], batch, entropies f32[B, T]) -> (loss f32[B, T], {metric: f32[B, T]})."""
