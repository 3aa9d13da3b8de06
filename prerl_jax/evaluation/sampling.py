"""What is read off responses on the host: whether they are broken or truncated, and their text."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from prerl_jax.core.types import Rollouts


def broken(rollouts: Rollouts) -> np.ndarray:
    """bool[B]: a sampled token's log-probability is not finite. Numpy."""
    return (~np.isfinite(rollouts.logprobs) & rollouts.response_mask).any(axis=1)


def require_whole(broken: np.ndarray, what: str) -> None:
    """Raises ValueError where one of some responses is `broken`, bool[B]; `what` they are, as in "of step 3"."""
    if broken.any():
        raise ValueError(
            f"{broken.sum()} of the {len(broken)} responses {what} have tokens whose log-probability is not finite: "
            "the policy's logits are infinite or not numbers, and what it says is noise. train/grad_norm and "
            "train/update_norm in metrics.jsonl say when that began; go on from an earlier checkpoint with a smaller "
            "learning rate. A model that does it from the start may need model.compute_dtype='float32'."
        )


def truncated(responses: np.ndarray, lengths: np.ndarray, stop_tokens: tuple[int, ...]) -> np.ndarray:
    """bool[B]: responses i32[B, R] that reached the length limit R without a stop token. Numpy."""
    return (lengths == responses.shape[1]) & ~np.isin(responses[:, -1], stop_tokens)


def texts(responses: np.ndarray, lengths: np.ndarray, decode: Callable[[list[list[int]]], list[str]]) -> list[str]:
    """Responses i32[B, R] of these lengths as text, by the tokenizer's batch decoding."""
    return decode([row[:n].tolist() for row, n in zip(responses, lengths, strict=True)])
