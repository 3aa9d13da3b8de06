"""Moving slots and rings: contents stay, rows stay within their shard."""

import jax.numpy as jnp
import numpy as np

from prerl_jax.models.cache import Cache, Held
from prerl_jax.rollout.cache_rings import (
    active_first,
    grow_ring,
    put_by_shard,
    ring_length,
    select_slots,
    take_by_shard,
)
from prerl_jax.rollout.decode import Slots, empty_slots


def cache(slots: int, length: int, prompts: int) -> Cache:
    """One layer, one head of size 1: a slot's key in column c is 10 * slot + c, its value the negative of it."""
    key = (10.0 * jnp.arange(slots)[:, None] + jnp.arange(length))[:, None, None, :]
    prompt = jnp.arange(float(prompts))[:, None, None, None]
    mask = jnp.ones((prompts, 1), bool)
    return Cache(Held(prompt, None), Held(-prompt, None), mask, Held(key, None), Held(-key.swapaxes(-1, -2), None))


def test_a_longer_ring_begins_with_the_oldest_column():
    """After 5 steps in a ring of 3, column 5 % 3 = 2 holds the oldest token; the next step writes column 3."""
    held = cache(2, 3, 2)
    clock, key, value = grow_ring((jnp.int32(5), held.key, held.value), (3, 7))
    assert (int(clock), ring_length(key)) == (3, 7)
    expected = [[2, 0, 1, 0, 0, 0, 0], [12, 10, 11, 0, 0, 0, 0]]
    np.testing.assert_array_equal(key.data[:, 0, 0], expected)
    np.testing.assert_array_equal(-value.data[:, 0, :, 0], expected)


def test_rows_are_taken_and_put_within_their_shard():
    rows, index = jnp.arange(6) * 10, jnp.array([2, 0, 1, 1])  # two shards of three rows
    taken = take_by_shard(rows, index, 2)
    assert taken.tolist() == [20, 0, 40, 40]
    layers = jnp.stack([rows, rows + 1])[:, :, None, None, None]  # [L, rows, ...]: rows are the second axis
    assert take_by_shard(layers, index, 2)[1].ravel().tolist() == [21, 1, 41, 41]
    assert put_by_shard(rows, jnp.array([1, 2]), jnp.array([1, 2]), 2).tolist() == [0, 1, 20, 30, 40, 2]


def test_active_slots_of_each_shard_come_first():
    done = jnp.array([True, False, True, False, True, True, True, False])
    slots = Slots(jnp.int32(0), jnp.arange(8), jnp.arange(8), done, None)
    assert active_first(slots, 4, 2).tolist() == [1, 3, 3, 0]


def test_selected_slots_get_a_prompt_of_their_own():
    """Slots 3 and 0, of prompts 1 and 0: a shared prompt is copied by prompt, a prompt of one's own by slot."""
    which, prompt = jnp.array([3, 0]), jnp.array([1, 0])
    for prompts, found in ((2, [1, 0]), (4, [3, 0])):
        few = select_slots(empty_slots(4, cache(4, 2, prompts), done=False), which, prompt, 1)
        assert few.cache.prompt_key.data.ravel().tolist() == found
        assert few.cache.key.data[:, 0, 0].tolist() == [[30, 31], [0, 1]]
        assert few.done.shape == (2,)
