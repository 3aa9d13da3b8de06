"""Calls run in their order; their errors are raised by the next `check` or `wait`."""

import threading
import time

import pytest

from prerl_jax.runtime.background import WAITING, Background


def test_calls_are_made_in_order_by_another_thread():
    made = []
    with Background("test") as background:
        for i in range(5):
            background.submit(lambda i=i: made.append((i, threading.current_thread().name)))
        background.wait()
        assert [i for i, _ in made] == [0, 1, 2, 3, 4]
    assert {name for _, name in made} == {"test_0"}


def test_an_error_is_raised_once_and_the_calls_after_it_are_made():
    made = []
    with Background("test") as background:
        background.submit(lambda: 1 / 0)
        background.submit(made.append, 1)
        with pytest.raises(ZeroDivisionError):
            background.wait()
        background.wait()
        background.check()
    assert made == [1]


def test_what_is_left_is_done_at_the_end_and_its_error_raised():
    with pytest.raises(ZeroDivisionError), Background("test") as background:
        background.submit(lambda: 1 / 0)


def test_an_error_on_its_way_is_not_replaced():
    made = []

    def fail():
        with Background("test") as background:
            background.submit(lambda: 1 / 0)
            background.submit(made.append, 1)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert made == [1]


def test_only_so_many_wait():
    gate, handed = threading.Event(), []
    with Background("test") as background:

        def hand_over():
            for i in range(WAITING + 1):
                background.submit(gate.wait)
                handed.append(i)

        thread = threading.Thread(target=hand_over)
        thread.start()
        while len(handed) < WAITING:
            time.sleep(0.001)
        thread.join(timeout=0.1)
        assert len(handed) == WAITING
        gate.set()
        thread.join()
        assert len(handed) == WAITING + 1
