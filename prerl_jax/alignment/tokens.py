"""Alignment token by token: the gradients of log P(y_t | y_<t) and log P(y_t | x, y_<t) in the last layer, exactly.

With logits z_t = h_t W / tau the gradient of log p(y_t) with respect to the unembedding W is an outer product,

    g_t = h_t (e_y - p_t)^T / tau

so that inner products and norms of both spaces' gradients need inner products of vectors alone, and two forward passes:

    <g_pre, g_post> = <h_pre, h_post> <e_y - p_pre, e_y - p_post> / tau^2

A confident token's e_y - p_t is a difference of nearly equal numbers. It is never taken: with q_t the distribution of
p_t over the tokens other than y_t,

    e_y - p_t = (1 - p_t[y]) (e_y - q_t),      <e_y - q, e_y - q'> = 1 + <q, q'>,      |e_y - q|^2 = 1 + |q|^2

where every term is positive. Hence the cosine of the second factors lies in [1/2, 1] whatever the two distributions
are: the sign of a token's cosine is that of <h_pre, h_post>, and no cosine is above that of the two hidden states.

This is W's gradient alone. Where the embedding is tied to W, what flows into it through the input is left out, as is
what flows into every layer below: `make_dual_gradients` has the whole gradient, of a whole batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from prerl_jax.core.logprobs import chunk_length, over_chunks
from prerl_jax.core.types import Array, Model, Params, Rollouts, Space


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TokenAlignment:
    """What the two spaces say of every token of every response; 0 where the mask is False."""

    mask: Array
    """bool[B, R], the response tokens that both spaces score."""
    cosine: Array
    """f32[B, R], of the two gradients with respect to the unembedding."""
    hidden_cosine: Array
    """f32[B, R], of the two hidden states; at least |cosine|, with its sign."""
    inner: Array
    """f32[B, R], <g_pre, g_post>."""
    norm_pre: Array
    """f32[B, R], |g_pre|."""
    norm_post: Array
    """f32[B, R], |g_post|."""
    logprobs_pre: Array
    """f32[B, R], log P(y_t | y_<t)."""
    logprobs_post: Array
    """f32[B, R], log P(y_t | x, y_<t)."""
    marginal_gap: Array
    """f32[B, R], logprobs_post - logprobs_pre: what the prompt adds to the token, in nats."""
    entropy_pre: Array
    """f32[B, R], of the distribution that the token is one draw of, in nats."""
    entropy_post: Array
    """f32[B, R]."""


def make_token_alignment(
    model: Model, pre_space: Space, post_space: Space, temperature: float = 1.0, chunk: int | None = None
) -> Callable[[Params, Rollouts], TokenAlignment]:
    """f(params, rollouts) -> TokenAlignment of the rollouts' responses; pure, jit it whole.

    Costs one forward pass in each space and the unembedding of each; nothing is differentiated. Of a tied embedding
    only the gradient as an unembedding is measured, see the module.

    Args:
      model: the policy.
      pre_space: P(y); any space does whose rows end with the response.
      post_space: P(y|x).
      temperature: divides the logits.
      chunk: tokens of a row whose logits are held at once, in both spaces; None chooses by LOGITS_BUDGET.
    """

    def align(params: Params, rollouts: Rollouts) -> TokenAlignment:
        pre, pre_mask = response_states(model, params, pre_space, rollouts)
        post, post_mask = response_states(model, params, post_space, rollouts)
        unembedding = model.unembedding(params)
        rows, length = rollouts.response.shape
        tokens = chunk or chunk_length(4 * rows, length, unembedding.shape[1])  # logits and q, in two spaces

        def compare(pre: Array, post: Array, targets: Array) -> TokenAlignment:
            return compare_tokens(pre, post, unembedding, targets, temperature)

        _, found = over_chunks(lambda _, x: (None, compare(*x)), None, (pre, post, rollouts.response), tokens)
        return within(found, pre_mask & post_mask)

    return align


def compare_tokens(
    pre: Array, post: Array, unembedding: Array, targets: Array, temperature: float = 1.0
) -> TokenAlignment:
    """The alignment of tokens i32[B, c], all in its mask, that are predicted from states [B, c, D] of either space."""
    return _aligned(*(_last_layer(states, unembedding, targets, temperature) for states in (pre, post)))


def within(alignment: TokenAlignment, mask: Array) -> TokenAlignment:
    """The alignment of the tokens of a mask bool[B, R], 0 elsewhere."""
    found = jax.tree.map(lambda x: jnp.where(mask, x, 0.0), alignment)
    return dataclasses.replace(found, mask=mask)


@dataclasses.dataclass(frozen=True)
class _LastLayer:
    """One space's view of tokens [B, c]: states f32[B, c, D], q f32[B, c, V], and what follows from them."""

    states: Array
    others: Array
    size: Array
    """(1 - p[y]) / tau."""
    logprobs: Array
    entropy: Array


def _last_layer(states: Array, unembedding: Array, targets: Array, temperature: float) -> _LastLayer:
    logits = jnp.einsum("btd,dv->btv", states, unembedding, preferred_element_type=jnp.float32) / temperature
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    is_target = jnp.arange(logits.shape[-1]) == targets[..., None]
    rest = jax.nn.logsumexp(jnp.where(is_target, -jnp.inf, logits), axis=-1)
    others = jnp.where(is_target, 0.0, jnp.exp(logits - rest[..., None]))
    log_missing, logprobs = jax.nn.log_sigmoid(rest - chosen), jax.nn.log_sigmoid(chosen - rest)
    missing = jnp.exp(log_missing)
    # Entropy of "y or not", and of which other token it is.
    among_others = rest - jnp.sum(others * logits, axis=-1)
    entropy = -jnp.exp(logprobs) * logprobs - missing * log_missing + missing * among_others
    return _LastLayer(states.astype(jnp.float32), others, missing / temperature, logprobs, entropy)


def _aligned(pre: _LastLayer, post: _LastLayer) -> TokenAlignment:
    hidden = _inner(pre.states, post.states)
    lengths = [jnp.sqrt(_inner(view.states, view.states)) for view in (pre, post)]
    residual = 1 + _inner(pre.others, post.others)
    residuals = [jnp.sqrt(1 + _inner(view.others, view.others)) for view in (pre, post)]
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


def response_states(model: Model, params: Params, space: Space, rollouts: Rollouts) -> tuple[Array, Array]:
    """One forward pass in a space.

    Returns: (states [B, R, D], state t being what token t of the response is predicted from; mask bool[B, R] of the
      tokens that the space scores). A first token with nothing before it has a state of zeros, and is not in the mask.
    """
    sequences = space(rollouts)
    hidden = model.hidden(params, sequences.tokens, sequences.positions, sequences.segments)
    length = rollouts.response.shape[1]
    before = hidden.shape[1] - length  # the response is the row's last R tokens
    return jnp.pad(hidden, [(0, 0), (1, 0), (0, 0)])[:, before : before + length], sequences.mask[:, before:]
