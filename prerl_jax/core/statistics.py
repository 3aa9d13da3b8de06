"""What a policy thinks of the tokens of its responses, in several spaces, as means: no array of all logits.

    log p_t[y],  p_t[y],  the k-th largest entry of p_t,  sum of p_t over the stop tokens,  H(p_t)

each averaged over the response tokens that a space scores. In P(y) the top entries tell how sure the model is of a
reasoning it has no question for; the stop tokens' share shows whether pushing down truncated responses moves the
lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp

from prerl_jax.core.logprobs import chunk_length
from prerl_jax.core.response_states import by_chunks, response_states
from prerl_jax.core.types import Array, Model, Params, Rollouts, Space


def make_probability_statistics(
    model: Model,
    spaces: Mapping[str, Space],
    stop_tokens: Sequence[int] = (),
    *,
    temperature: float = 1.0,
    top: int = 3,
    chunk: int | None = None,
) -> Callable[[Params, Rollouts], dict[str, Array]]:
    """f(params, rollouts) -> {"NAME/STATISTIC": f32[]}, means over the tokens that the space NAME scores; jit it whole.

    One forward pass a space. NaN in a space that scores no token.

    Args:
      model: the policy.
      spaces: by the names that the results are to have: {"pre": PreTrainSpace(prefix), "post": PostTrainSpace()}.
      stop_tokens: ids that end a response.
      temperature: divides the logits.
      top: how many of the largest probabilities are averaged.
      chunk: tokens of a row whose logits are held at once; None chooses by LOGITS_BUDGET.

    Returns: the STATISTICs are logprob and probability (of the response's own token), entropy, top1 ... (the k-th
      largest probability), and, where there are stop tokens, eos (the probability of ending here).
    """
    stops = tuple(sorted(set(stop_tokens)))

    def means(params: Params, space: Space, rollouts: Rollouts) -> dict[str, Array]:
        states, mask = response_states(model, params, space, rollouts)
        unembedding = model.unembedding(params)
        if top > unembedding.shape[1]:
            raise ValueError(f"top is {top}, but the vocabulary has {unembedding.shape[1]} tokens.")

        def tokens(states: Array, targets: Array) -> dict[str, Array]:
            return token_statistics(states, unembedding, targets, stops, temperature, top)

        width = chunk or chunk_length(2 * mask.shape[0], mask.shape[1], unembedding.shape[1])
        found = by_chunks(tokens, width, states, rollouts.response)
        return {name: jnp.where(mask, value, 0.0).sum() / mask.sum() for name, value in found.items()}

    def statistics(params: Params, rollouts: Rollouts) -> dict[str, Array]:
        return {
            f"{name}/{statistic}": value
            for name, space in spaces.items()
            for statistic, value in means(params, space, rollouts).items()
        }

    return statistics


def token_statistics(
    states: Array, unembedding: Array, targets: Array, stop_tokens: tuple[int, ...], temperature: float, top: int = 3
) -> dict[str, Array]:
    """The statistics of each token, f32[B, c] each: states [B, c, D] that predict targets i32[B, c], W [D, V]."""
    logits = jnp.einsum("btd,dv->btv", states, unembedding, preferred_element_type=jnp.float32) / temperature
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    probabilities = jnp.exp(logits - normaliser[..., None])
    logprobs = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0] - normaliser
    largest = jnp.exp(jax.lax.top_k(logits, top)[0] - normaliser[..., None])
    found = {
        "logprob": logprobs,
        "probability": jnp.exp(logprobs),
        "entropy": normaliser - jnp.sum(probabilities * logits, axis=-1),
        **{f"top{k + 1}": largest[..., k] for k in range(top)},
    }
    if stop_tokens:
        found["eos"] = probabilities[..., jnp.asarray(stop_tokens)].sum(axis=-1)
    return found
