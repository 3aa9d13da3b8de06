"""The scheduler: which row each slot decodes, and the tokens of every row."""

import numpy as np

from prerl_jax import Prompts
from prerl_jax.rollout.decode import Drawn
from prerl_jax.rollout.scheduler import SlotScheduler


def test_rows_take_free_slots_in_order_and_keep_their_tokens():
    """Two shards of two prompts, groups of 2, three slots each."""
    given = Prompts(np.zeros((4, 1), np.int32), np.ones((4, 1), bool), np.array([5, 6, 7, 8]), np.array([0, 0, 4, 0]))
    scheduler = SlotScheduler(given, 2, 6, 2, max_new_tokens=3)
    first = {name: x.tolist() for name, x in scheduler.assign().items()}
    assert first == {
        "prompt": [0, 0, 1, 0, 0, 1],
        "id": [5, 5, 6, 7, 7, 8],
        "sample": [0, 1, 0, 4, 5, 0],
        "fresh": [True] * 6,
        "waiting": [1, 1],
    }
    mask = np.array([[1, 1], [1, 0], [1, 1], [1, 1], [1, 1], [1, 1]], bool)
    tokens = np.where(mask, np.arange(1, 13).reshape(6, 2), 0)
    rows = scheduler.rows_in_slots()
    completed = scheduler.complete(rows, np.array([0, 1, 0, 0, 0, 1], bool))
    scheduler.record(rows, Drawn(tokens, tokens / 10, mask))
    assert completed.tolist() == [1, 6]
    assert [x.tolist() for x in scheduler.responses(completed)] == [[1, 6], [[3, 0, 0], [11, 12, 0]], [1, 2]]
    second = scheduler.assign()
    assert second["fresh"].tolist() == [False, True, False, False, False, True]
    assert (second["id"].tolist(), second["sample"].tolist()) == ([5, 6, 6, 7, 7, 8], [0, 1, 0, 4, 5, 1])
    assert second["waiting"].tolist() == [0, 0]
    more = np.array([[0, 9]] * 6)
    rows = scheduler.rows_in_slots()
    completed = scheduler.complete(rows, np.array([1, 1, 0, 1, 1, 0], bool))
    assert completed.tolist() == [0, 3, 4, 5]
    which, prompt = scheduler.compact(2)
    scheduler.record(rows, Drawn(more, more, more > 0))
    again = scheduler.complete(rows, np.array([1, 1, 0, 1, 1, 1], bool))
    assert again.tolist() == [7], "a completed row is not returned a second time"
    assert (which.tolist(), prompt.tolist()) == ([2, 2], [1, 1])
    assert scheduler.rollouts().response[:4].tolist() == [[1, 2, 9], [3, 0, 0], [5, 6, 9], [9, 0, 0]]
