"""Which problems make up which step: an endless Grain pipeline over example indices.

Epoch e is a permutation drawn from (seed, e), cut into batches; what is left over at its end is dropped. Everything is
a function of (size, batch, seed, position), so a position is all there is to save. The GLOBAL batch does not depend on
the number of processes; each takes its contiguous slice of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np


class Batches:
    """Iterator over index batches; made by `make_batches`."""

    def __init__(self, iterator: Any, identity: dict[str, int]):
        self._iterator = iterator
        self._identity = identity

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> np.ndarray:
        """i32[batch / process_count], indices of this process's examples in the next batch."""
        return next(self._iterator)

    @property
    def position(self) -> int:
        """Batches taken so far."""
        return self._iterator.get_state()["next_index"]

    @property
    def epoch(self) -> int:
        """The epoch, from 0, that the next batch belongs to."""
        return self.position // (self._identity["size"] // self._identity["batch"])

    def get_state(self) -> dict[str, int]:
        """The position, with what it is a position in; ready for JSON, and the same on every process."""
        return {"next_index": self.position, **self._identity}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes to a position from `get_state`, also one saved by a different number of processes.

        Raises:
            ValueError: the state belongs to another data size, batch size or seed, where it would mean other problems.
        """
        theirs = {name: state.get(name) for name in self._identity}
        if theirs != self._identity or not isinstance(state.get("next_index"), int) or state["next_index"] < 0:
            raise ValueError(f"the data position {state} does not belong to this pipeline, which has {self._identity}")
        self._iterator.set_state({"next_index": state["next_index"]})


def make_batches(size: int, *, batch: int, seed: int, process_index: int = 0, process_count: int = 1) -> Batches:
    """An endless, checkpointable iterator over batches of indices into `size` examples.

    Args:
        size: how many examples there are.
        batch: examples in a GLOBAL batch.
        seed: of the shuffle, 0 to 2**32 - 1.
        process_index: which slice of each batch is this process's.
        process_count: how many slices there are.

    Raises:
        ValueError: the batch is larger than the data or does not divide among the processes, or an argument is out of
            range.
    """
    if batch < 1 or size < batch:
        raise ValueError(f"a batch of {batch} prompts cannot be drawn from {size} problems; it takes 1 to {size}")
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index {process_index} is not in [0, process_count {process_count})")
    if batch % process_count:
        raise ValueError(f"a batch of {batch} prompts does not divide among {process_count} processes")
    if not 0 <= seed < 2**32:
        raise ValueError(f"the shuffle's seed must be in [0, 2**32), got {seed}")
    import grain  # takes more than a second to import

    local = batch // process_count
    mine = slice(process_index * local, (process_index + 1) * local)
    # Shuffle comes before batch and repeat: then each epoch is one reshuffled permutation, and no batch spans two.
    dataset = grain.MapDataset.range(size).seed(seed).shuffle().batch(batch, drop_remainder=True).repeat()
    dataset = dataset.map(lambda indices: np.asarray(indices[mine], np.int32))
    # A thread has the next batch ready: of few problems an index takes a millisecond, for they are shuffled by a cipher
    # of 16 bits, tried until it says one of them. The position is still that of the batches taken.
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
    return Batches(iter(dataset.to_iter_dataset(options)), {"size": size, "batch": batch, "seed": seed})
