"""The decorator of every dataclass that passes through compiled functions."""

from __future__ import annotations

import dataclasses
import typing
from typing import TypeVar

import jax

T = TypeVar("T")


@typing.dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def pytree(cls: type[T]) -> type[T]:
    """Makes a class a frozen dataclass and a JAX pytree; a field with `metadata={"static": True}` is not traced."""
    return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True)(cls))
