"""Verifiers that call your own functions."""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Callable, Sequence
from typing import Any

from prerl_jax.data.problems import Problem
from prerl_jax.verify.batch import Answer


@dataclasses.dataclass(frozen=True)
class FunctionVerifier:
    """`FunctionVerifier("package.module:function")`: calls function(problem, response).

    The function returns a reward, a Judgement, or None for an unknown verdict.

    The function is imported when the config is built, so a wrong name ends a run before it starts. Its exceptions end a
    run, too: a reward that is silently 0 would train the model on it.

    Attributes:
        function: "package.module:function", importable by every process.

    Raises ValueError if the module cannot be imported, or has no such function.
    """

    function: str

    def __post_init__(self) -> None:
        _find(self.function)

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return type(self), (self.function,)  # so a worker imports the function at its start, not at its first response

    def __call__(self, problem: Problem, response: str) -> Answer:
        """What the function returns."""
        answer: Answer = _find(self.function)(problem, response)
        return answer


@dataclasses.dataclass(frozen=True)
class BatchFunctionVerifier:
    """`BatchFunctionVerifier("package.module:function")`: calls function(problems, responses), for many at once.

    The function gets two lists of the same length, and returns a sequence of that length: for each response a reward, a
    Judgement, or None for an unknown verdict. It is imported as that of a `FunctionVerifier`.

    In worker processes, each call has the deadline of one response. All its responses are unknown if it misses the
    deadline, or if its process ends.

    Attributes:
        function: "package.module:function", importable by every process.
        batch_size: the most responses of one call, 1 or more; None for all that are there.

    Raises ValueError if the module cannot be imported or has no such function, or for a batch size below 1.
    """

    function: str
    batch_size: int | None = None

    def __post_init__(self) -> None:
        _find(self.function)
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"BatchFunctionVerifier.batch_size is {self.batch_size}; it must be 1 or more, or None.")

    def __reduce__(self) -> tuple[type, tuple[str, int | None]]:
        return type(self), (self.function, self.batch_size)

    def verify_batch(self, problems: Sequence[Problem], responses: Sequence[str]) -> Sequence[Answer]:
        """What the function returns."""
        answers: Sequence[Answer] = _find(self.function)(problems, responses)
        return answers


@functools.cache
def _find(name: str) -> Callable[..., Any]:
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
