"""The checks of single fields that specs share."""

from __future__ import annotations


def require_one_of(name: str, value: str | None, allowed: tuple[str | None, ...]) -> None:
    """Raises ValueError for a value that is not one of its choices."""
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, allowed))}.")


def require_at_least(low: float, section: str, **values: float | None) -> None:
    """Raises ValueError for a value below `low`. None passes."""
    for field, value in values.items():
        if value is not None and not value >= low:
            raise ValueError(f"{section}{field} is {value}; it must be {low} or more.")


def require_seed(name: str, seed: int) -> None:
    """Raises ValueError for a seed that is not a u32."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"{name} is {seed}; it must be from 0 to 2**32 - 1 = {2**32 - 1}.")


def require_probability(name: str, value: float | None) -> None:
    """Raises ValueError for a probability that is not in (0, 1]. None passes."""
    if value is not None and not 0 < value <= 1:
        raise ValueError(f"{name} is {value}; it must be above 0 and at most 1 (None keeps every token).")
