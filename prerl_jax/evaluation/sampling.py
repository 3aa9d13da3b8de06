"""Samples responses to problems (`sample`) and waits for their rewards (`verify`).

Both stages return values. Verification begins while responses are still sampled: see `Verification`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from prerl_jax.core.types import Array, Params, Prompts, Rollouts
from prerl_jax.data import Example, left_pad
from prerl_jax.data.problems import Problem
from prerl_jax.evaluation.verification import Decode, Verdicts, Verification
from prerl_jax.rollout.engine import Engine, Sampled
from prerl_jax.runtime.distributed import from_process, share_errors
from prerl_jax.verify import Verified


@dataclasses.dataclass(frozen=True)
class TokenFormat:
    """How problems become token rows, and responses become text.

    Attributes:
      max_prompt_tokens: P, the width of the padded prompts.
      pad_token: the id that fills prompts up on the left.
      stop_tokens: the ids that end a response.
      decode: turns token ids into text, without special tokens.
    """

    max_prompt_tokens: int
    pad_token: int
    stop_tokens: tuple[int, ...]
    decode: Decode


@dataclasses.dataclass(frozen=True)
class PendingResponses:
    """Sampled responses whose verdicts may still be pending.

    Attributes:
      sampled: what the engine returned: the rollouts of this process on the host, with rewards of zero.
      verification: gives the verdicts.
    """

    sampled: Sampled
    verification: Verification


@dataclasses.dataclass(frozen=True)
class VerifiedResponses:
    """Responses with their verdicts, on the host of the process that sampled them.

    Attributes:
      rollouts: numpy arrays; `rewards`, `right`, `known` and `truncated` are filled in.
      texts: the responses as text, one for each row.
      verified: what the verifier says of each row.
    """

    rollouts: Rollouts
    texts: list[str]
    verified: Verified


def padded_prompts(examples: Sequence[Example], tokens: TokenFormat, ids: np.ndarray) -> Prompts:
    """The prompts of these examples, numpy, left-padded to P tokens.

    Args:
      examples: problems with their prompt tokens.
      tokens: the width and the padding.
      ids: i32[Q]; the random numbers of a prompt depend on its id.
    """
    prompts = left_pad(examples, tokens.max_prompt_tokens, tokens.pad_token)
    return Prompts(prompts.prompt, prompts.prompt_mask, ids)


def problems_of(examples: Sequence[Example], group_size: int) -> list[Problem]:
    """The problem of every row: each example's problem `group_size` times."""
    return [example.problem for example in examples for _ in range(group_size)]


def sample(
    engine: Engine, params: Params, prompts: Prompts, key: Array, verification: Verification, first_row: int = 0
) -> PendingResponses:
    """Samples responses. Rows that complete early are verified in the meantime.

    Args:
      engine: the sampler.
      params: the policy.
      prompts: this process's prompts, numpy; every process has the same number of them.
      key: PRNG key of this call.
      verification: verifies the rows. If sampling fails, it is cancelled.
      first_row: offset of these rows in `verification`, which may cover several calls.
    """

    def on_complete(rows: np.ndarray, responses: np.ndarray, lengths: np.ndarray) -> None:
        verification.add(first_row + rows, responses, lengths)

    try:
        return PendingResponses(engine.sample(params, prompts, key, on_complete), verification)
    except BaseException:
        verification.cancel()
        raise


def verify(pending: PendingResponses, where: str, check: Callable[[], None] = lambda: None) -> VerifiedResponses:
    """Waits for the verdicts.

    Args:
      pending: sampled responses.
      where: names the responses in an error, such as "of step 3".
      check: is called first; it may raise an error from other work in the background.

    Raises ValueError where a log-probability is not finite, and what the verifier raises; on all processes.
    """
    rollouts = pending.sampled.rollouts
    verdicts = await_verdicts(pending.verification, not_finite(rollouts), where, check)
    verified = verdicts.verified
    on_host: dict[str, Any] = {name: getattr(verified, name) for name in ("rewards", "right", "known")}
    on_host["truncated"] = verdicts.truncated
    rollouts = dataclasses.replace(rollouts, **on_host)
    return VerifiedResponses(rollouts, verdicts.texts, verified)


def await_verdicts(
    verification: Verification, broken: np.ndarray, where: str, check: Callable[[], None] = lambda: None
) -> Verdicts:
    """The verdicts on all rows, those of the first process of the row group. `broken` bool[B] is that of `not_finite`.

    An error on one process is raised on all.
    """
    try:
        with share_errors(f"verification {where}"):
            check()
            require_finite(broken, where)
            verdicts = verification.result()
    finally:
        verification.cancel()
    share = verification.share
    if not share.shared:
        return verdicts
    judged = (verdicts.verified, verdicts.measured) if share.leads else None
    verified, measured = from_process(judged, share.group[0])
    return dataclasses.replace(verdicts, verified=verified, measured=measured)


def not_finite(rollouts: Rollouts) -> np.ndarray:
    """bool[B]: whether the log-probability of a sampled token is not finite. Numpy."""
    broken: np.ndarray = ~np.isfinite(np.asarray(rollouts.logprobs)) & np.asarray(rollouts.response_mask)
    return np.any(broken, axis=1)


def require_finite(broken: np.ndarray, where: str) -> None:
    """Raises ValueError where one of these responses is broken, bool[B]; `where` names them, as in "of step 3"."""
    if broken.any():
        raise ValueError(
            f"{broken.sum()} of the {len(broken)} responses {where} have tokens whose log-probability is not finite: "
            "the policy's logits are infinite or not numbers, and its responses are noise. train/grad_norm and "
            "train/update_norm in metrics.jsonl show when this began. Continue from an earlier checkpoint with a "
            "smaller learning rate. If it happens from the first step on, try model.compute_dtype='float32'."
        )
