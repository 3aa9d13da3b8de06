"""Programs: the response's code passes the problem's tests, in a sandbox. See docs/code.md.

The sandbox learns the inputs of a test, and never the expected result. Results are compared here, as texts or as JSON.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prerl_jax.data.problems import Problem
from prerl_jax.verify.batch import VerifierTraits
from prerl_jax.verify.judgement import UNKNOWN, Judgement
from prerl_jax.verify.sandbox import MIB, Sandbox, SandboxError

_FENCE = re.compile(r" {0,3}(`{3,})([^`]*)")
_PYTHON = ("python", "python3", "py")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


@dataclasses.dataclass(frozen=True)
class InputTest:
    """A test of a whole program: what it reads, and what it must write."""

    stdin: str
    stdout: str


@dataclasses.dataclass(frozen=True)
class CallTest:
    """A test of a function, or of a method "Class.method": its arguments, and what it must return, as JSON values."""

    call: str
    args: tuple[Any, ...]
    expected: Any


@dataclasses.dataclass(frozen=True)
class CodeTests:
    """Right if the response's program passes all tests of the problem: the reward is 1.0, else 0.0.

    The program is the last fenced block of Python, see `program_of`. The problem's metadata has `tests`: a list of
    {"stdin": text, "stdout": text} and {"call": name, "args": list, "expected": value}, or the JSON text of that list.
    A program that fails, writes something else, or uses up its time or memory is wrong. If the sandbox itself fails,
    which a warning says, the verdict is unknown.

    Attributes:
        sandbox: where programs run, and their limits. Each "stdin" is a run of its own; all calls together are one run.
        partial: the reward of a wrong response is the share of the tests that it passes, instead of 0.0.
        tolerance: a number that is expected with a decimal point or an exponent is met if the difference is at most
            this, or this share of the larger one.

    Raises ValueError for a tolerance outside [0, 1).
    """

    sandbox: Sandbox = Sandbox()
    partial: bool = False
    tolerance: float = 0.0

    traits = VerifierTraits(reads_answer=False)

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"CodeTests.tolerance must be in [0, 1), got {self.tolerance}.")

    def __call__(self, problem: Problem, response: str) -> Judgement:
        """The judgement of one response.

        Raises:
            ValueError: the problem has no tests, or malformed ones.
            IsolationError: this machine cannot isolate programs.
        """
        tests = tests_of(problem)
        self.sandbox.require()
        program = program_of(response)
        if program is None:
            return Judgement(0.0, "wrong", format_ok=False)
        try:
            passed = 0
            for ok in self._results(tests, program):
                passed += ok
                if not ok and not self.partial:
                    break
        except SandboxError as error:
            warnings.warn(f"the verdict on a program is unknown: {error}", stacklevel=2)
            return UNKNOWN
        if passed == len(tests):
            return Judgement(1.0, "right", format_ok=True)
        return Judgement(passed / len(tests) if self.partial else 0.0, "wrong", format_ok=True)

    def check(self, problem: Problem) -> None:
        """Checks a problem and this machine.

        Raises:
            ValueError: the problem has no tests, malformed ones, or ones that are too large for the sandbox's limits.
            IsolationError: this machine cannot isolate programs.
        """
        tests = tests_of(problem)
        inputs = [test for test in tests if isinstance(test, InputTest)]
        replies = "\n".join(json.dumps(test.expected) for test in tests if isinstance(test, CallTest))
        _require_room("stdin of a test", [test.stdin for test in inputs], self.sandbox.disk * MIB // 2, "disk")
        _require_room("stdout of a test", [test.stdout for test in inputs], self.sandbox.output * MIB // 2, "output")
        _require_room("expected values", [replies], self.sandbox.output * MIB // 2, "output")
        self.sandbox.require()

    def write(self, problem: Problem) -> str | None:
        """A response with the program in the problem's metadata `solution`; None if there is none."""
        solution = problem.metadata.get("solution")
        if not isinstance(solution, str):
            return None
        fence = "`" * max([3, *(1 + len(run) for run in re.findall("`+", solution))])
        return f"{fence}python\n{solution}\n{fence}"

    def _results(self, tests: Sequence[InputTest | CallTest], program: str) -> Iterator[bool]:
        """Whether the program passes each test: first the calls, then the inputs. Runs no more than is asked for."""
        calls = [test for test in tests if isinstance(test, CallTest)]
        if calls:
            run = self.sandbox.run(program, calls=[(test.call, test.args) for test in calls])
            replies = [*run.output.split(b"\n")[:-1], *[b""] * len(calls)]
            for call, reply in zip(calls, replies, strict=False):
                yield returned(reply, call.expected, self.tolerance)
        for test in (test for test in tests if isinstance(test, InputTest)):
            run = self.sandbox.run(program, test.stdin)
            yield run.status == 0 and printed(run.output, test.stdout, self.tolerance)


def _require_room(what: str, texts: Sequence[str], limit: int, field: str) -> None:
    largest = max((len(text.encode()) for text in texts), default=0)
    if largest > limit:
        raise ValueError(f"the {what} has {largest} bytes, and half of Sandbox.{field} is {limit}; allow more")


