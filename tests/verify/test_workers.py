"""Verification in worker processes: the same verdicts, hard deadlines, and no failure that goes unnoticed."""

import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import pytest

from prerl_jax.data import Problem
from prerl_jax.verify import (
    BatchFunctionVerifier,
    CombinedReward,
    FunctionVerifier,
    InProcessVerifier,
    VerifierError,
    VerifierPool,
    Weighted,
    open_verifier,
    workers,
)

PROBLEMS = [Problem("q", str(n)) for n in range(6)]


@pytest.fixture(scope="module")
def judge():
    """The function's verifier; its module is found by workers, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        yield FunctionVerifier("judges:judge")


@pytest.fixture(scope="module")
def pool(judge):
    with open_verifier(judge, workers=2, timeout=3.0, memory=0.5) as verify:
        yield verify


def group_of(pid):
    """The process group of a process; None for one that is gone, or a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return None if state == "Z" else os.getpgid(pid)
    except OSError:
        return None


def verdicts(verified):
    return [judgement.verdict for judgement in verified.judgements]


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
    assert verdicts(verified) == ["unknown"] * 2 + ["right"] * 4
    np.testing.assert_array_equal(verified.timed_out, [True, True, False, False, False, False])
    assert verified.deaths == ()
    worker = int((tmp_path / "pid").read_text())
    processes = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    assert [pid for pid in processes if group_of(pid) == worker] == []


def test_a_response_that_ends_its_worker_is_unknown_and_the_others_go_on(pool):
    responses = ["exit", "segfault", "kill itself", "allocate", "sys.exit", "is 5"]
    verified = pool(PROBLEMS, responses, [False] * 6)
    assert verdicts(verified) == ["unknown"] * 5 + ["right"]
    np.testing.assert_array_equal(verified.rewards, [0, 0, 0, 0, 0, 1])
    assert not verified.timed_out.any()
    how = ["ended with exit code 7", "by signal 11", "by signal 9", "ran out of its 0.5 GiB", "ended with exit code 1"]
    said = sorted(verified.deaths, key=lambda line: line.partition("answer=")[2])
    assert [(a, b) for a, b in zip(how, said, strict=True) if a not in b] == []


@pytest.mark.slow
def test_a_process_that_has_escaped_ends_with_the_worker(pool, tmp_path):
    assert verdicts(pool(PROBLEMS[:1], [f"escape {tmp_path}/pid"], [False])) == ["unknown"]
    assert group_of(int((tmp_path / "pid").read_text())) is None


@pytest.mark.slow
def test_a_fork_that_comes_back_gives_no_second_answer(pool):
    responses = ["fork", "fork", "slow 0.3", "is 3", "is 7", "is 5"]
    np.testing.assert_array_equal(pool(PROBLEMS, responses, [False] * 6).rewards, [1, 1, 0.5, 1, 0, 1])


def test_output_is_thrown_away_input_is_empty_and_a_long_answer_is_cut(pool):
    verified = pool(PROBLEMS, ["print", "read", "answer", "value nothing", "is 4", "is 5"], [False] * 6)
    assert verdicts(verified) == ["right"] * 3 + ["unknown"] + ["right"] * 2
    assert verified.judgements[2].answer == "9" * 1000


@pytest.mark.slow
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
        *(
            pytest.param(
                f"value {value}", rf"^FunctionVerifier.*judges:judge.* returned {said}.*", marks=pytest.mark.slow
            )
            for value, said in [
                ("nan", "nan, which is not finite"),
                ("infinite", "-inf, which is not finite"),
                ("text", "a str, 'good'"),
                ("list", r"a list, '\[1.0\]'"),
                ("two", r"2.0, which is not in \[0, 1\]"),
            ]
        ),
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


@pytest.mark.slow
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


def test_workers_that_never_start(judge, monkeypatch):
    monkeypatch.setattr(workers, "START_UP", 0.0)
    with open_verifier(judge, 1, 1.0) as verify, pytest.raises(VerifierError, match="has not imported its verifier"):
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
        (lambda judge: VerifierPool(judge, 1, 0.0), "timeout and memory above 0"),
        (lambda judge: VerifierPool(judge, 1, 1.0, memory=0.0), "timeout and memory above 0"),
    ],
)
def test_a_pool_that_cannot_be(judge, build, says):
    with pytest.raises(ValueError, match=says):
        build(judge)


