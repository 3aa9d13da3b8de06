"""How much of a rollout is spent on its longest responses: a simulation of continuous batching on a slice.

    python benchmarks/long_responses.py               Qwen3-4B on v5e:4x8, 8 replicas of 4 chips; a few seconds

Every replica decodes its own rows in its own slots, as `rollout/layout.py` and `rollout/scheduler.py` have it: a free
slot takes the replica's next row, and all replicas make a step together, so the slowest decides. A step takes as long
as the chips need to read their part of the weights and the filled cache of their active rows from HBM, the bound that
`python -m prerl_jax.plan` prints. Lengths are log-normal and end at the longest that is allowed:

- "paper": 1,024 responses of at most 8,192 tokens, the batch of arXiv 2604.14142, with a mean of about 3,000.
- "verl 7412": a mean of 1,267 and at most 3,072 tokens, as the log in verl's issue 7412 says.
- "heavy": a median of 500 and a 99th percentile of 5,000, at most 8,192 tokens.

Reported: the tokens/s at the bound over those that the same chips would have if every slot were always active; seconds
and tokens/s at the bound; the share of the time in which fewer than a half, or an eighth, of the slots are active.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from timing import Row, report

BANDWIDTH = 819e9
"""Bytes a second of a v5e's HBM."""
WEIGHTS, TOKEN = 2.01e9, 36_864
"""Bytes that a chip of a replica of four reads for Qwen3-4B: its weights, and one token of one row's cache."""
PROMPT, REPLICAS, ROWS = 200, 8, 1024


@dataclasses.dataclass(frozen=True)
class Lengths:
    """Log-normal lengths of responses: the median, the standard deviation of the logarithm, and the most."""

    median: float
    deviation: float
    most: int

    def draw(self, rows: int) -> np.ndarray:
        drawn = np.random.default_rng(0).lognormal(np.log(self.median), self.deviation, rows)
        return np.clip(drawn, 16, self.most).astype(np.int64)


DISTRIBUTIONS = {
    "paper": Lengths(2500, 0.7, 8192),
    "verl 7412": Lengths(1050, 0.65, 3072),
    "heavy": Lengths(500, np.log(10) / 2.326, 8192),
}


@dataclasses.dataclass(frozen=True)
class Rollout:
    """A simulated rollout: how long each step took, and how many rows were active in it."""

    seconds: np.ndarray
    active: np.ndarray


def simulate(lengths: np.ndarray, slots: int) -> Rollout:
    """Decodes rows of these lengths, i64[replicas, rows of a replica], in so many slots of each replica."""
    replicas, rows = lengths.shape
    slots = min(slots, rows)
    left, filled = lengths[:, :slots].copy(), np.zeros((replicas, slots), np.int64)
    following = np.full(replicas, slots)
    seconds, active = [], []
    while (left > 0).any():
        busy = left > 0
        tokens = np.where(busy, filled + PROMPT, 0).sum(axis=1).max()
        seconds.append((WEIGHTS + tokens * TOKEN) / BANDWIDTH)
        active.append(busy.sum())
        left, filled = np.where(busy, left - 1, 0), np.where(busy, filled + 1, 0)
        for replica, slot in np.argwhere(busy & (left == 0)):
            if following[replica] < rows:
                left[replica, slot], filled[replica, slot] = lengths[replica, following[replica]], 0
                following[replica] += 1
    return Rollout(np.asarray(seconds), np.asarray(active))


def rows(name: str, lengths: np.ndarray, slots: int) -> list[Row]:
    """The rows of the table for one distribution and number of slots of all replicas."""
    found = simulate(lengths.reshape(REPLICAS, -1), slots // REPLICAS)
    time, total = found.seconds.sum(), lengths.sum()
    mean = (lengths.astype(float) ** 2).sum() / (2 * total)  # of the filled cache, over the tokens
    best = slots / ((WEIGHTS + slots / REPLICAS * (mean + PROMPT) * TOKEN) / BANDWIDTH)
    shares = [found.seconds[found.active < slots * part].sum() / time for part in (1 / 2, 1 / 8)]
    note = f"mean {lengths.mean():,.0f}, longest {lengths.max():,}; {time:.0f} s, {total / time:,.0f} tokens/s"
    few = f"{shares[0]:.0%} of the time with fewer than 1/2 of the slots active, {shares[1]:.0%} with fewer than 1/8"
    return [Row(f"long_responses/{name}/{slots}_slots", total / time / best, "", f"{note}; {few}")]


def main() -> None:
    report(
        [
            row
            for name, lengths in DISTRIBUTIONS.items()
            for slots in (128, 256, 512)
            for row in rows(name, lengths.draw(ROWS), slots)
        ]
    )


if __name__ == "__main__":
    main()
