"""Verification in worker processes: the same verdicts, hard deadlines, and no failure that goes unnoticed."""

import dataclasses
import multiprocessing
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import pytest

from prerl_jax.data import Problem
from prerl_jax.verify import FunctionVerifier, InProcessVerifier, VerifierError, VerifierPool, open_verifier, workers

PROBLEMS = [Problem("q", str(n)) for n in range(6)]


@pytest.fixture(scope="module")
def judge():
    """The function's verifier; its module is found by workers, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        yield FunctionVerifier("judges:judge")


@pytest.fixture(scope="module")
def pool(judge):
    with open_verifier(judge, workers=2, timeout=3.0) as verify:
        yield verify


def group_of(pid):
    """The process group of a process; None for one that is gone, or a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return None if state == "Z" else os.getpgid(pid)
    except OSError:
        return None


def test_the_same_verdicts_in_order_as_in_this_process(pool, judge):
    responses = ["is 0", "is 7", "slow 0.01", "is 3", "is 4", "platforms"]
    truncated = [False, False, False, True, False, False]
    here = InProcessVerifier(judge)(PROBLEMS[:5], responses[:5], truncated[:5])
    there = pool(PROBLEMS, responses, np.array(truncated))
    np.testing.assert_array_equal(here.rewards, [1, 0, 0.5, 0, 1])
    np.testing.assert_array_equal(there.rewards, [*here.rewards, 1])
    assert there.rewards.dtype == np.float32
    assert not there.timed_out.any()
    assert pool([], [], []).rewards.shape == (0,)
    with pytest.raises(ValueError, match="6 problems, 1 responses and 6 truncation flags"):
        pool(PROBLEMS, ["is 0"], truncated)


def test_a_response_that_times_out_is_ended_with_all_it_started_and_the_others_go_on(pool, tmp_path):
    """One waits for a process of its own, one is in C code that does not let go of the interpreter."""
    responses = [f"sleep {tmp_path}/pid", "loop", "is 2", "is 3", "is 4", "is 5"]
    verified = pool(PROBLEMS, responses, [False] * 6)
    np.testing.assert_array_equal(verified.rewards, [0, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(verified.timed_out, [True, True, False, False, False, False])
    worker = int((tmp_path / "pid").read_text())
    processes = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    assert [pid for pid in processes if group_of(pid) == worker] == []


def test_a_worker_that_died_while_it_waited_is_replaced(judge):
    with open_verifier(judge, workers=1, timeout=60.0) as verify:
        verify(PROBLEMS[:1], ["is 0"], [False])
        (dead,) = verify.pids
        os.kill(dead, signal.SIGKILL)
        while dead in [process.pid for process in multiprocessing.active_children()]:
            time.sleep(0.01)
        np.testing.assert_array_equal(verify(PROBLEMS[:2], ["is 0", "is 1"], [False] * 2).rewards, [1, 1])
        assert verify.pids != [dead]


@pytest.mark.parametrize(
    ("response", "says"),
    [
        ("raise it", r"(?s)judges:judge.* failed on Problem\(.*answer='1'.*KeyError: 'it'"),
        ("exit", r"ended on Problem\(.*answer='1'.*, with exit code 7"),
    ],
)
def test_a_failure_ends_the_pool(judge, response, says):
    pool = VerifierPool(judge, 1, 60.0)
    (worker,) = pool.pids
    with pytest.raises(VerifierError, match=says):
        pool(PROBLEMS[:2], ["is 0", response], [False] * 2)
    assert group_of(worker) is None
    with pytest.raises(ValueError, match="closed"):
        pool(PROBLEMS[:1], ["is 0"], [False])


def test_closing_it_ends_a_call_on_another_thread(judge, tmp_path):
    """As when a run is interrupted: the call ends with an error, no worker is left, and none is started."""
    pool, started = VerifierPool(judge, 2, 600.0), tmp_path / "pid"
    processes = pool.pids
    with ThreadPoolExecutor(1) as thread:
        call = thread.submit(pool, PROBLEMS[:1], [f"sleep {started}"], [False])
        while not started.exists() and not call.done():  # until a worker has the response
            wait([call], timeout=0.05)
        pool.close()
        assert isinstance(call.exception(timeout=60), ValueError | VerifierError)
    assert [pid for pid in processes if group_of(pid) is not None] == []
    assert pool.pids == []


def test_a_call_in_this_process_ends_when_it_is_closed():
    def judge(problem, response):
        seen.append(response)
        verify.close()
        return 1.0

    seen, verify = [], InProcessVerifier(judge)
    with pytest.raises(ValueError, match="closed"):
        verify(PROBLEMS[:3], ["a", "b", "c"], [True, False, False])
    assert seen == ["b"]


def test_workers_that_never_start(judge, monkeypatch):
    monkeypatch.setattr(workers, "START_UP", 0.0)
    with open_verifier(judge, 1, 1.0) as verify, pytest.raises(VerifierError, match="has not imported"):
        verify(PROBLEMS[:1], ["is 0"], [False])


@dataclasses.dataclass(frozen=True)
class Closure:
    judge: object

    def __call__(self, problem, response):
        return self.judge(problem, response)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (
            lambda judge: VerifierPool(Closure(lambda problem, response: 1.0), 1, 1.0),
            "cannot be sent to another process",
        ),
        (lambda judge: VerifierPool(judge, 0, 1.0), "1 worker or more"),
        (lambda judge: VerifierPool(judge, 1, 0.0), "timeout above 0"),
    ],
)
def test_a_pool_that_cannot_be(judge, build, says):
    with pytest.raises(ValueError, match=says):
        build(judge)


def test_a_run_without_workers_verifies_here():
    with open_verifier(lambda problem, response: 1.0) as verify:
        assert verify(PROBLEMS[:1], ["x"], [False]).rewards == [1]
    assert isinstance(verify, InProcessVerifier)