@pytest.mark.slow
def test_a_worker_whose_keeper_is_killed_is_replaced(judge):
    with open_verifier(judge, workers=1, timeout=60.0) as verify:
        verified = verify(PROBLEMS[:2], ["kill keeper", "is 1"], [False] * 2)
    assert verdicts(verified) == ["unknown", "right"]
    assert ["answer='0'" in line for line in verified.deaths] == [True]


@pytest.mark.slow
def test_a_verifier_that_a_worker_cannot_import(judge, monkeypatch):
    monkeypatch.setenv("JUDGES_FAIL", "1")
    says = r"(?s)could not import.*this module is not for workers"
    with open_verifier(judge, workers=1) as verify, pytest.raises(VerifierError, match=says):
        verify(PROBLEMS[:1], ["is 0"], [False])


@pytest.mark.slow
def test_a_response_has_a_deadline_of_its_own_where_it_is_verified_beside_a_batch(judge):
    """4 responses of 1 s each, with a deadline of 3 s for one."""
    verifier = CombinedReward((Weighted(judge), Weighted(BatchFunctionVerifier("judges:rest"), 0.0)))
    with open_verifier(verifier, workers=1, timeout=3.0) as verify:
        verified = verify(PROBLEMS[:4], ["slow 1"] * 4, [False] * 4)
    assert verified.known.all()


@pytest.mark.slow
@pytest.mark.parametrize("importing", [False, True])
def test_workers_end_with_the_trainer(tmp_path, monkeypatch, importing):
    """Also if it is killed in the middle of a call, or while a worker imports the verifier."""
    if importing:
        monkeypatch.setenv("JUDGES_SLEEP", str(tmp_path / "pid"))
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from prerl_jax.data import Problem
from prerl_jax.verify import FunctionVerifier, VerifierPool
if __name__ == "__main__":
    pool = VerifierPool(FunctionVerifier("judges:judge"), 1, 600.0)
    print(pool.pids[0], flush=True)
    pool([Problem("q", "0")], ["sleep {tmp_path}/pid"], [False])
"""
    (tmp_path / "trainer.py").write_text(script)
    trainer = subprocess.Popen([sys.executable, tmp_path / "trainer.py"], stdout=subprocess.PIPE, text=True)
    keeper = int(trainer.stdout.readline())
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.01)
    child = int((tmp_path / "pid").read_text())
    assert group_of(child) == child
    trainer.kill()
    trainer.communicate()
    while group_of(keeper) is not None:
        time.sleep(0.01)
    assert group_of(child) is None


@pytest.mark.slow
def test_a_batch_is_one_task_of_one_worker(judge):
    """The deadline holds for the batch: all its responses are unknown, and the other batches are not."""
    verifier = BatchFunctionVerifier("judges:judge_many", batch_size=2)
    with open_verifier(verifier, workers=2, timeout=3.0) as verify:
        verified = verify(
            PROBLEMS, ["is", "slow 600", "is", "is", "is", "exit"], [False, False, True, False, False, False]
        )
    assert verdicts(verified) == ["unknown", "unknown", "wrong", "right", "wrong", "unknown"]
    np.testing.assert_array_equal(verified.rewards, [0, 0, 0, 1, 0.5, 0])
    np.testing.assert_array_equal(verified.timed_out, [True, True, False, False, False, False])
    assert len(verified.deaths) == 1


@pytest.mark.slow
def test_rewards_of_any_size_and_of_truncated_responses(judge):
    with open_verifier(judge, 1, 60.0, any_reward=True, truncated_reward=-1.0) as verify:
        verified = verify(PROBLEMS[:2], ["value two", "is 1"], [False, True])
    np.testing.assert_array_equal(verified.rewards, [2, -1])
    assert verdicts(verified) == ["right", "wrong"]
