"""Which responses are verified together, and how long they may take."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prerl_jax.data.problems import Problem
from prerl_jax.verify.batch import BatchVerifier, Verifier, VerifierError, leaves_of


def batches(verifier: Verifier, problems: Sequence[Problem], rows: Sequence[int]) -> list[list[int]]:
    """The batches in which responses are verified: each row alone, or rows together where a `BatchVerifier` is asked.

    The same verifiers are asked about all rows of a batch. So a response that ends its worker never takes a response
    with it that another verifier verifies.

    Args:
        verifier: verifies the responses.
        problems: the problems of all rows.
        rows: the rows to verify.

    Raises VerifierError for a `batch_size` that is no number of 1 or more.
    """
    all_batches: list[list[int]] = []
    unfinished: dict[tuple[int, ...], list[int]] = {}
    for row in rows:
        leaves = leaves_of(verifier, problems[row])
        size = min((_batch_size(leaf, len(rows)) for leaf in leaves if isinstance(leaf, BatchVerifier)), default=1)
        asked = tuple(id(leaf) for leaf in leaves)  # a user's verifier may have no hash
        if asked not in unfinished:
            unfinished[asked] = []
            all_batches.append(unfinished[asked])
        unfinished[asked].append(row)
        if len(unfinished[asked]) >= size:
            del unfinished[asked]
    return all_batches


def deadlines(verifier: Verifier, problems: Sequence[Problem]) -> int:
    """How many times the deadline of one response a batch of `batches` has.

    It is the number of its responses where a verifier is asked about each by itself, as a part of a `CombinedReward`
    with a `BatchVerifier` is; else 1.
    """
    one_by_one = any(not isinstance(leaf, BatchVerifier) for leaf in leaves_of(verifier, problems[0]))
    return len(problems) if one_by_one else 1


def _batch_size(verifier: BatchVerifier, unlimited: int) -> int:
    if not hasattr(verifier, "batch_size") or verifier.batch_size is None:
        return unlimited
    size = verifier.batch_size
    if not isinstance(size, int | np.integer) or size < 1:
        raise VerifierError(f"batch_size of {verifier} is {size!r}; it must be a whole number of 1 or more, or None.")
    return int(size)
