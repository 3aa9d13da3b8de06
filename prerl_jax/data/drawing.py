"""How sources of generated problems draw them: by seed and number, all distinct, in splits that share no question."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import Any

from prerl_jax.data.field_types import require_types
from prerl_jax.data.problems import SPLITS, Problem, split_of

EVALUATION_ONE_IN = 5
"""One question in five belongs to evaluation. A constant, not a field: with two values the splits would overlap."""
ATTEMPTS = 2000
"""After this many attempts without a new question, there are taken to be no more."""

Drawn = tuple[str, Problem]
"""(what the question comes down to, without its wording; the problem)."""


def require_fields(source: Any, name: str, allowed: tuple[Any, ...]) -> None:
    """Checks the fields that sources of generated problems share.

    Args:
        source: a source with the fields `count`, `split`, `seed` and `name`.
        name: a field with distinct values out of `allowed`.
        allowed: the values, all of one type.

    Raises:
        ValueError: a field has another type, the count is below 1, the split is not one of the two, or the values of
            the field are others.
    """
    require_types(source)
    kind, values = type(source).__name__, getattr(source, name)
    if source.count < 1:
        raise ValueError(f"{kind} needs a count of at least 1, got {source.count!r}")
    if source.split not in SPLITS:
        raise ValueError(f"{kind}'s split must be one of {SPLITS}, got {source.split!r}")
    if not values or len(set(values)) < len(values) or not set(values) <= set(allowed):
        raise ValueError(f"{kind}'s {name} must be a tuple of distinct values out of {allowed}, got {values!r}")


def draw_problems(
    draw: Callable[[int, random.Random], Drawn | None], count: int, split: str, seed: int
) -> tuple[Problem, ...]:
    """Draws distinct problems. Problem i depends on the seed, on i and on the problems before it, not on the count.

    The hash of what a question comes down to decides its split. So the splits share no question, whatever the seeds,
    counts and wordings are.

    Args:
        draw: makes problem i with a random generator; None if this attempt has failed.
        count: how many problems.
        split: "train" or "evaluation".
        seed: any integer.

    Returns:
        `count` problems.

    Raises:
        ValueError: there are fewer than `count` distinct questions.
    """
    found: dict[str, Problem] = {}
    while len(found) < count:
        i = len(found)
        for attempt in range(ATTEMPTS):
            drawn = draw(i, random.Random(f"{seed} {split} {i} {attempt}"))
            if drawn is not None and drawn[0] not in found and split_of_question(drawn[0]) == split:
                found[drawn[0]] = drawn[1]
                break
        else:
            raise ValueError(
                f"only {i} distinct questions were found for {split}; {count} were asked for. Ask for fewer, or allow "
                "more kinds of questions or larger numbers"
            )
    return tuple(found.values())


def split_of_question(key: str) -> str:
    """The split of a question, by what it comes down to."""
    return split_of(hashlib.blake2b(key.encode(), digest_size=8).digest(), EVALUATION_ONE_IN)
