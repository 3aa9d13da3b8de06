"""Model FLOPs: the arithmetic of the mathematics. What is recomputed, padded or masked does not count.

    forward = 2 (tokens * matrix weights of the layers + unembedded * D V) + 4 L H K pairs,    backward = 2 forward

`pairs` are the (query, key) pairs of attention. Norms, rotations and softmax are left out, as usual (PaLM, appendix B).
"""

from __future__ import annotations

import numpy as np

from prerl_jax.models.layers import DecoderConfig


def forward_flops(config: DecoderConfig, tokens: float, pairs: float, unembedded: float) -> float:
    """FLOPs of a forward pass.

    Args:
      config: the architecture.
      tokens: number of positions that go through the layers.
      pairs: number of (query, key) pairs, each token's own pair included.
      unembedded: number of positions whose logits are computed.
    """
    c = config
    attention = c.hidden_size * c.head_dim * (2 * c.num_heads + 2 * c.num_kv_heads)
    layer = attention + 3 * c.hidden_size * c.intermediate_size
    products = 2.0 * (tokens * c.num_layers * layer + unembedded * c.hidden_size * c.vocab_size)
    return products + 4.0 * c.num_layers * c.num_heads * c.head_dim * pairs


def causal_pairs(lengths: np.ndarray) -> float:
    """The number of (query, key) pairs of causal sequences of these lengths i64[N]."""
    lengths = np.asarray(lengths, np.float64)
    return float((lengths * (lengths + 1) / 2).sum())


def sampling_flops(config: DecoderConfig, prompts: np.ndarray, responses: np.ndarray, group_size: int) -> float:
    """FLOPs of sampling. A prompt is computed once for its group.

    Args:
      config: the architecture.
      prompts: i32[B], length of every row's prompt.
      responses: i32[B], length of every row's response.
      group_size: adjacent rows with the same prompt.
    """
    prefilled = prompts[::group_size]
    tokens = float(prefilled.sum()) + float(responses.sum())
    pairs = causal_pairs(prefilled) + causal_pairs(responses) + float((prompts.astype(np.float64) * responses).sum())
    return forward_flops(config, tokens, pairs, len(prefilled) + float(responses.sum()))


def training_flops(config: DecoderConfig, lengths: np.ndarray, scored: float) -> float:
    """FLOPs of a train step on sequences of these lengths i64[N], where the logits of `scored` tokens are computed."""
    return 3 * _sequences_flops(config, lengths, scored)


def scoring_flops(config: DecoderConfig, lengths: np.ndarray) -> float:
    """FLOPs of the log-probabilities of all tokens of sequences of these lengths i64[N]."""
    return _sequences_flops(config, lengths, float(np.sum(lengths)))


def value_flops(config: DecoderConfig, lengths: np.ndarray) -> float:
    """FLOPs of a critic's values of sequences of these lengths i64[N]. A train step on them has three times as many."""
    return _sequences_flops(config, lengths, 0)


def _sequences_flops(config: DecoderConfig, lengths: np.ndarray, unembedded: float) -> float:
    """FLOPs of a forward pass of whole sequences of these lengths."""
    return forward_flops(config, float(np.sum(lengths)), causal_pairs(lengths), unembedded)
