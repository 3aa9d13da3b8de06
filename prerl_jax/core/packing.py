"""Packing: puts several sequences into one row, so that few tokens of a batch are padding.

Packing runs on the host, in numpy, between `prepare` and the train step, in three steps:

    bins = plan_bins(batch, objective)   which rows of the batch share a packed row
    packed = pack(batch, bins, rows)     the packed batch, of `rows` rows
    values = unpack(found, bins, ...)    values of packed rows, put back onto the rows of the batch

Rows without a trained token are left out. They have already been counted in every denominator, since the weights were
normalised before. The other rows are put into bins of one capacity by first-fit decreasing (longest first, each into
the first bin with room). The sequences of a bin have segment ids 1, 2, ... and their own positions, so the loss and the
gradient are those of the unpacked batch.

The packed batch has a fixed number of rows, so that a run compiles few programs. Either it has as many as the unpacked
batch, and the train step skips the microbatches that stay empty; or `bucket` chooses the number.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import numpy as np

from prerl_jax.core.microbatches import row_order, rows_per_microbatch
from prerl_jax.core.train_step import trained_tokens
from prerl_jax.core.types import Batch, Objective, Sequences, ValueBatch

AnyBatch = TypeVar("AnyBatch", Batch, ValueBatch)
Bins = list[list[int]]
"""For each packed row, the numbers of the batch's rows that it holds, in their order from left to right."""


def first_fit(lengths: np.ndarray, capacity: int) -> Bins:
    """First-fit decreasing: the sequences of each bin.

    Args:
      lengths: i64[N], tokens of each sequence.
      capacity: tokens of a bin.

    Raises ValueError for a sequence that is longer than a bin.
    """
    if len(lengths) and lengths.max() > capacity:
        raise ValueError(
            f"A sequence of {lengths.max()} tokens does not fit in rows of {capacity}. Give pack and plan a larger "
            "capacity."
        )
    bins: Bins = []
    room = np.full(len(lengths), capacity)  # of the bins so far, and after them of new ones
    for i in np.argsort(-lengths, kind="stable").tolist():
        number = int((room >= lengths[i]).argmax())
        if number == len(bins):
            bins.append([])
        bins[number].append(i)
        room[number] -= lengths[i]
    return bins


def bucket(rows: int, multiple: int = 1) -> int:
    """A number of rows from a short list, so that batches of different sizes need few programs.

    Args:
      rows: the rows that must fit, 0 or more.
      multiple: what the result must be a multiple of, 1 or more.

    Returns:
      the smallest of multiple * (1, 2, 3, 4, 6, 8, 12, 16, ...) that is at least `rows`.
    """
    needed = max(1, -(-rows // multiple))
    power = 1 << (needed - 1).bit_length()
    return multiple * (3 * power // 4 if power >= 4 and needed <= 3 * power // 4 else power)


def plan_bins(batch: Batch | ValueBatch, objective: Objective | None, capacity: int | None = None) -> Bins:
    """Which rows of a batch share a packed row. Rows without a trained token are in no bin.

    Args:
      batch: unpacked rows [B, T], numpy arrays.
      objective: decides which tokens are trained; None for a critic's batch.
      capacity: tokens of a packed row; None for T.

    Returns:
      for each packed row, the numbers of the batch's rows that it holds.

    Raises ValueError for rows that are packed already, and for a row that is longer than the capacity.
    """
    if batch.sequences.segments.max(initial=0) > 1:
        raise ValueError("Only unpacked rows, one segment each, can be packed.")
    trained = (
        trained_tokens(batch, objective) if isinstance(batch, Batch) and objective is not None else batch.weights != 0
    )
    chosen = np.flatnonzero(trained.any(axis=1))
    lengths = np.asarray((batch.sequences.segments > 0).sum(axis=1))[chosen]
    return [[int(chosen[i]) for i in members] for members in first_fit(lengths, capacity or batch.weights.shape[1])]


def pack(batch: AnyBatch, bins: Bins, rows: int, capacity: int | None = None, *, microbatches: int = 1) -> AnyBatch:
    """The packed batch: the rows of `bins`, then empty rows.

    The critic's rows are packed by a call of their own: the result's `critic` is None.

    Args:
      batch: unpacked rows [B, T], numpy arrays.
      bins: see `plan_bins`.
      rows: rows of the packed batch; at least one for each bin.
      capacity: tokens of a packed row, that of `plan_bins`.
      microbatches: those of the train step; they must divide `rows`. The bins fill one microbatch after the other (see
        `row_order`), so those that stay empty are skipped.

    Returns: a batch of numpy arrays [rows, capacity].

    Raises ValueError if there are more bins than rows, or if `microbatches` does not divide the rows.
    """
    if len(bins) > rows:
        raise ValueError(
            f"{len(bins)} packed rows do not fit in {rows}. Give pack more rows, or plan a larger capacity."
        )
    rows_per_microbatch(rows, microbatches)
    capacity = capacity or batch.weights.shape[1]
    members = np.array([i for members in bins for i in members], np.int64)
    segment = np.array([k + 1 for members in bins for k in range(len(members))], np.int32)
    valid = batch.sequences.segments[members] > 0
    member, column = np.nonzero(valid)  # of every token, in the order in which it is laid
    bin_of = np.repeat(np.arange(len(bins)), [len(members) for members in bins])
    tokens_of = np.bincount(bin_of[member], minlength=len(bins))
    row = np.repeat(row_order(rows, microbatches)[: len(bins)], tokens_of)
    place = row, np.arange(len(member)) - np.repeat(np.cumsum(tokens_of) - tokens_of, tokens_of)

    def put(tokens: np.ndarray) -> np.ndarray:
        out = np.zeros((rows, capacity), tokens.dtype)
        out[place] = tokens
        return out

    def lay(values: Any) -> Any:
        return None if values is None else put(values[members[member], column])

    s = batch.sequences
    segments: Any = put(segment[member])
    sequences = Sequences(lay(s.tokens), lay(s.positions), segments, lay(s.mask))
    names = [f.name for f in dataclasses.fields(batch) if f.name not in ("sequences", "critic")]
    fields: dict[str, Any] = {name: lay(getattr(batch, name)) for name in names}
    return type(batch)(sequences=sequences, **fields)


def unpack(values: np.ndarray, bins: Bins, valid: np.ndarray, *, microbatches: int = 1) -> np.ndarray:
    """Puts per-token values of packed rows back onto the unpacked rows.

    Args:
      values: [rows, capacity], computed on the rows that `pack` made of `bins`.
      bins: see `plan_bins`.
      valid: bool[B, T], the unpacked rows' tokens.
      microbatches: that of `pack`.

    Returns: [B, T], 0 on padding and on rows that are in no bin.
    """
    out = np.zeros(valid.shape, values.dtype)
    for row, members in zip(row_order(len(values), microbatches), bins, strict=False):
        lengths = valid[members].sum(axis=1)
        for i, part in zip(members, np.split(values[row, : lengths.sum()], np.cumsum(lengths)[:-1]), strict=True):
            out[i, valid[i]] = part
    return out
