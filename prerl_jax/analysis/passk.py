"""Statistics of an evaluation: avg@k and unbiased pass@k of P problems with S sampled responses each.

    avg@S  = mean over problems and samples of the score
    pass@k = mean over problems of 1 - C(S - c, k) / C(S, k),    where c of the S responses are right

C(S - c, k) / C(S, k) is the share of the k-subsets of the samples without a right response. So pass@k is the mean
result of k draws without replacement, an unbiased estimator (Chen et al. 2021, arXiv 2107.03374, eq. 1). It is computed
as the product of (S - c - i) / (S - i) over i < k, which needs no binomials and cannot overflow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike


def pass_at_k(correct: ArrayLike, samples: int, k: int) -> float:
    """The probability that at least one of k responses to a problem, drawn without replacement, is right.

    Args:
      correct: int[P], the number of right responses to each problem, from 0 to `samples`.
      samples: S, the number of responses to each problem.
      k: how many responses are drawn, from 1 to `samples`.

    Returns:
      The mean over problems, in [0, 1].

    Raises:
      ValueError: an argument is outside these ranges, or there is no problem.
    """
    correct = np.asarray(correct)
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} needs 1 <= k <= samples, and there are {samples} samples a problem")
    if correct.ndim != 1 or correct.size == 0:
        raise ValueError(f"pass@{k} needs one count a problem, int[problems], got shape {correct.shape}")
    if correct.min() < 0 or correct.max() > samples:
        raise ValueError(f"counts of right responses range over {correct.min()}..{correct.max()}, not 0..{samples}")
    draws = np.arange(k)
    # If a problem has fewer than k wrong responses, one factor is 0 and so is the product. The later factors are
    # clipped to [0, 1], so the product cannot overflow in any order.
    wrong = np.clip(samples - correct[:, None] - draws, 0, None) / (samples - draws)
    return float(np.mean(1.0 - np.prod(wrong, axis=1)))


def avg_at_k(scores: ArrayLike) -> float:
    """The mean score over problems and responses.

    Args:
      scores: f[P, k], the scores of k responses to each of P problems.

    Raises:
      ValueError: `scores` has another shape, or is empty.
    """
    return float(np.mean(_table(scores)))


def standard_error(scores: ArrayLike) -> float | None:
    """The standard error of avg@k.

    It is computed from the spread of the problems' means, because problems are independent draws, and several responses
    to one problem are not.

    Args:
      scores: f[P, k], the scores of k responses to each of P problems.

    Returns:
      The standard error; None for a single problem.

    Raises:
      ValueError: `scores` has another shape, or is empty.
    """
    means = _table(scores).mean(axis=1)
    return float(np.std(means, ddof=1) / np.sqrt(means.size)) if means.size > 1 else None


def evaluation_metrics(
    scores: ArrayLike, lengths: ArrayLike, truncated: ArrayLike, reflections: ArrayLike
) -> dict[str, float]:
    """The `eval/` metrics of P problems with k sampled responses each.

    Args:
      scores: f[P, k] in [0, 1]; 0 for truncated responses. A response is right if its score is 1: partial scores count
        in avg@k, but not in pass@k.
      lengths: i[P, k], tokens of each response, the stop token included.
      truncated: bool[P, k], whether a response reached the length limit.
      reflections: i[P, k], reflection markers in the text of a response.

    Returns:
      Metric name -> value: `eval/avg@k`; `eval/avg@k_stderr`, its standard error over problems (not for a single
      problem); `eval/pass@k`, and `eval/pass@j` for the powers of two j < k; and the means over responses
      `eval/reflections`, `eval/length` and `eval/truncated`.

    Raises:
      ValueError: there are no scores, or the shapes differ.
    """
    scores = _table(scores)
    means = {"eval/reflections": reflections, "eval/length": lengths, "eval/truncated": truncated}
    for name, values in means.items():
        if np.shape(values) != scores.shape:
            raise ValueError(f"{name} needs a value for every response: {np.shape(values)}, scores {scores.shape}")
    metrics = _of_scores("eval", scores, _drawn(scores.shape[1]))
    return metrics | {name: float(np.asarray(values).mean()) for name, values in means.items()}


def metrics_by_source(scores: ArrayLike, sources: Sequence[str]) -> dict[str, float]:
    """The accuracy on the problems of each source.

    Args:
      scores: f[P, k], as in `evaluation_metrics`.
      sources: the source of each of the P problems; "" counts as "unnamed".

    Returns:
      Metric name -> value: `eval/SOURCE/avg@k`, its standard error and `eval/SOURCE/pass@k` for each source. Empty if
      all problems have the same source, because `evaluation_metrics` has the same values.

    Raises:
      ValueError: `scores` has another shape, or is empty.
    """
    names = np.array([source or "unnamed" for source in sources])
    scores, distinct = _table(scores), dict.fromkeys(names.tolist())
    metrics: dict[str, float] = {}
    for name in distinct if len(distinct) > 1 else ():
        metrics |= _of_scores(f"eval/{name}", scores[names == name], (scores.shape[1],))
    return metrics


def metric_names(samples: int) -> tuple[str, ...]:
    """The names of the metrics that `evaluation_metrics` returns, without that of the standard error.

    Args:
      samples: k, the number of responses to each problem.
    """
    means = ("eval/reflections", "eval/length", "eval/truncated")
    return (f"eval/avg@{samples}", *(f"eval/pass@{k}" for k in _drawn(samples)), *means)


def _of_scores(kind: str, scores: np.ndarray, draws: Iterable[int]) -> dict[str, float]:
    """`kind/avg@k` with its standard error, and `kind/pass@j` for each j of `draws`."""
    k, error, correct = scores.shape[1], standard_error(scores), np.sum(scores >= 1.0, axis=1)
    metrics = {f"{kind}/avg@{k}": avg_at_k(scores)} | ({} if error is None else {f"{kind}/avg@{k}_stderr": error})
    return metrics | {f"{kind}/pass@{j}": pass_at_k(correct, k, j) for j in draws}


def _drawn(samples: int) -> list[int]:
    """The k of pass@k: the powers of two below `samples`, and `samples` itself."""
    return [2**i for i in range(samples.bit_length()) if 2**i < samples] + [samples]


def largest_k(kind: str, names: Iterable[str]) -> str | None:
    """Finds the metric `eval/{kind}@k` with the largest k.

    Args:
      kind: "avg" or "pass".
      names: names of metrics.

    Returns:
      The name of the metric; None if there is none.
    """
    found = by_k(kind, names)
    return found[max(found)] if found else None


def by_k(kind: str, names: Iterable[str]) -> dict[int, str]:
    """Finds all metrics `eval/{kind}@k`.

    Args:
      kind: "avg" or "pass".
      names: names of metrics.

    Returns:
      {k: name of the metric}, by rising k.
    """
    found = {int(match[1]): name for name in names if (match := re.fullmatch(rf"eval/{kind}@(\d+)", name))}
    return dict(sorted(found.items()))


def by_source(name: str, names: Iterable[str]) -> dict[str, str]:
    """Finds the metrics of the sources that correspond to a metric of all problems.

    Args:
      name: a metric of all problems, such as "eval/avg@8".
      names: names of metrics.

    Returns:
      {source: name of its metric}, such as {"gsm8k": "eval/gsm8k/avg@8"}.
    """
    what = name.removeprefix("eval/")
    return {
        one[len("eval/") : -len(what) - 1]: one for one in names if re.fullmatch(rf"eval/.+/{re.escape(what)}", one)
    }


def _table(scores: ArrayLike) -> np.ndarray:
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or table.size == 0:
        raise ValueError(f"scores must be f[problems, samples] with at least one entry, got shape {table.shape}")
    return table
