"""Statistics of an evaluation: accuracy, pass@k and majority votes of P problems with S sampled responses each.

A response on which the verdict is unknown counts for nothing: a problem has n <= S responses with a known verdict, of
which c are right.

    avg@S  = mean of c / n,                         over problems with n >= 1
    pass@k = mean of 1 - C(n - c, k) / C(n, k),     over problems with n >= k
    maj@S  = mean of the share right of the answer that most responses give,     over problems with n >= 1

C(n - c, k) / C(n, k) is the share of the k-subsets of the responses without a right one. So pass@k is the mean result
of k draws without replacement, an unbiased estimator (Chen et al. 2021, arXiv 2107.03374, eq. 1). It is computed as the
product of (n - c - i) / (n - i) over i < k, which needs no binomials and cannot overflow. It has no unbiased estimator
from fewer than k responses, so such problems are left out.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """The verdicts on k responses to each of P problems.

    Attributes:
      right: bool[P, k], True where the verdict is "right".
      known: bool[P, k], False where the verdict is "unknown".
      rewards: f[P, k]; not read where the verdict is unknown.
      answers: u64[P, k], equal numbers for equal answers, 0 where a response has none.

    Raises:
      ValueError: the shapes differ, or there is no problem or no response.
    """

    right: np.ndarray
    known: np.ndarray
    rewards: np.ndarray
    answers: np.ndarray

    def __post_init__(self) -> None:
        shapes = {field.name: np.shape(getattr(self, field.name)) for field in dataclasses.fields(self)}
        if self.right.ndim != 2 or self.right.size == 0 or len(set(shapes.values())) > 1:
            raise ValueError(f"outcomes are [problems, samples], with at least one entry each, got shapes {shapes}")

    @property
    def samples(self) -> int:
        """k, the number of responses to each problem."""
        return self.right.shape[1]

    @property
    def counted(self) -> np.ndarray:
        """i64[P], the number of responses to each problem whose verdict is known."""
        return self.known.sum(axis=1)

    @property
    def correct(self) -> np.ndarray:
        """i64[P], the number of right responses to each problem."""
        return (self.right & self.known).sum(axis=1)

    def of(self, problems: np.ndarray) -> Outcomes:
        """The outcomes of some problems, bool[P]."""
        return Outcomes(*(getattr(self, field.name)[problems] for field in dataclasses.fields(self)))


def pass_at_k(correct: ArrayLike, samples: ArrayLike, k: int) -> float:
    """The probability that at least one of k responses to a problem, drawn without replacement, is right.

    Args:
      correct: int[P], the number of right responses to each problem, from 0 to its `samples`.
      samples: int or int[P], the number of responses to each problem.
      k: how many responses are drawn, from 1 to the smallest of `samples`.

    Returns:
      The mean over problems, in [0, 1].

    Raises:
      ValueError: an argument is outside these ranges, or there is no problem.
    """
    correct, samples = np.asarray(correct), np.asarray(samples)
    if correct.ndim != 1 or correct.size == 0 or samples.shape not in ((), correct.shape):
        raise ValueError(f"pass@{k} needs one count a problem, int[problems], got shape {correct.shape}")
    if not 1 <= k <= samples.min():
        raise ValueError(f"pass@{k} needs 1 <= k <= samples, and there are {samples.min()} samples a problem")
    if correct.min() < 0 or (correct > samples).any():
        raise ValueError(f"counts of right responses range over {correct.min()}..{correct.max()}, not 0..{samples}")
    draws, samples = np.arange(k), np.broadcast_to(samples, correct.shape)[:, None]
    # If a problem has fewer than k wrong responses, one factor is 0 and so is the product. The later factors are
    # clipped to [0, 1], so the product cannot overflow in any order.
    wrong = np.clip(samples - correct[:, None] - draws, 0, None) / (samples - draws)
    return float(np.mean(1.0 - np.prod(wrong, axis=1)))


def avg_at_k(outcomes: Outcomes) -> float:
    """The accuracy: the mean over problems of the share of right responses; NaN where no verdict is known."""
    counted = outcomes.counted
    some = counted > 0
    if not some.any():
        return math.nan
    # A right response of a problem with n known ones counts k / n. Where all are known, this is a sum of integers.
    right = outcomes.correct[some] * (outcomes.samples / counted[some])
    return float(right.sum() / (some.sum() * outcomes.samples))


def standard_error(outcomes: Outcomes) -> float | None:
    """The standard error of avg@k; None for fewer than two problems with a known verdict.

    It is computed from the spread of the problems' accuracies, because problems are independent draws, and several
    responses to one problem are not.
    """
    some = outcomes.counted > 0
    means = outcomes.correct[some] / outcomes.counted[some]
    return float(np.std(means, ddof=1) / np.sqrt(means.size)) if means.size > 1 else None


def majority_at_k(outcomes: Outcomes) -> float | None:
    """The accuracy of majority votes (self-consistency, Wang et al. 2022, arXiv 2203.11171).

    The responses to a problem vote for their answers. A response without an answer, or with an unknown verdict, has no
    vote. The problem gets 1 if the answer with the most votes is right, and 0 if it is wrong or if nobody votes. Where
    answers tie, it gets the mean over them, which is the expected result of choosing one at random. If a verifier
    accepts an answer in some responses only, the answer counts by its share of right ones.

    Returns:
      The mean over problems with a known verdict; None if no response has an answer, so that there are no votes.
    """
    votes = outcomes.known & (outcomes.answers != 0)
    if not votes.any():
        return None
    some = outcomes.counted > 0
    rows = zip(outcomes.answers[some], outcomes.right[some], votes[some], strict=True)
    return float(np.mean([_vote(answers[voting], right[voting]) for answers, right, voting in rows]))


def _vote(answers: np.ndarray, right: np.ndarray) -> float:
    if not answers.size:
        return 0.0
    _, index, votes = np.unique(answers, return_inverse=True, return_counts=True)
    share = np.bincount(index, weights=right) / votes
    return float(share[votes == votes.max()].mean())


def evaluation_metrics(
    outcomes: Outcomes, lengths: ArrayLike, truncated: ArrayLike, reflections: ArrayLike
) -> dict[str, float]:
    """The `eval/` metrics of P problems with k sampled responses each.

    Args:
      outcomes: the verdicts. Truncated responses are wrong.
      lengths: i[P, k], tokens of each response, the stop token included.
      truncated: bool[P, k], whether a response reached the length limit.
      reflections: i[P, k], reflection markers in the text of a response.

    Returns:
      Metric name -> value: `eval/avg@k`; `eval/avg@k_stderr`, its standard error over problems (not for a single
      problem); `eval/pass@k`, and `eval/pass@j` for the powers of two j < k, NaN where no problem has that many known
      verdicts; `eval/maj@k`, if the verifier names answers; `eval/reward`, the mean over responses with a known
      verdict; `eval/unknown`, the share of responses with an unknown one; `eval/incomplete`, the share of problems with
      such a response, which `eval/pass@k` leaves out; and the means over responses `eval/reflections`, `eval/length`
      and `eval/truncated`.

    Raises:
      ValueError: the shapes differ.
    """
    known = outcomes.known
    means = {"eval/reflections": reflections, "eval/length": lengths, "eval/truncated": truncated}
    for name, values in means.items():
        if np.shape(values) != known.shape:
            raise ValueError(f"{name} needs a value for every response: {np.shape(values)}, outcomes {known.shape}")
    metrics = _of_outcomes("eval", outcomes, _drawn(outcomes.samples))
    metrics |= {
        "eval/reward": float(np.asarray(outcomes.rewards, np.float64)[known].mean()) if known.any() else math.nan,
        "eval/unknown": float((~known).mean()),
        "eval/incomplete": float((~known).any(axis=1).mean()),
    }
    return metrics | {name: float(np.asarray(values).mean()) for name, values in means.items()}


def metrics_by_source(outcomes: Outcomes, sources: Sequence[str]) -> dict[str, float]:
    """The accuracy on the problems of each source.

    Args:
      outcomes: the verdicts on P problems.
      sources: the source of each of the P problems; "" counts as "unnamed".

    Returns:
      Metric name -> value: `eval/SOURCE/avg@k`, its standard error, `eval/SOURCE/pass@k` and, if the verifier names
      answers, `eval/SOURCE/maj@k` for each source. Empty if all problems have the same source, because
      `evaluation_metrics` has the same values.
    """
    names = np.array([source or "unnamed" for source in sources])
    distinct = dict.fromkeys(names.tolist())
    metrics: dict[str, float] = {}
    for name in distinct if len(distinct) > 1 else ():
        metrics |= _of_outcomes(f"eval/{name}", outcomes.of(names == name), (outcomes.samples,))
    return metrics


def metric_names(samples: int) -> tuple[str, ...]:
    """The names of an evaluation's metrics, without that of the standard error and those of thoughts.

    `eval/maj@k` and `eval/format_failures` are there if the verifier names answers and says whether formats are right.

    Args:
      samples: k, the number of responses to each problem.
    """
    others = ("reward", "unknown", "incomplete", "format_failures", "reflections", "length", "truncated")
    passed = (f"eval/pass@{k}" for k in _drawn(samples))
    return (f"eval/avg@{samples}", *passed, f"eval/maj@{samples}", *(f"eval/{name}" for name in others))


def _of_outcomes(kind: str, outcomes: Outcomes, draws: Iterable[int]) -> dict[str, float]:
    """`kind/avg@k`, its standard error, `kind/pass@j` for each j of `draws`, and `kind/maj@k` if there are votes."""
    k, error, majority = outcomes.samples, standard_error(outcomes), majority_at_k(outcomes)
    metrics = {f"{kind}/avg@{k}": avg_at_k(outcomes)} | ({} if error is None else {f"{kind}/avg@{k}_stderr": error})
    for j in draws:
        enough = outcomes.counted >= j
        passed = pass_at_k(outcomes.correct[enough], outcomes.counted[enough], j) if enough.any() else math.nan
        metrics[f"{kind}/pass@{j}"] = passed
    return metrics | ({} if majority is None else {f"{kind}/maj@{k}": majority})


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
