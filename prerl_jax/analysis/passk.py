"""Statistics of an evaluation: avg@k and unbiased pass@k over P problems with S sampled responses each.

    avg@S  = mean over problems and samples of the score
    pass@k = mean over problems of 1 - C(S - c, k) / C(S, k),    c of the S responses being right

C(S - c, k) / C(S, k) is the share of the k-subsets of the samples that hold no right response, so pass@k is what k
draws without replacement would give on average: unbiased, unlike "any of the first k" (Chen et al. 2021, arXiv
2107.03374, eq. 1). It is computed as the product of (S - c - i) / (S - i), i < k: no binomial, no overflow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike


def pass_at_k(correct: ArrayLike, samples: int, k: int) -> float:
    """Probability that one of k responses, drawn from a problem's `samples` without replacement, is right.

    Args:
      correct: int[P], how many of a problem's responses are right.
      samples: S, how many responses each problem has.
      k: how many are drawn.

    Returns:
      The mean over problems.

    Raises:
      ValueError: k is not in 1..samples, there is no problem, or a count is not in 0..samples.
    """
    correct = np.asarray(correct)
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} needs 1 <= k <= samples, and there are {samples} samples a problem")
    if correct.ndim != 1 or correct.size == 0:
        raise ValueError(f"pass@{k} needs one count a problem, int[problems], got shape {correct.shape}")
    if correct.min() < 0 or correct.max() > samples:
        raise ValueError(f"counts of right responses range over {correct.min()}..{correct.max()}, not 0..{samples}")
    draws = np.arange(k)
    # With fewer than k wrong responses one factor is 0, and so is the product; clipping the factors after it to [0, 1]
    # keeps them from overflowing, in whatever order they are multiplied.
    wrong = np.clip(samples - correct[:, None] - draws, 0, None) / (samples - draws)
    return float(np.mean(1.0 - np.prod(wrong, axis=1)))


def avg_at_k(scores: ArrayLike) -> float:
    """Mean score of f[P, k], k responses a problem. Raises ValueError on any other shape and on an empty array."""
    return float(np.mean(_table(scores)))


def standard_error(scores: ArrayLike) -> float | None:
    """Standard error of avg@k over problems, f[P, k]; None for a single problem.

    The problems are the independent draws: k responses to one problem are not, so it is the spread of problem means.
    """
    means = _table(scores).mean(axis=1)
    return float(np.std(means, ddof=1) / np.sqrt(means.size)) if means.size > 1 else None


def evaluation_metrics(
    scores: ArrayLike, lengths: ArrayLike, truncated: ArrayLike, reflections: ArrayLike
) -> dict[str, float]:
    """The `eval/` metrics of P problems with k sampled responses each.

    Args:
      scores: f[P, k] in [0, 1], those of truncated responses already 0. A response is right at score 1: partial credit
        counts in avg@k and not in pass@k.
      lengths: i[P, k], tokens of each response, the stop token included.
      truncated: bool[P, k], whether it hit the length limit.
      reflections: i[P, k], reflection markers in its text.

    Returns:
      `eval/avg@k` with `eval/avg@k_stderr` (over problems; left out for a single problem), `eval/pass@k` and
      `eval/pass@j` for the powers of two j < k, and the means over responses `eval/reflections`, `eval/length`,
      `eval/truncated`.

    Raises:
      ValueError: there is nothing to average, or the shapes differ.
    """
    scores = _table(scores)
    means = {"eval/reflections": reflections, "eval/length": lengths, "eval/truncated": truncated}
    for name, values in means.items():
        if np.shape(values) != scores.shape:
            raise ValueError(f"{name} needs a value for every response: {np.shape(values)}, scores {scores.shape}")
    metrics = _of_scores("eval", scores, _drawn(scores.shape[1]))
    return metrics | {name: float(np.mean(values)) for name, values in means.items()}


def metrics_by_source(scores: ArrayLike, sources: Sequence[str]) -> dict[str, float]:
    """avg@k with its standard error and pass@k of each source's problems: `eval/SOURCE/avg@k` and so on.

    Args:
      scores: f[P, k], as in `evaluation_metrics`.
      sources: P names; a problem without one counts under "unnamed".

    Returns:
      Nothing where all problems are of one source: that is what `evaluation_metrics` has.
    """
    names = np.array([source or "unnamed" for source in sources])
    scores, distinct, metrics = _table(scores), dict.fromkeys(names.tolist()), {}
    for name in distinct if len(distinct) > 1 else ():
        metrics |= _of_scores(f"eval/{name}", scores[names == name], (scores.shape[1],))
    return metrics


def metric_names(samples: int) -> tuple[str, ...]:
    """The names that `evaluation_metrics` gives with so many samples a problem, but for that of the standard error."""
    means = ("eval/reflections", "eval/length", "eval/truncated")
    return (f"eval/avg@{samples}", *(f"eval/pass@{k}" for k in _drawn(samples)), *means)


def _of_scores(kind: str, scores: np.ndarray, draws: Iterable[int]) -> dict[str, float]:
    """`kind/avg@k` with its standard error, and `kind/pass@j` for so many draws j."""
    k, error, correct = scores.shape[1], standard_error(scores), np.sum(scores >= 1.0, axis=1)
    metrics = {f"{kind}/avg@{k}": avg_at_k(scores)} | ({} if error is None else {f"{kind}/avg@{k}_stderr": error})
    return metrics | {f"{kind}/pass@{j}": pass_at_k(correct, k, j) for j in draws}


def _drawn(samples: int) -> list[int]:
    """The k of pass@k: the powers of two below the number of samples, and that itself."""
    return [2**i for i in range(samples.bit_length()) if 2**i < samples] + [samples]


def widest(kind: str, names: Iterable[str]) -> str | None:
    """The name `eval/{kind}@k` with the largest k among metric names; None if there is none."""
    found = by_k(kind, names)
    return found[max(found)] if found else None


def by_k(kind: str, names: Iterable[str]) -> dict[int, str]:
    """{k: `eval/{kind}@k`} of those among metric names, k rising."""
    found = {int(match[1]): name for name in names if (match := re.fullmatch(rf"eval/{kind}@(\d+)", name))}
    return dict(sorted(found.items()))


def by_source(name: str, names: Iterable[str]) -> dict[str, str]:
    """{source: the name of it there} of an `eval/` metric of all problems: {"gsm8k": "eval/gsm8k/avg@8"}."""
    what = name.removeprefix("eval/")
    return {
        one[len("eval/") : -len(what) - 1]: one for one in names if re.fullmatch(rf"eval/.+/{re.escape(what)}", one)
    }


def _table(scores: ArrayLike) -> np.ndarray:
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or scores.size == 0:
        raise ValueError(f"scores must be f[problems, samples] with at least one entry, got shape {scores.shape}")
    return scores
