"""Verification in the trainer's process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prerl_jax.data.problems import Problem
from prerl_jax.verify.batch import Verifier, VerifierError, judgements_of, on, require_same_length
from prerl_jax.verify.batches import batches
from prerl_jax.verify.judgement import UNKNOWN, Verified, truncated_judgement

CLOSED = "this verifier has been closed."


class InProcessVerifier:
    """Verifies in this process: for verifiers whose time and memory are linear in the length of the response.

    There is no deadline: a verifier that hangs makes the run hang. There is no limit on memory, and a verifier that
    crashes, or calls `os._exit`, ends the run. A `VerifierPool` protects a run from all that.

    A run calls it on a thread, one call at a time. A verifier that needs the main thread, such as by `signal.alarm`,
    needs a `VerifierPool`, whose workers call it there.

    Args:
        verifier: verifies responses.
        any_reward: whether rewards outside [0, 1] are accepted from a verifier that states no verdict, see `judged`.
        truncated_reward: the reward of a truncated response.
    """

    def __init__(self, verifier: Verifier, *, any_reward: bool = False, truncated_reward: float = 0.0):
        self._verifier, self._any_reward, self._closed = verifier, any_reward, False
        self._truncated = truncated_judgement(truncated_reward)

    def __call__(self, problems: Sequence[Problem], responses: Sequence[str], truncated: Sequence[bool]) -> Verified:
        """The verdicts on B responses. A truncated one is wrong whatever it contains, and is not verified.

        Raises:
            ValueError: lengths differ, or it is closed, also in the middle of a call.
            VerifierError: the verifier raised an exception, called `sys.exit`, or returned what is no judgement.
        """
        require_same_length(problems, responses, truncated)
        judgements = [self._truncated if cut else UNKNOWN for cut in truncated]
        for rows in batches(self._verifier, problems, [row for row, cut in enumerate(truncated) if not cut]):
            if self._closed:
                raise ValueError(CLOSED)
            asked = [problems[row] for row in rows]
            try:
                found = judgements_of(self._verifier, asked, [responses[row] for row in rows], self._any_reward)
            except (MemoryError, SystemExit) as error:
                raise VerifierError(f"{self._verifier} raised {error!r}{on(asked)}.") from error
            for row, judgement in zip(rows, found, strict=True):
                judgements[row] = judgement
        return Verified(judgements, np.zeros(len(judgements), bool))

    def close(self) -> None:
        """Ends a call on another thread after its current batch."""
        self._closed = True
