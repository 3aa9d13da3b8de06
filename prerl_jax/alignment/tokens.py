"""Alignment token by token: the gradients of log P(y_t | y_<t) and log P(y_t | x, y_<t) in the last layer, exactly.

With logits z_t = h_t W / tau the gradient of log p(y_t) with respect to the unembedding W is an outer product,

    g_t = h_t (e_y - p_t)^T / tau

so inner products and norms of the two spaces' gradients need only inner products of vectors, and two forward passes:

    <g_pre, g_post> = <h_pre, h_post> <e_y - p_pre, e_y - p_post> / tau^2

For a confident token, e_y - p_t is a difference of nearly equal numbers. This module never computes that difference.
Let q_t be the distribution p_t over the tokens other than y_t. Then

    e_y - p_t = (1 - p_t[y]) (e_y - q_t),      <e_y - q, e_y - q'> = 1 + <q, q'>,      |e_y - q|^2 = 1 + |q|^2

where every term is positive. Hence the cosine of the second factors lies in [1/2, 1] whatever the two distributions
are: the sign of a token's cosine is that of <h_pre, h_post>, and no cosine is above that of the two hidden states.

A head with a scale s (see `head.Head`) multiplies g_t by s. A soft cap multiplies column v of g_t by its derivative
d_v = 1 - (z_v / c)^2, so e_y - q becomes d_y e_y - d q. All terms stay positive; the bound of 1/2 no longer holds.

This is the gradient of W alone. Where the embedding is tied to W, the gradient through the input is left out, and so
are the gradients of all layers below. `make_dual_gradients` computes the whole gradient, of a whole batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from prerl_jax.core.head import Head
from prerl_jax.core.logprobs import chunk_length, map_chunks
from prerl_jax.core.pytree import pytree
from prerl_jax.core.scoring import states
from prerl_jax.core.types import Array, Model, Params, Rollouts, Space


@pytree
class TokenAlignment:
    """The two spaces compared at every token of every response. All values are 0 where the mask is False.

    Attributes:
      mask: bool[B, R], the response tokens that both spaces score.
      cosine: f32[B, R], cosine of the two gradients with respect to the unembedding.
      hidden_cosine: f32[B, R], cosine of the two hidden states. Its absolute value is at least that of `cosine`, and it
        has the same sign (for a head without a soft cap).
      inner: f32[B, R], <g_pre, g_post>.
      norm_pre: f32[B, R], |g_pre|.
      norm_post: f32[B, R], |g_post|.
      logprobs_pre: f32[B, R], log P(y_t | y_<t).
      logprobs_post: f32[B, R], log P(y_t | x, y_<t).
      marginal_gap: f32[B, R], logprobs_post - logprobs_pre: what the prompt adds to the token, in nats.
      entropy_pre: f32[B, R], entropy of P(. | y_<t), in nats.
      entropy_post: f32[B, R], entropy of P(. | x, y_<t), in nats.
    """

    mask: Array
    cosine: Array
    hidden_cosine: Array
    inner: Array
    norm_pre: Array
    norm_post: Array
    logprobs_pre: Array
    logprobs_post: Array
    marginal_gap: Array
    entropy_pre: Array
    entropy_post: Array


def make_token_alignment(
    model: Model, pre_space: Space, post_space: Space, temperature: float = 1.0, chunk: int | None = None
) -> Callable[[Params, Rollouts], TokenAlignment]:
    """Makes the function that compares the two spaces' last-layer gradients token by token.

    It costs one forward pass in each space, with the logits of each, and no backward pass. For a tied embedding it
    measures only the gradient as an unembedding, see the module.

    Args:
      model: the policy.
      pre_space: P(y), or any other space whose rows end with the response.
      post_space: P(y|x).
      temperature: divides the logits; above 0.
      chunk: tokens of a row whose logits are held at once, in both spaces; None chooses by LOGITS_BUDGET.

    Returns:
      f(params, rollouts) -> the TokenAlignment of the responses, with fields [B, R]. f is pure: jit it whole.
    """

    def align(params: Params, rollouts: Rollouts) -> TokenAlignment:
        pre, pre_mask, _ = response_states(model, params, pre_space, rollouts)
        post, post_mask, head = response_states(model, params, post_space, rollouts)
        rows, length = rollouts.response.shape
        tokens = chunk or chunk_length(4 * rows, length, head.vocab_size)  # logits and q, in two spaces

        def compare(pre: Array, post: Array, targets: Array) -> TokenAlignment:
            return compare_tokens(pre, post, head, targets, temperature)

        found = map_chunks(compare, (pre, post, rollouts.response), tokens)
        return within(found, pre_mask & post_mask)

    return align


def compare_tokens(pre: Array, post: Array, head: Head, targets: Array, temperature: float = 1.0) -> TokenAlignment:
    """The alignment of single tokens; its mask is True everywhere.

    Args:
      pre: [B, C, D], the hidden states that predict the tokens in P(y).
      post: [B, C, D], the same in P(y|x).
      head: turns hidden states into logits.
      targets: i32[B, C], the tokens.
      temperature: divides the logits.
    """
    return _aligned(*(_last_layer(hidden, head, targets, temperature) for hidden in (pre, post)))


def within(alignment: TokenAlignment, mask: Array) -> TokenAlignment:
    """The alignment restricted to a mask bool[B, R]: 0 elsewhere."""
    found = jax.tree.map(lambda x: jnp.where(mask, x, 0.0), alignment)
    return dataclasses.replace(found, mask=mask)


@dataclasses.dataclass(frozen=True)
class _LastLayer:
    """The last layer of one space at tokens [B, C].

    Attributes:
      hidden: f32[B, C, D].
      own: d_y f32[B, C]; the number 1 where the head has no soft cap.
      others: f32[B, C, V], d q, which is q where the head has no soft cap.
      size: f32[B, C], scale (1 - p[y]) / tau.
      logprobs: f32[B, C].
      entropy: f32[B, C].
    """

    hidden: Array
    own: Array | int
    others: Array
    size: Array
    logprobs: Array
    entropy: Array


def _last_layer(hidden: Array, head: Head, targets: Array, temperature: float) -> _LastLayer:
    logits = head.logits(hidden) / temperature
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    is_target = jnp.arange(logits.shape[-1]) == targets[..., None]
    rest = jax.nn.logsumexp(jnp.where(is_target, -jnp.inf, logits), axis=-1)
    others = jnp.where(is_target, 0.0, jnp.exp(logits - rest[..., None]))
    log_missing, logprobs = jax.nn.log_sigmoid(rest - chosen), jax.nn.log_sigmoid(chosen - rest)
    missing = jnp.exp(log_missing)
    # Entropy of "y or not", and of which other token it is.
    among_others = rest - jnp.sum(others * head.fill_invalid(logits, 0.0), axis=-1)
    entropy = -jnp.exp(logprobs) * logprobs - missing * log_missing + missing * among_others
    own: Array | int = 1
    size = missing / temperature
    if head.soft_cap is not None:
        slope = 1 - (head.fill_invalid(logits, 0.0) * temperature / head.soft_cap) ** 2
        own, others = jnp.take_along_axis(slope, targets[..., None], axis=-1)[..., 0], slope * others
    size = size if head.scale is None else head.scale * size
    return _LastLayer(hidden.astype(jnp.float32), own, others, size, logprobs, entropy)


def _aligned(pre: _LastLayer, post: _LastLayer) -> TokenAlignment:
    hidden = _inner(pre.hidden, post.hidden)
    lengths = [jnp.sqrt(_inner(view.hidden, view.hidden)) for view in (pre, post)]
    residual = pre.own * post.own + _inner(pre.others, post.others)
    residuals = [jnp.sqrt(view.own * view.own + _inner(view.others, view.others)) for view in (pre, post)]
    hidden_cosine = hidden / (lengths[0] * lengths[1])
    return TokenAlignment(
        mask=jnp.ones(hidden.shape, bool),
        cosine=hidden_cosine * residual / (residuals[0] * residuals[1]),
        hidden_cosine=hidden_cosine,
        inner=hidden * residual * pre.size * post.size,
        norm_pre=lengths[0] * residuals[0] * pre.size,
        norm_post=lengths[1] * residuals[1] * post.size,
        logprobs_pre=pre.logprobs,
        logprobs_post=post.logprobs,
        marginal_gap=post.logprobs - pre.logprobs,
        entropy_pre=pre.entropy,
        entropy_post=post.entropy,
    )


def _inner(a: Array, b: Array) -> Array:
    return jnp.sum(a * b, axis=-1)


def response_states(model: Model, params: Params, space: Space, rollouts: Rollouts) -> tuple[Array, Array, Head]:
    """One forward pass in a space.

    Returns: (hidden [B, R, D], where state t predicts token t of the response; mask bool[B, R] of the response tokens
      that the space scores; the model's head). A first token with nothing before it has a state of zeros and is not in
      the mask.
    """
    sequences = space(rollouts)
    hidden, head = states(model, params, sequences)
    length = rollouts.response.shape[1]
    before = hidden.shape[1] - length  # the response is the row's last R tokens
    shifted = jnp.pad(hidden, [(0, 0), (1, 0), (0, 0)])[:, before : before + length]
    return shifted, sequences.mask[:, before:], head
