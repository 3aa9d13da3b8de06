"""A verifier that calls your own function."""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Callable

from prerl_jax.data.problems import Problem
from prerl_jax.verify.batch import Answer


@dataclasses.dataclass(frozen=True)
class FunctionVerifier:
    """`FunctionVerifier("package.module:function")`: calls function(problem, response).

    The function returns a reward, a Judgement, or None for an unknown verdict.

    The function is imported when the config is built, so a wrong name ends a run before it starts. Its exceptions are
    not caught: a reward that is silently 0 would train the model on it.

    Attributes:
        function: "package.module:function", importable by every process.

    Raises ValueError if the module cannot be imported, or has no such function.
    """

    function: str

    def __post_init__(self) -> None:
        _find(self.function)

    def __call__(self, problem: Problem, response: str) -> Answer:
        """What the function returns."""
        return _find(self.function)(problem, response)


@functools.cache
def _find(name: str) -> Callable[[Problem, str], Answer]:
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute.isidentifier():
        raise ValueError(f"a verifier function is named 'package.module:function', got {name!r}")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(
            f"cannot import {module_name!r} for the verifier {name!r}: {error}; is it installed, or on PYTHONPATH?"
        ) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        have = sorted(key for key, item in vars(module).items() if callable(item) and not key.startswith("_"))
        raise ValueError(f"{module_name!r} has no function {attribute!r} for the verifier {name!r}; it has {have}")
    return function
