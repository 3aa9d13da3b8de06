"""Model FLOPs: the arithmetic that the mathematics asks for, whatever is recomputed, padded or masked.

    forward = 2 (tokens * matrix weights of the layers + unembedded * D V) + 4 L H K pairs,    backward = 2 forward

`pairs` are (query, key) pairs that attend; norms, rotations and softmax are left out, as is usual (PaLM, appendix B).
"""

from __future__ import annotations

import numpy as np

from prerl_jax.models.layers import DecoderConfig


def forward_flops(config: DecoderConfig, tokens: float, pairs: float, unembedded: float) -> float:
    """FLOPs of a forward pass.

    Args:
      config: the architecture.
      tokens: positions that go through the layers.
      pairs: (query, key) pairs, each token's own included.
      unembedded: positions that go through the unembedding.
    """
    c = config
    attention = c.hidden_size * c.head_dim * (2 * c.num_heads + 2 * c.num_kv_heads)
    layer = attention + 3 * c.hidden_size * c.intermediate_size
    products = 2.0 * (tokens * c.num_layers * layer + unembedded * c.hidden_size * c.vocab_size)
    return products + 4.0 * c.num_layers * c.num_heads * c.head_dim * pairs


def causal_pairs(lengths: np.ndarray) -> float:
    """(query, key) pairs of causal sequences of these lengths."""
    lengths = np.asarray(lengths, np.float64)
    return float((lengths * (lengths + 1) / 2).sum())


def sampling_flops(config: DecoderConfig, prompts: np.ndarray, responses: np.ndarray, group_size: int) -> float:
    """FLOPs of sampling: lengths i32[B] of every row's prompt and response; a prompt is computed once for its group."""
    prefilled = prompts[::group_size]
    tokens = float(prefilled.sum()) + float(responses.sum())
    pairs = causal_pairs(prefilled) + causal_pairs(responses) + float((prompts.astype(np.float64) * responses).sum())
    return forward_flops(config, tokens, pairs, len(prefilled) + float(responses.sum()))


def training_flops(config: DecoderConfig, lengths: np.ndarray, scored: float) -> float:
    """FLOPs of a train step on sequences of these lengths, of which `scored` tokens go through the unembedding."""
    return 3 * _sequences_flops(config, lengths, scored)


def scoring_flops(config: DecoderConfig, lengths: np.ndarray) -> float:
    """FLOPs of the log-probabilities of all tokens of sequences of these lengths."""
    return _sequences_flops(config, lengths, float(np.sum(lengths)))


def value_flops(config: DecoderConfig, lengths: np.ndarray) -> float:
    """FLOPs of a critic's values of sequences of these lengths; a train step on them has three times as many."""
    return _sequences_flops(config, lengths, 0)


def _sequences_flops(config: DecoderConfig, lengths: np.ndarray, unembedded: float) -> float:
    """FLOPs of a forward pass of whole sequences of these lengths."""
    return forward_flops(config, float(np.sum(lengths)), causal_pairs(lengths), unembedded)
