"""The order in which a run draws its prompts: an endless Grain pipeline over the indices of examples.

Epoch e is a random permutation, a function of (seed, e), that is cut into batches. The incomplete batch at its end is
dropped. A batch is a function of (size, batch, seed, position), so the position is all that a checkpoint needs. Every
process gets the whole batch and takes its own part of it. A mixture or a
curriculum has an `Order` of its own, which is a function of the same arguments.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from prerl_jax.data.order import Order

ENDLESS = 2**62
"""Batches of an `Order`."""


class Batches:
    """An endless iterator over batches of example indices. Make it with `make_batches`.

    Args:
        iterator: Grain's iterator over i32[batch].
        identity: what decides the order, as JSON: the `size`, `batch` and `seed`, and what an `Order` adds.
    """

    def __init__(self, iterator: Any, identity: dict[str, Any]) -> None:
        self._iterator = iterator
        self._identity = identity

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> np.ndarray:
        """i32[batch]: the indices of the examples in the next batch, the same on every process."""
        return next(self._iterator)

    @property
    def position(self) -> int:
        """How many batches have been taken."""
        return self._iterator.get_state()["next_index"]

    @property
    def epoch(self) -> int:
        """The epoch of the next batch, counted from 0."""
        return self.position // (self._identity["size"] // self._identity["batch"])

    def get_state(self) -> dict[str, Any]:
        """The position and the identity of the pipeline, as JSON; the same on every process."""
        return {"next_index": self.position, **self._identity}

    def accepts(self, state: dict[str, Any]) -> bool:
        """Whether a state is of a pipeline with this identity."""
        return {name: value for name, value in state.items() if name != "next_index"} == self._identity

    def set_state(self, state: dict[str, Any]) -> None:
        """Moves the iterator to a saved position.

        Args:
            state: a value of `get_state`, also of a run with another number of processes.

        Raises:
            ValueError: the state is of a pipeline with another identity, where the same position means other problems.
        """
        position = state.get("next_index")
        if not self.accepts(state) or not isinstance(position, int) or position < 0:
            raise ValueError(f"the data position {state} does not belong to this pipeline, which has {self._identity}")
        self._iterator.set_state({"next_index": position})


def make_batches(size: int, *, batch: int, seed: int) -> Batches:
    """Makes an endless iterator over batches of example indices, whose position can be saved and restored.

    Args:
        size: how many examples there are.
        batch: how many examples a global batch has, from 1 to `size`.
        seed: the seed of the shuffle, from 0 to 2**32 - 1.

    Returns:
        The iterator, at position 0.

    Raises:
        ValueError: an argument is outside these ranges.
    """
    if batch < 1 or size < batch:
        raise ValueError(f"a batch of {batch} prompts cannot be drawn from {size} problems; choose 1 to {size}")
    if not 0 <= seed < 2**32:
        raise ValueError(f"the shuffle's seed must be in [0, 2**32), got {seed}")
    import grain  # its import takes more than a second

    # Shuffling comes before batching and repeating: each epoch is a new permutation, and no batch spans two epochs.
    dataset = grain.MapDataset.range(size).seed(seed).shuffle().batch(batch, drop_remainder=True).repeat()
    dataset = dataset.map(lambda indices: np.asarray(indices, np.int32))
    return _batches(dataset, {"size": size, "batch": batch, "seed": seed})


def make_ordered_batches(order: Order) -> Batches:
    """Makes an endless iterator over the batches of an order."""
    import grain  # its import takes more than a second

    dataset = grain.MapDataset.range(ENDLESS).map(lambda number: order.numbers(int(number)))
    return _batches(dataset, order.identity)


def _batches(dataset: Any, identity: dict[str, Any]) -> Batches:
    import grain

    # A thread prepares the next batch. With few problems an index takes a millisecond: Grain shuffles with a cipher of
    # 16 bits, and repeats it until the result is a valid index. The position still counts only the batches taken.
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
    return Batches(iter(dataset.to_iter_dataset(options)), identity)
