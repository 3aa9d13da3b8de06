"""Programs against tests: which program a response holds, which tests a problem holds, and which results are equal."""

import os

import pytest

from prerl_jax.data import Problem
from prerl_jax.verify import CodeTests, IsolationError, Sandbox, open_verifier, usable
from prerl_jax.verify.code_tests import printed, program_of, returned, tests_of

tests_of.__test__ = False
NEGATE = [{"call": "negate", "args": [3], "expected": -3}, {"call": "negate", "args": [-2], "expected": 2}]
DOUBLE = [{"stdin": "4\n", "stdout": "8\n"}, {"stdin": "5\n", "stdout": "10\n"}]


def problem(tests, **metadata):
    return Problem("q", "tests", metadata={"tests": tests, **metadata})


def fenced(program):
    return f"Here it is.\n```python\n{program}\n```\n"


@pytest.fixture
def verifier(isolation):
    return CodeTests()


@pytest.mark.parametrize(
    ("response", "program"),
    [
        ("```python\nx = 1\n```", "x = 1"),
        ("a\n```py\nx\n```\nb\n```Python3\ny\n  z\n```\nc", "y\n  z"),
        ("```\nx\n```\n", "x"),
        ("```\nx\n```\n```\ny\n```", "y"),
        ("```python\nx\n```\nIt prints\n```\n3\n```", "x"),
        ("```python\nx\n```\n```text\n3\n```", "x"),
        ("```text\n3\n```", None),
        ("```python\nx", None),
        ("```python\nx\n```\n```python\ny", "x"),
        ("x = 1", None),
        ("", None),
        ("`x` and ```x```", None),
        ("````python\n```\nx\n```\n````", "```\nx\n```"),
        ("   ```python\nx\n  ```", "x"),
        ("    ```python\nx\n    ```", None),
        ("```python\r\nx\r\n```\r\n", "x\r"),
        ("```python title='a'\nx\n```", "x"),
        ("```python\n```", ""),
        ("```python\nx = '''\n```python\n'''\n```", "x = '''\n```python\n'''"),
        ("```" + " " * 300_000 + "`", None),
        ("```" + "a" * 300_000 + "`\n" + "`" * 300_000, None),
    ],
)
def test_the_program_is_the_last_closed_block_of_python(response, program):
    assert program_of(response) == program


def test_tests_are_a_list_or_its_json_and_nulls_are_missing_keys():
    (plain,) = tests_of(problem([{"stdin": "", "stdout": "1"}]))
    assert (plain.stdin, plain.stdout) == ("", "1")
    call, both = tests_of(
        problem('[{"call": "A.f", "args": [1], "expected": null}, {"call": null, "stdin": "a", "stdout": "b"}]')
    )
    assert (call.call, call.args, call.expected) == ("A.f", (1,), None)
    assert both.stdin == "a"
    assert tests_of(problem([{"call": "f", "args": ((1, 2),), "expected": (3,)}]))[0].expected == [3]


