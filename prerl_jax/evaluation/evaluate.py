"""Evaluation on held-out problems: k responses to each problem, with the same randomness every time.

Responses are verified, and thoughts in them are counted, while the device still decodes other responses.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from prerl_jax.analysis.passk import Outcomes, evaluation_metrics, metrics_by_source
from prerl_jax.analysis.thoughts import count_matches, count_thoughts
from prerl_jax.config.measuring import EvaluationSpec
from prerl_jax.core.types import Params
from prerl_jax.data import Example
from prerl_jax.data.problems import Problem
from prerl_jax.evaluation.sampling import (
    TokenFormat,
    await_verdicts,
    not_finite,
    padded_prompts,
    problems_of,
    sample,
)
from prerl_jax.evaluation.unknown import require_known
from prerl_jax.evaluation.verification import Verdicts, Verification, Verify
from prerl_jax.rollout.engine import Engine
from prerl_jax.runtime.gather import gather_rows
from prerl_jax.runtime.mesh import replicate
from prerl_jax.runtime.row_share import RowShare
from prerl_jax.verify import Verified


@dataclasses.dataclass(frozen=True)
class CallShape:
    """The size of one call of the engine.

    Attributes:
      group_size: responses to a prompt in one call.
      prompts: prompts in one call, over all processes.
    """

    group_size: int
    prompts: int


def call_shape(problems: int, samples: int, prompts_per_step: int, group_size: int, shards: int) -> CallShape:
    """The calls in which `samples` responses to each of `problems` problems are sampled.

    A call has at most as many rows as a training step, and its prompts divide over the mesh. If `samples` is a multiple
    of `group_size` and the problems fill at least half of a training step, a call has exactly the shape of a training
    step, and no further program is compiled. If k responses to the problems are too many rows, several calls sample a
    part of them each.

    Args:
      problems: the number of problems.
      samples: responses to each problem.
      prompts_per_step: prompts of a training step.
      group_size: responses to a prompt in training.
      shards: the number of parts that a batch is split into over the mesh.
    """
    if samples % group_size == 0 and 2 * problems * (samples // group_size) >= prompts_per_step:
        return CallShape(group_size, prompts_per_step)
    rows = prompts_per_step * group_size
    size = max(n for n in range(1, samples + 1) if samples % n == 0 and (n == 1 or n * shards <= rows))
    asked = problems * (samples // size)
    return CallShape(size, shards * max(1, min(rows // size, asked) // shards))


def evaluate(
    engine: Engine,
    params: Params,
    examples: Sequence[Example],
    spec: EvaluationSpec,
    shape: CallShape,
    *,
    tokens: TokenFormat,
    mesh: Mesh,
    share: RowShare,
    verify: Verify,
    unknown_limit: float,
) -> dict[str, float]:
    """The `eval/` metrics of a policy, and the number of verifier timeouts; the same on every process.

    The randomness of a response comes from (spec.seed, problem, sample) alone, however the problems are spread over
    calls. So two evaluations differ by the policy only.

    Args:
      engine: samples `shape.group_size` responses to each prompt.
      params: the policy.
      examples: the problems with their prompt tokens.
      spec: samples, seed, and the thoughts to count.
      shape: the size of the engine's calls, see `call_shape`.
      tokens: how prompts are padded and responses become text.
      mesh: the devices.
      share: the rows that this process samples and verifies.
      verify: verifies responses.
      unknown_limit: the largest share of unknown verdicts, in [0, 1).

    Raises ValueError where the policy's logits are not finite, UnknownVerdictsError where more verdicts are unknown,
    and what the verifier raises.
    """
    calls = _calls(len(examples) * (spec.samples // shape.group_size), shape.prompts, share)
    sampled = _sampled(
        engine, params, examples, spec, shape, calls, tokens=tokens, mesh=mesh, share=share, verify=verify
    )
    verified, sizes = sampled.verdicts.verified, (len(calls), len(examples), spec.samples)
    outcomes = _outcomes(verified, sizes, share)
    columns = [verified.timed_out, _format(verified), sampled.lengths, sampled.verdicts.truncated]
    others = _gathered(np.column_stack([*columns, sampled.verdicts.measured]).astype(np.float32), sizes, share)
    require_known(
        outcomes.known.ravel(),
        others[0].ravel(),
        unknown_limit,
        "of an evaluation",
        problems=sampled.problems,
        texts=sampled.verdicts.texts,
        verified=verified,
    )
    return _metrics(outcomes, others, examples, spec)


@dataclasses.dataclass(frozen=True)
class _Sampled:
    """The B responses of this process: their problems, i64[B] lengths, and verdicts."""

    problems: list[Problem]
    lengths: np.ndarray
    verdicts: Verdicts


def _sampled(
    engine: Engine,
    params: Params,
    examples: Sequence[Example],
    spec: EvaluationSpec,
    shape: CallShape,
    calls: np.ndarray,
    *,
    tokens: TokenFormat,
    mesh: Mesh,
    share: RowShare,
    verify: Verify,
) -> _Sampled:
    """Samples and verifies the responses of `calls`, see `_calls`. The other arguments are those of `evaluate`."""
    rounds = spec.samples // shape.group_size
    problems = problems_of([examples[i // rounds] for i in calls.ravel()], shape.group_size)
    measure = functools.partial(_count, spec)
    key = replicate(mesh, jax.random.PRNGKey(spec.seed))  # placed as in training, so both use one program
    lengths, broken = [], []
    with Verification(problems, verify, tokens.decode, tokens.stop_tokens, measure, share) as verification:
        for number, call in enumerate(calls):
            prompts = padded_prompts([examples[i // rounds] for i in call], tokens, (call // rounds).astype(np.int32))
            prompts = dataclasses.replace(prompts, first_sample=(call % rounds * shape.group_size).astype(np.int32))
            first_row = number * len(call) * shape.group_size
            rollouts = sample(engine, params, prompts, key, verification, first_row).sampled.rollouts
            lengths.append(np.asarray(rollouts.response_mask).sum(axis=1))
            broken.append(not_finite(rollouts))
        verdicts = await_verdicts(verification, np.concatenate(broken), "of an evaluation")
    return _Sampled(problems, np.concatenate(lengths), verdicts)


def _calls(count: int, prompts: int, share: RowShare) -> np.ndarray:
    """i64[calls, prompts of this process]: which of `count` prompts are sampled in each call.

    The last call is filled up with the first prompts, so that all calls have one shape and use one program. The extra
    responses are not counted.
    """
    return np.arange(-(-count // prompts) * prompts).reshape(-1, prompts)[:, share.part(prompts)] % count


def _gathered(local: np.ndarray, sizes: tuple[int, int, int], share: RowShare) -> np.ndarray:
    """This process's rows [B, columns] as the table [columns, problems, samples] of all processes.

    `sizes` is (calls, problems, samples). Responses that only fill up the last call are left out.
    """
    calls, problems, samples = sizes
    rows = gather_rows(local.reshape(1, calls, -1, local.shape[1]), share).swapaxes(0, 1).reshape(-1, local.shape[1])
    return np.moveaxis(rows[: problems * samples].reshape(problems, samples, -1), 2, 0)


def _outcomes(verified: Verified, sizes: tuple[int, int, int], share: RowShare) -> Outcomes:
    """The verdicts of all processes on each problem; `sizes` as in `_gathered`."""
    verdicts = np.column_stack([verified.right, verified.known, verified.rewards]).astype(np.float32)
    right, known, rewards = _gathered(verdicts, sizes, share)
    low, high = _gathered(_answers(verified), sizes, share).astype(np.uint64)
    return Outcomes(right.astype(bool), known.astype(bool), rewards, low | high << np.uint64(32))


def _answers(verified: Verified) -> np.ndarray:
    """u32[B, 2]: 64 bits of a hash of each response's answer, and 0 where it has none.

    The empty text is no answer. Numbers are gathered from all processes, which texts cannot be.
    """
    found = np.zeros((len(verified.judgements), 8), np.uint8)
    for row, judgement in enumerate(verified.judgements):
        if judgement.answer:
            digest = hashlib.blake2b(judgement.answer.encode("utf-8", "surrogatepass"), digest_size=8).digest()
            found[row] = np.frombuffer(digest, np.uint8)
    return found.view(np.uint32)


def _format(verified: Verified) -> np.ndarray:
    """f32[B]: 1 where the response has the format that the verifier asks for, 0 where not, -1 where it does not say."""
    said = [judgement.format_ok for judgement in verified.judgements]
    return np.array([-1.0 if ok is None else float(ok) for ok in said], np.float32)


def _metrics(
    outcomes: Outcomes, columns: np.ndarray, examples: Sequence[Example], spec: EvaluationSpec
) -> dict[str, float]:
    """The metrics of the verdicts, and of the other columns f32[columns, problems, samples].

    `eval/format_failures` is a share of the responses on whose format the verifier says something. Truncated responses
    are not verified, and not among them.
    """
    timed_out, format_ok, lengths, truncated, reflections, *thoughts = columns
    metrics = evaluation_metrics(outcomes, lengths, truncated, reflections)
    metrics |= metrics_by_source(outcomes, [example.problem.source for example in examples])
    said = (format_ok >= 0) & (truncated == 0)
    if said.any():
        metrics["eval/format_failures"] = float((format_ok[said] == 0).mean())
    for thought, counts in zip(spec.thoughts, thoughts, strict=True):
        metrics[thought.metric] = float(counts.mean())
    return metrics | {"time/verifier_timeouts_of_evaluation": float(timed_out.sum())}


def _count(spec: EvaluationSpec, texts: Sequence[str]) -> np.ndarray:
    """f32[B, 1 + N]: reflections, and thoughts of each kind, in B responses."""
    columns = [count_matches(spec.reflection, texts), *count_thoughts(texts, spec.thoughts).values()]
    return np.stack(columns, axis=1).astype(np.float32)
