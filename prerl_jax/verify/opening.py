"""A verifier of batches for a run: in worker processes, or in the trainer's own process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from prerl_jax.verify.batch import Verifier, require_workers
from prerl_jax.verify.in_process import InProcessVerifier
from prerl_jax.verify.workers import VerifierPool


@contextlib.contextmanager
def open_verifier(
    verifier: Verifier,
    workers: int = 0,
    timeout: float = 10.0,
    *,
    memory: float = 4.0,
    any_reward: bool = False,
    truncated_reward: float = 0.0,
) -> Iterator[VerifierPool | InProcessVerifier]:
    """A verifier of many responses, closed at the end: (problems, responses, truncated) -> `Verified`.

    Args:
      verifier: verifies one response, or a batch.
      workers: processes; 0 verifies in this process, without a deadline and a limit on memory.
      timeout: seconds that a worker has for one response, or for one batch of a `BatchVerifier`. A batch in which
        another verifier is asked about each response has as many seconds for each, see `deadlines`.
      memory: GiB that each process of a worker may allocate, see `VerifierPool`.
      any_reward: whether rewards outside [0, 1] are accepted from a verifier that states no verdict, see `judged`.
      truncated_reward: the reward of a truncated response. It is wrong, and not verified.

    Raises ValueError if the verifier needs workers and there are none.
    """
    require_workers(verifier, workers)
    rules: dict[str, Any] = {"any_reward": any_reward, "truncated_reward": truncated_reward}
    verify: VerifierPool | InProcessVerifier
    if workers:
        verify = VerifierPool(verifier, workers, timeout, memory=memory, **rules)
    else:
        verify = InProcessVerifier(verifier, **rules)
    try:
        yield verify
    finally:
        verify.close()