@pytest.mark.parametrize(
    ("tests", "says"),
    [
        (None, "`tests` must be a list"),
        ([], "`tests` must be a list"),
        ({}, "`tests` must be a list"),
        ("[", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("7", "`tests` must be a list"),
        (["assert f(1) == 2"], "test 0 "),
        ([None], "test 0 "),
        ([*DOUBLE, {"stdin": "1"}], "test 2 "),
        ([{"stdin": ["1"], "stdout": "1"}], "test 0 "),
        ([{"stdin": "1", "stdout": 1}], "test 0 "),
        ([{"stdin": "1", "stdout": "1", "call": "f"}], "test 0 "),
        ([{"call": "f", "args": 1, "expected": 1}], "test 0 "),
        ([{"call": "f", "args": [1]}], "test 0 "),
        ([{"call": "f(", "args": [1], "expected": 1}], "test 0 "),
        ([{"call": "a.b.c", "args": [1], "expected": 1}], "test 0 "),
        ([{"call": 1, "args": [1], "expected": 1}], "test 0 "),
        ([{"call": "f", "args": [{1}], "expected": 1}], "JSON cannot write"),
        ([{"call": "f", "args": [], "expected": float("nan")}], "JSON cannot write"),
        ([{"stdin": "\ud800", "stdout": "1"}], "surrogates"),
        ([{"stdin": "x" * 2**24, "stdout": "1"}], "half of Sandbox.disk"),
        ([{"stdin": "1", "stdout": "x" * 2**20}], "half of Sandbox.output"),
        ([{"call": "f", "args": [n], "expected": "x" * 2**10} for n in range(600)], "half of Sandbox.output"),
    ],
)
def test_a_problem_with_malformed_tests_is_refused(tests, says):
    with pytest.raises(ValueError, match=says):
        CodeTests().check(problem(tests))


@pytest.mark.parametrize(
    ("output", "expected", "tolerance", "same"),
    [
        (b"1 2\n", "1 2", 0.0, True),
        (b"1 2  \r\n3\n\n\n", "1 2\n3", 0.0, True),
        (b"1  2", "1 2", 0.0, False),
        (b"\n1", "1", 0.0, False),
        (b"1\n2", "2\n1", 0.0, False),
        (b"", "1", 0.0, False),
        (b"", "", 0.0, True),
        ("ä".encode(), "ä", 0.0, True),
        (b"\xff", "\ufffd", 0.0, False),
        (b"PASS", "1", 0.0, False),
        (b"0.30000000000000004", "0.3", 0.0, False),
        (b"0.30000000000000004 a", "0.3 a", 1e-9, True),
        (b"1000001", "1000000.0", 1e-5, True),
        (b"8", "7", 0.5, False),
        (b"0.3\n0.3", "0.3", 0.5, False),
        (b"0.3 0.3", "0.3", 0.5, False),
        (b"nan", "0.5", 0.5, False),
        (b"1e999", "0.5", 0.5, False),
        (b"inf", "1e999", 0.5, False),
        (b"1" * 300_000 + b"x", "0.5", 0.5, False),
        (b"1" * 300_000, "0.5", 0.5, False),
    ],
)
def test_a_printed_result(output, expected, tolerance, same):
    assert printed(output, expected, tolerance) is same


@pytest.mark.parametrize(
    ("reply", "expected", "same"),
    [
        (b"1", 1, True),
        (b"1.0", 1, True),
        (b"1", 1.0, True),
        (b"1e0", 1, True),
        (b"true", 1, False),
        (b"1", True, False),
        (b"true", True, True),
        (b"0", None, False),
        (b"false", None, False),
        (b"null", None, True),
        (b'"1"', 1, False),
        (b'"a"', "a", True),
        (b'"\\ud800"', "a", False),
        (b'"\\ud800"', "\ud800", True),
        (b"[1, [2]]", [1, [2]], True),
        (b"[1, 2]", [2, 1], False),
        (b"[1]", [1, 1], False),
        (b'{"0": 1, "1": 1}', [1, 1], False),
        (b'{"b": 1, "a": [2]}', {"a": [2], "b": 1}, True),
        (b'{"a": [2], "b": 1, "c": 0}', {"a": [2], "b": 1}, False),
        (b"NaN", 1.5, False),
        (b"Infinity", 1.5, False),
        (b"-Infinity", 1, False),
        (b"1e999", 1.5, False),
        (b"9" * 400, 1.5, False),
        (b"9" * 100_000, 1, False),
        (b"1.5000000001", 1.5, True),
        (b"1.6", 1.5, False),
        (b"1 2", 1, False),
        (b"1]", 1, False),
        (b"", 1, False),
        (b"\xff", 1, False),
        ("\u0661".encode(), 1, False),
        (b"[" * 100_000, [], False),
        (b"[" * 100_000 + b"]" * 100_000, [[]], False),
        (b'{"a":' * 100_000, {}, False),
        (b"1" + b"0" * 4000 + b".5", 1.5, False),
    ],
)
def test_a_returned_result(reply, expected, same):
    assert returned(reply, expected, tolerance=1e-6) is same


def test_the_share_of_tests_and_the_verdict(verifier):
    half = fenced("def negate(x):\n    if x > 0: return -x\n    raise KeyError")
    assert verifier(problem(NEGATE), half) == CodeTests()(problem(NEGATE), half)
    judgement = CodeTests(partial=True)(problem(NEGATE), half)
    assert (judgement.reward, judgement.verdict, judgement.format_ok) == (0.5, "wrong", True)
    judgement = verifier(problem(NEGATE), half)
    assert (judgement.reward, judgement.verdict) == (0.0, "wrong")
    judgement = verifier(problem(NEGATE), "no code")
    assert (judgement.reward, judgement.verdict, judgement.format_ok) == (0.0, "wrong", False)
    both = fenced("def negate(x): return -x\nif __name__ == '__main__': print(2 * int(input()))")
    judgement = verifier(problem(NEGATE + DOUBLE), both)
    assert (judgement.reward, judgement.verdict, judgement.format_ok) == (1.0, "right", True)
    judgement = CodeTests(partial=True)(problem(NEGATE + DOUBLE), fenced("print(8); exit()"))
    assert (judgement.reward, judgement.verdict) == (0.25, "wrong")


def test_methods_prints_and_arguments(verifier):
    tests = [{"call": "Solution.push", "args": [[1], "ä\n"], "expected": [1, "ä\n"]}] * 2
    program = """
class Solution:
    def push(self, a, b):
        print('[]', flush=True)
        a.append(b)
        return tuple(a)
"""
    assert verifier(problem(tests), fenced(program)).verdict == "right"


def test_the_known_solution_is_a_right_response(verifier):
    solution = 'def negate(x):\n    """```"""\n    return -x'
    assert verifier(problem(NEGATE), verifier.write(problem(NEGATE, solution=solution))).verdict == "right"
    assert verifier.write(problem(NEGATE)) is None


def test_a_failing_sandbox_is_unknown_and_says_so(verifier, monkeypatch):
    monkeypatch.setenv("TMPDIR", "/nowhere")
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    with pytest.warns(UserWarning, match="unknown.*nowhere"):
        assert verifier(problem(NEGATE), fenced("def negate(x): return -x")).verdict == "unknown"


def test_a_machine_without_isolation_is_refused_before_the_run(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "s390x")
    with pytest.raises(IsolationError, match=r"s390x.*isolation=\"none\""):
        usable(CodeTests(Sandbox(processes=9)), [problem(NEGATE)])
    trusting = CodeTests(Sandbox(isolation="none"))
    trusting.check(problem(NEGATE))
    assert trusting(problem(DOUBLE), fenced("print(2 * int(input()))")).verdict == "right"


def test_a_tolerance_out_of_range_is_refused():
    with pytest.raises(ValueError, match="tolerance"):
        CodeTests(tolerance=1.0)


@pytest.mark.slow
def test_in_workers_and_in_this_process(verifier):
    responses = [fenced(f"print({n} * int(input()))") for n in (2, 3, 2)]
    for workers in (0, 2):
        with open_verifier(verifier, workers, timeout=60.0) as verify:
            verified = verify([problem(DOUBLE)] * 3, responses, [False] * 3)
            assert [judgement.verdict for judgement in verified.judgements] == ["right", "wrong", "right"]


@pytest.mark.slow
def test_random_responses_are_judged(verifier):
    """Bytes of a seed, as text with surrogates, as a program and around one."""
    for seed in range(20):
        noise = os.urandom(200 + seed).decode("utf-8", "surrogateescape")
        assert verifier(problem(NEGATE), fenced(noise)).verdict == "wrong"
        assert verifier(problem(NEGATE), noise + "\n" + fenced("def negate(x): return -x")).verdict in (
            "right",
            "wrong",
        )
