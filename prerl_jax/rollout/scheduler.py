"""Decides on the host, in numpy, which row each slot decodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from prerl_jax.core.types import Prompts, Rollouts
from prerl_jax.rollout.decode import Drawn

NO_ROW = -1
"""The row number of an empty slot."""


class SlotScheduler:
    """Assigns this process's rows to its slots, in order within each shard, and collects their tokens.

    A row is one response: sample j of this process's prompt i is row i * group_size + j.

    Args:
      prompts: this process's Q prompts, numpy.
      group_size: G, rows for each prompt.
      slots: S, this process's slots.
      shards: D, this process's shards of the batch. It divides Q and S; a shard's slots take the rows of its prompts.
      max_new_tokens: R, the most tokens of a response.

    Attributes:
      prompts: i32[Q, P] with 0 at padding, and their mask bool[Q, P].
    """

    def __init__(self, prompts: Prompts, group_size: int, slots: int, shards: int, max_new_tokens: int):
        count = prompts.prompt.shape[0]
        mask: Any = np.asarray(prompts.prompt_mask, bool)
        ids = np.arange(count) if prompts.ids is None else np.asarray(prompts.ids)
        first = np.zeros(count, np.int32) if prompts.first_sample is None else np.asarray(prompts.first_sample)
        tokens: Any = np.where(mask, prompts.prompt, 0).astype(np.int32)
        self.prompts = Prompts(tokens, mask)
        self._group_size, self._shards = group_size, shards
        self._ids = np.repeat(ids, group_size).astype(np.int32)
        self._samples = (first[:, None] + np.arange(group_size)).reshape(-1).astype(np.int32)
        rows = count * group_size
        self._rows_a_shard = rows // shards
        self._next = np.zeros(shards, np.int64)  # the first waiting row of each shard
        self._row = np.full((shards, slots // shards), NO_ROW, np.int64)  # of each slot, counted within its shard
        self._response = np.zeros((rows, max_new_tokens), np.int32)
        self._logprobs = np.zeros((rows, max_new_tokens), np.float32)
        self._count = np.zeros(rows, np.int64)
        self._completed = np.zeros(rows, bool)

    def rows_in_slots(self) -> np.ndarray:
        """i64[S], the row that each slot holds, or NO_ROW."""
        start = np.arange(self._shards)[:, None] * self._rows_a_shard
        return np.where(self._row == NO_ROW, NO_ROW, self._row + start).reshape(-1)

    def assign(self) -> dict[str, np.ndarray]:
        """Gives waiting rows to free slots; returns the fields of an `Assignment`."""
        fresh = np.zeros(self._row.shape, bool)
        for shard in range(self._shards):
            free = np.flatnonzero(self._row[shard] == NO_ROW)[: self._rows_a_shard - self._next[shard]]
            self._row[shard, free] = self._next[shard] + np.arange(len(free))
            self._next[shard] += len(free)
            fresh[shard, free] = True
        held = np.maximum(self.rows_in_slots(), 0)
        return {
            "prompt": self._prompt(),
            "id": self._ids[held],
            "sample": self._samples[held],
            "fresh": fresh.reshape(-1),
            "waiting": (self._rows_a_shard - self._next).astype(np.int32),
        }

    def _prompt(self) -> np.ndarray:
        """i32[S], the prompt of each slot's row, counted within its shard."""
        return (np.maximum(self._row, 0) // self._group_size).astype(np.int32).reshape(-1)

    def complete(self, rows: np.ndarray, done: np.ndarray) -> np.ndarray:
        """Frees the slots of completed rows.

        Args:
          rows: i64[S], what `rows_in_slots` returned when the chunk was started.
          done: bool[S], `ChunkResult.done` of this chunk.

        Returns: i64[n], the rows that this chunk completed. No row is returned twice.
        """
        completed = rows[done & (rows != NO_ROW)]
        completed = completed[~self._completed[completed]]
        self._completed[completed] = True
        held = self.rows_in_slots().reshape(self._row.shape)
        self._row[(held != NO_ROW) & self._completed[held]] = NO_ROW
        return completed

    def record(self, rows: np.ndarray, drawn: Drawn) -> None:
        """Appends the tokens of a chunk to its rows, see `complete`. Chunks must be given in order."""
        slot, column = np.nonzero(drawn.mask)
        per_slot = np.count_nonzero(drawn.mask, axis=1)
        nth = np.arange(len(slot)) - np.repeat(np.cumsum(per_slot) - per_slot, per_slot)  # among its slot's tokens
        row = rows[slot]
        place = self._count[row] + nth
        self._response[row, place] = drawn.tokens[slot, column]
        self._logprobs[row, place] = drawn.logprobs[slot, column]
        self._count[rows[per_slot > 0]] += per_slot[per_slot > 0]

    def compact(self, slots: int) -> tuple[np.ndarray, np.ndarray]:
        """Keeps S' = `slots` slots: all that hold a row, and free ones if these are fewer.

        Returns: (the kept slots i32[S'], the prompts of their rows i32[S']), both counted within the shard.
        """
        each = slots // self._shards
        order = np.argsort(self._row == NO_ROW, axis=1, kind="stable")[:, :each]
        self._row = np.take_along_axis(self._row, order, axis=1)
        return order.astype(np.int32).reshape(-1), self._prompt()

    def responses(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The arguments of `OnComplete` for these rows: (rows, responses i32[n, R], lengths i64[n])."""
        return rows, self._response[rows], self._count[rows]

    def rollouts(self) -> Rollouts:
        """All rows in order; rewards are 0."""
        rows, length = self._response.shape
        arrays: dict[str, Any] = {
            "prompt": np.repeat(self.prompts.prompt, self._group_size, axis=0),
            "prompt_mask": np.repeat(self.prompts.prompt_mask, self._group_size, axis=0),
            "response": self._response,
            "response_mask": np.arange(length) < self._count[:, None],
            "rewards": np.zeros(rows, np.float32),
            "logprobs": self._logprobs,
        }
        return Rollouts(**arrays)
