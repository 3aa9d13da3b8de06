"""The host's book of a pool: which row each slot holds, which rows wait, and what the rows have said. Numpy."""

from __future__ import annotations

import numpy as np

from prerl_jax.core.types import Prompts, Rollouts
from prerl_jax.rollout.decode import Drawn

NONE = -1


class Queue:
    """This process's rows, in as many queues as it has parts of the mesh; rows wait in order.

    Args:
      prompts: this process's, numpy.
      group_size: rows a prompt.
      slots: of this process.
      parts: of the mesh, on this process; prompts and slots divide over them.
      length: R, tokens of a response.
    """

    def __init__(self, prompts: Prompts, group_size: int, slots: int, parts: int, length: int):
        count = prompts.prompt.shape[0]
        mask = np.asarray(prompts.prompt_mask, bool)
        ids = np.arange(count) if prompts.ids is None else np.asarray(prompts.ids)
        first = np.zeros(count, np.int32) if prompts.first_sample is None else np.asarray(prompts.first_sample)
        self.prompts = Prompts(np.where(mask, prompts.prompt, 0).astype(np.int32), mask)
        self._group, self._parts = group_size, parts
        self._ids = np.repeat(ids, group_size).astype(np.int32)
        self._samples = (first[:, None] + np.arange(group_size)).reshape(-1).astype(np.int32)
        rows = count * group_size
        self._each = rows // parts
        self._next = np.zeros(parts, np.int64)
        self._row = np.full((parts, slots // parts), NONE, np.int64)  # within the part
        self._response = np.zeros((rows, length), np.int32)
        self._logprobs = np.zeros((rows, length), np.float32)
        self._count = np.zeros(rows, np.int64)
        self._ended = np.zeros(rows, bool)

    def rows(self) -> np.ndarray:
        """i64[slots], the rows that slots hold; NONE where they hold none."""
        start = np.arange(self._parts)[:, None] * self._each
        return np.where(self._row == NONE, NONE, self._row + start).reshape(-1)

    def assign(self) -> dict[str, np.ndarray]:
        """Gives rows that wait to slots that hold none; the fields of an `Assignment`."""
        fresh = np.zeros(self._row.shape, bool)
        for part in range(self._parts):
            free = np.flatnonzero(self._row[part] == NONE)[: self._each - self._next[part]]
            self._row[part, free] = self._next[part] + np.arange(len(free))
            self._next[part] += len(free)
            fresh[part, free] = True
        held = np.maximum(self.rows(), 0)
        return {
            "prompt": self._prompt(),
            "id": self._ids[held],
            "sample": self._samples[held],
            "fresh": fresh.reshape(-1),
            "waiting": (self._each - self._next).astype(np.int32),
        }

    def _prompt(self) -> np.ndarray:
        """i32[slots], the prompt of each, within its part."""
        return (np.maximum(self._row, 0) // self._group).astype(np.int32).reshape(-1)

    def end(self, rows: np.ndarray, done: np.ndarray) -> np.ndarray:
        """Frees the slots of rows that have ended; these rows, i64[n], each once.

        Args:
          rows: i64[S], those that slots held when the chunk was asked for; NONE where none.
          done: bool[S], slots that hold no active row after it.
        """
        ended = rows[done & (rows != NONE)]
        ended = ended[~self._ended[ended]]
        self._ended[ended] = True
        held = self.rows().reshape(self._row.shape)
        self._row[(held != NONE) & self._ended[held]] = NONE
        return ended

    def keep(self, rows: np.ndarray, drawn: Drawn) -> None:
        """Keeps what a chunk has drawn for the rows that slots held, see `end`; chunks in their order."""
        slot, column = np.nonzero(drawn.mask)
        drawn_of = np.count_nonzero(drawn.mask, axis=1)
        nth = np.arange(len(slot)) - np.repeat(np.cumsum(drawn_of) - drawn_of, drawn_of)  # of its slot's tokens
        row = rows[slot]
        place = self._count[row] + nth
        self._response[row, place] = drawn.tokens[slot, column]
        self._logprobs[row, place] = drawn.logprobs[slot, column]
        self._count[rows[drawn_of > 0]] += drawn_of[drawn_of > 0]

    def compact(self, slots: int) -> tuple[np.ndarray, np.ndarray]:
        """(slots that go on, within their part; their prompts), i32[slots] both: all that hold a row, filled up."""
        each = slots // self._parts
        order = np.argsort(self._row == NONE, axis=1, kind="stable")[:, :each]
        self._row = np.take_along_axis(self._row, order, axis=1)
        return order.astype(np.int32).reshape(-1), self._prompt()

    def responses(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What `OnComplete` takes, of these rows."""
        return rows, self._response[rows], self._count[rows]

    def rollouts(self) -> Rollouts:
        """All rows, in order."""
        length = self._response.shape[1]
        return Rollouts(
            prompt=np.repeat(self.prompts.prompt, self._group, axis=0),
            prompt_mask=np.repeat(self.prompts.prompt_mask, self._group, axis=0),
            response=self._response,
            response_mask=np.arange(length) < self._count[:, None],
            rewards=np.zeros(len(self._response), np.float32),
            logprobs=self._logprobs,
        )
