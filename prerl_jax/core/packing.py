"""Packing: the rows that matter, several to a dense row. On the host, in numpy, between prepare and the train step.

Rows without a trained token are left out: their weights have already been counted in every denominator. What remains
is laid into rows of one length by first-fit decreasing, told apart by segment ids, with each segment's own positions,
so the loss and its gradient are those of the unpacked batch. So that a run compiles few programs, rows are as many as
ever, the last of them empty, which a step in microbatches does not compute; or as many as a `bucket` holds.
"""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import numpy as np

from prerl_jax.core.train_step import trained_tokens
from prerl_jax.core.types import Batch, Objective, Sequences, ValueBatch

AnyBatch = TypeVar("AnyBatch", Batch, ValueBatch)


def first_fit(lengths: np.ndarray, capacity: int) -> list[list[int]]:
    """Which of the sequences of these lengths share a row: longest first, each into the first row it fits in."""
    if len(lengths) and lengths.max() > capacity:
        raise ValueError(f"A sequence of {lengths.max()} tokens does not fit in rows of {capacity}.")
    rows: list[list[int]] = []
    space = np.full(len(lengths), capacity)  # of rows that there are, and after them of new ones
    for i in np.argsort(-lengths, kind="stable").tolist():
        row = int((space >= lengths[i]).argmax())
        if row == len(rows):
            rows.append([])
        rows[row].append(i)
        space[row] -= lengths[i]
    return rows


def bucket(rows: int, multiple: int = 1) -> int:
    """The smallest of multiple * (1, 2, 3, 4, 6, 8, 12, 16, ...) that holds `rows`; `multiple` for no rows."""
    needed = max(1, -(-rows // multiple))
    power = 1 << (needed - 1).bit_length()
    return multiple * (3 * power // 4 if power >= 4 and needed <= 3 * power // 4 else power)


def plan(batch: Batch | ValueBatch, objective: Objective | None, capacity: int | None = None) -> list[list[int]]:
    """Which rows of `batch` share a packed row of `capacity` tokens (its own row length by default).

    Rows without a trained token are in none of them. Those of a critic's batch have no objective: theirs is None.
    """
    if batch.sequences.segments.max(initial=0) > 1:
        raise ValueError("Only unpacked rows, one segment each, can be packed.")
    trained = batch.weights != 0 if objective is None else trained_tokens(batch, objective)
    chosen = np.flatnonzero(trained.any(axis=1))
    lengths = (batch.sequences.segments > 0).sum(axis=1)[chosen]
    return [[int(chosen[i]) for i in row] for row in first_fit(lengths, capacity or batch.weights.shape[1])]


def pack(
    batch: AnyBatch, groups: list[list[int]], rows: int, capacity: int | None = None, *, microbatches: int = 1
) -> AnyBatch:
    """The batch of `rows` packed rows: those of `groups` (see `plan`), then empty ones. Numpy in, numpy out.

    A critic's rows are a batch of their own, packed by a call of their own; those of `batch.critic` are left out.

    With `microbatches`, rows are laid out so that they fill one microbatch of the train step after the other (part i is
    every microbatches-th row from i on): those that stay empty are not computed.
    """
    if len(groups) > rows:
        raise ValueError(f"{len(groups)} packed rows do not fit in {rows}.")
    if rows % microbatches:
        raise ValueError(f"{rows} rows do not divide into {microbatches} microbatches.")
    capacity = capacity or batch.weights.shape[1]
    members = np.array([i for group in groups for i in group], np.int64)
    number = np.array([k + 1 for group in groups for k in range(len(group))], np.int32)
    valid = batch.sequences.segments[members] > 0
    member, column = np.nonzero(valid)  # of every token, in the order in which they are laid
    group = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    each = np.bincount(group[member], minlength=len(groups))
    place = np.repeat(_order(rows, microbatches)[: len(groups)], each)
    place = place, np.arange(len(member)) - np.repeat(np.cumsum(each) - each, each)

    def put(tokens: np.ndarray) -> np.ndarray:
        out = np.zeros((rows, capacity), tokens.dtype)
        out[place] = tokens
        return out

    def lay(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else put(values[members[member], column])

    s = batch.sequences
    sequences = Sequences(lay(s.tokens), lay(s.positions), put(number[member]), lay(s.mask))
    fields = [f.name for f in dataclasses.fields(batch) if f.name not in ("sequences", "critic")]
    return type(batch)(sequences=sequences, **{name: lay(getattr(batch, name)) for name in fields})


def unpack(values: np.ndarray, groups: list[list[int]], valid: np.ndarray, *, microbatches: int = 1) -> np.ndarray:
    """What was computed of packed rows, [rows, capacity], back on the unpacked ones: [B, T], 0 on what was left out.

    Args:
      values: of the rows that `pack` made of `groups`, with as many microbatches.
      valid: bool[B, T], the unpacked rows' tokens.
    """
    out = np.zeros(valid.shape, values.dtype)
    for r, members in zip(_order(len(values), microbatches), groups, strict=False):
        lengths = valid[members].sum(axis=1)
        for i, part in zip(members, np.split(values[r, : lengths.sum()], np.cumsum(lengths)[:-1]), strict=True):
            out[i, valid[i]] = part
    return out


def _order(rows: int, microbatches: int) -> np.ndarray:
    """The rows of the first microbatch, then of the second, ..."""
    return np.arange(rows).reshape(-1, microbatches).T.ravel()
