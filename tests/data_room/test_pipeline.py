"""The order of problems: permutations per epoch, the same global batch on any number of processes, exact resume."""

from __future__ import annotations

import itertools
import json
import threading

import numpy as np
import pytest

from prerl_jax.data import make_batches


def take(batches, count):
    return np.stack(list(itertools.islice(batches, count)))


def test_epochs_are_different_permutations_without_the_remainder():
    epochs = [take(make_batches(11, batch=3, seed=5), 9)[i : i + 3].ravel() for i in (0, 3, 6)]
    for epoch in epochs:
        assert len(set(epoch)) == 9
        assert set(epoch) <= set(range(11))
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert set(np.concatenate(epochs)) == set(range(11))  # what one epoch leaves over, another meets


def test_type_and_seed():
    first = next(make_batches(100, batch=10, seed=0))
    assert first.dtype == np.int32
    assert first.shape == (10,)
    assert (first == next(make_batches(100, batch=10, seed=0))).all()
    assert (first != next(make_batches(100, batch=10, seed=1))).any()


def test_neighbouring_seeds_are_not_each_other_s_epochs():
    # Grain counts the shuffle's own seed up by one an epoch: a seed used raw would repeat its neighbour's epochs.
    one, two = (take(make_batches(40, batch=40, seed=seed), 3) for seed in (7, 8))
    assert not any((a == b).all() for a in one for b in two)


@pytest.mark.parametrize("position", range(8))
def test_resume_is_exact_also_across_the_epoch_edge(position):
    expected = take(make_batches(11, batch=3, seed=5), 12)
    batches = make_batches(11, batch=3, seed=5)
    for _ in range(position):
        next(batches)
    state = json.loads(json.dumps(batches.get_state()))
    assert batches.epoch == position // 3
    assert (take(batches, 2) == expected[position : position + 2]).all()
    fresh = make_batches(11, batch=3, seed=5)
    fresh.set_state(state)
    assert fresh.get_state() == state
    assert (take(fresh, 4) == expected[position : position + 4]).all()
    batches.set_state(state)  # and backwards, on the one that went ahead
    assert (take(batches, 4) == expected[position : position + 4]).all()


@pytest.mark.parametrize(
    "change", [{"size": 21}, {"batch": 3}, {"seed": 3}, {"next_index": -1}, {"next_index": None}, {"next_index": "1"}]
)
def test_a_foreign_state_is_refused(change):
    batches = make_batches(20, batch=6, seed=2)
    with pytest.raises(ValueError, match="does not belong to this pipeline"):
        batches.set_state(batches.get_state() | change)
    with pytest.raises(ValueError, match="does not belong"):
        batches.set_state({})


def test_one_thread_has_the_next_batch_ready_and_the_position_does_not_count_it():
    before = set(threading.enumerate())
    batches = make_batches(50, batch=5, seed=0)
    take(batches, 30)
    assert len(set(threading.enumerate()) - before) == 1
    assert batches.position == 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 5, "batch": 6}, "a batch of 6 prompts cannot be drawn from 5 problems"),
        ({"size": 0, "batch": 1}, "from 0 problems"),
        ({"size": 5, "batch": 0}, "a batch of 0"),
        ({"size": 20, "batch": 6, "seed": -1}, "seed must be in"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_batches(**{"seed": 0} | arguments)
