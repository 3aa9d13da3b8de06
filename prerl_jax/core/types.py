"""The arrays that flow between the rooms, and the protocols of what is passed in.

B is the number of sequences, P the prompt length, R the response length, T the number of tokens in a row,
D the model's width, V the vocabulary size. Index t of every [B, T] array describes token t: `mask[b, t]` says whether
token t is trained on, `logprobs[b, t]` is the log-probability of token t given the tokens before it in its segment.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

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
    """f32[B, T] as the sampler computed them, given the prompt; NaN at tokens of another space. None where all are."""
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
    frozen: Params | None = None
    """The parameters that are not trained, without moments: `merge_params(params, frozen)` is the whole model. None
    where all parameters are trained."""


def _static() -> Any:
    return dataclasses.field(default=None, metadata={"static": True})


@_pytree
class Head:
    """The last layer of a language model: it turns hidden states into logits.

    The logits of hidden states h are computed in this order, each step only where its field is set:

        z = h W,    z <- scale z,    z <- soft_cap tanh(z / soft_cap),    z_v <- -inf for v >= valid_ids

    All logits are float32. The temperature is not part of the head: whoever scores or samples divides by it last.

    Attributes:
      weights: [D, V], the unembedding matrix W, in the dtype that the model computes in.
      scale: factor of the logits (Granite, Cohere); None for 1.
      soft_cap: bound of the logits' absolute value (Gemma 2), above 0; None for no bound.
      valid_ids: the number of real token ids. Ids from `valid_ids` to V - 1 are padding of the matrix: their
        probability is 0 in scoring and in sampling. None where all V ids are real.

    A head with no optional field set computes exactly `h W`. The optional fields are static: they are part of the
    compiled program.

    Raises ValueError for a soft cap that is not above 0 and for fewer than one valid id.
    """

    weights: Array
    scale: float | None = _static()
    soft_cap: float | None = _static()
    valid_ids: int | None = _static()

    def __post_init__(self):
        if self.soft_cap is not None and not self.soft_cap > 0:
            raise ValueError(f"Head.soft_cap bounds the logits and must be above 0, got {self.soft_cap}. Or use None.")
        if self.valid_ids is not None and self.valid_ids < 1:
            raise ValueError(
                f"Head.valid_ids counts token ids and must be 1 or more, got {self.valid_ids}. Or use None."
            )

    @property
    def vocab_size(self) -> int:
        """V, the padding ids included."""
        return self.weights.shape[1]

    def logits(self, hidden: Array) -> Array:
        """Hidden states [..., D] -> logits f32[..., V]."""
        z = jnp.einsum("...d,dv->...v", hidden, self.weights, preferred_element_type=jnp.float32)
        z = z if self.scale is None else self.scale * z
        z = z if self.soft_cap is None else self.soft_cap * jnp.tanh(z / self.soft_cap)
        return self.fill_invalid(z, -jnp.inf)

    def pull_back(self, d_logits: Array, logits: Array, temperature: float = 1.0) -> Array:
        """Cotangents of logits f32[..., V] -> those of `hidden @ weights`, times the temperature.

        Args:
          d_logits: f32[..., V], cotangents of `logits`.
          logits: f32[..., V], what `self.logits` gave, divided by the temperature.
          temperature: what the logits were divided by.
        """
        if self.soft_cap is not None:
            d_logits = d_logits * (1 - (self.fill_invalid(logits, 0.0) * temperature / self.soft_cap) ** 2)
        d_logits = self.fill_invalid(d_logits, 0.0)
        return d_logits if self.scale is None else self.scale * d_logits

    def fill_invalid(self, values: Array, fill: float) -> Array:
        """Values [..., V] with `fill` at the padding ids; the values themselves where there are none."""
        if self.valid_ids is None:
            return values
        return jnp.where(jnp.arange(values.shape[-1]) < self.valid_ids, values, fill)


@runtime_checkable
class Model(Protocol):
    """What the core and the sampler ask of a language model; any object with these methods works."""

    def hidden(self, params: Params, tokens: Array, positions: Array, segments: Array) -> Array:
        """i32[B, T] x 3 -> [B, T, D], the final normalised hidden states, causal within each segment."""

    def head(self, params: Params) -> Head:
        """The head that turns hidden states into logits, see `Head`."""

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