def program_of(response: str) -> str | None:
    """The program in a response: its last closed block ```python, or, if there is none, its last block without a name.

    A block begins with a line of three or more backticks, and ends with a line of at least as many. The names python,
    python3 and py are read in small and capital letters.

    Returns:
        The program; None if there is no such block.
    """
    named = unnamed = opened = None
    body: list[str] = []
    for line in response.split("\n"):
        fence = _FENCE.fullmatch(line.rstrip())
        if opened is None:
            opened, body = fence, []
        elif fence and not fence[2] and len(fence[1]) >= len(opened[1]):
            name = opened[2].split()[:1]
            if name and name[0].lower() in _PYTHON:
                named = "\n".join(body)
            elif not name:
                unnamed = "\n".join(body)
            opened = None
        else:
            body.append(line)
    return unnamed if named is None else named


def tests_of(problem: Problem) -> list[InputTest | CallTest]:
    """The tests in a problem's metadata.

    Raises ValueError if there are none, or one is malformed.
    """
    tests = problem.metadata.get("tests")
    if isinstance(tests, str):
        try:
            tests = json.loads(tests)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the metadata `tests` is text, but not JSON: {error}") from error
    if not isinstance(tests, Sequence) or not tests:
        raise ValueError(f"the metadata `tests` must be a list of one test or more, got {str(tests)[:80]!r}")
    return [_test(index, test) for index, test in enumerate(tests)]


def _test(index: int, test: Any) -> InputTest | CallTest:
    # A table has all columns in all rows: a null is a missing key, except as an expected result.
    given = {k for k, value in test.items() if value is not None} if isinstance(test, Mapping) else set()
    if {"stdin", "stdout"} <= given and not given & {"call", "args", "expected"}:
        if isinstance(test["stdin"], str) and isinstance(test["stdout"], str):
            return InputTest(test["stdin"], test["stdout"])
    elif {"call", "args"} <= given and "expected" in test and not given & {"stdin", "stdout"}:
        names = test["call"].split(".") if isinstance(test["call"], str) else []
        if len(names) in (1, 2) and all(n.isidentifier() for n in names) and isinstance(test["args"], list | tuple):
            args, expected = _plain(index, [list(test["args"]), test["expected"]])
            return CallTest(test["call"], tuple(args), expected)
    raise ValueError(
        f'test {index} (counted from 0) must be {{"stdin": text, "stdout": text}} or {{"call": "function" or '
        f'"Class.method", "args": list, "expected": value}}, got {str(test)[:200]}'
    )


def _plain(index: int, values: Any) -> Any:
    """The values as JSON has them."""
    try:
        return json.loads(json.dumps(values, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"test {index} (counted from 0) has a value that JSON cannot write: {error}") from error


def printed(output: bytes, expected: str, tolerance: float = 0.0) -> bool:
    """Whether a program's output is the expected text in UTF-8.

    White space at the ends of lines, and empty lines at the end, do not count.
    """
    try:
        text = output.decode()
    except UnicodeDecodeError:
        return False
    lines, wanted = ([line.rstrip() for line in one.rstrip().split("\n")] for one in (text, expected))
    if lines == wanted:
        return True
    if not tolerance or len(lines) != len(wanted):
        return False
    rows = zip((line.split() for line in lines), (line.split() for line in wanted), strict=True)
    return all(len(f) == len(e) and all(map(_same_word, f, e, itertools.repeat(tolerance))) for f, e in rows)


def _same_word(found: str, expected: str, tolerance: float) -> bool:
    if found == expected or not (_NUMBER.fullmatch(found) and _NUMBER.fullmatch(expected)):
        return found == expected
    fraction = any(mark in expected for mark in ".eE")
    return fraction and math.isclose(float(found), float(expected), rel_tol=tolerance, abs_tol=tolerance)


def returned(reply: bytes, expected: Any, tolerance: float = 0.0) -> bool:
    """Whether a reply is JSON that equals the expected value.

    Lists and tuples are equal, and so are 1 and 1.0, but not 1 and true. NaN and Infinity
    equal nothing: no test expects them.
    """
    try:
        return _same(json.loads(reply.decode("ascii")), expected, tolerance)
    except (ValueError, RecursionError, OverflowError):
        return False


def _same(found: Any, expected: Any, tolerance: float) -> bool:
    match expected:
        case list():
            same_length = isinstance(found, list) and len(found) == len(expected)
            return same_length and all(_same(f, e, tolerance) for f, e in zip(found, expected, strict=True))
        case dict():
            same_keys = isinstance(found, dict) and found.keys() == expected.keys()
            return same_keys and all(_same(found[key], e, tolerance) for key, e in expected.items())
        case bool() | None:
            return found is expected
        case float():
            number = isinstance(found, int | float) and not isinstance(found, bool)
            return number and math.isclose(found, expected, rel_tol=tolerance, abs_tol=tolerance)
        case int():
            return found == expected and not isinstance(found, bool)
    return found == expected
