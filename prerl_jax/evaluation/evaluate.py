"""Evaluation on held-out problems: k responses each, with the same randomness every time.

Responses are verified, and thoughts in them counted, as they end: while the device decodes the others.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import numpy as np

from prerl_jax.analysis.passk import evaluation_metrics, metrics_by_source
from prerl_jax.analysis.thoughts import count_matches, count_thoughts
from prerl_jax.config.schema import EvaluationSpec
from prerl_jax.core.types import Params, Prompts
from prerl_jax.data import left_pad
from prerl_jax.evaluation.sampling import broken, require_whole
from prerl_jax.evaluation.verification import Verification
from prerl_jax.runtime.distributed import share_errors
from prerl_jax.runtime.mesh import gather_rows, replicate
from prerl_jax.trainer.programs import Programs
from prerl_jax.trainer.setup import evaluation_shape
from prerl_jax.verify import InProcessVerifier, Pool


def evaluate(programs: Programs, params: Params, verify: Pool | InProcessVerifier | None = None) -> dict[str, float]:
    """The `eval/` metrics of these parameters, and how many verdicts were late; the same on every process.

    A sample's randomness comes from (evaluation.seed, problem, sample), whatever the calls that problems are asked in,
    so two evaluations differ by the policy alone.
    Without `verify` the config's verifier is called in this process.

    Raises ValueError where the policy's logits are not finite.
    """
    setup, spec = programs.setup, programs.setup.config.evaluation
    examples, processes = setup.evaluation, jax.process_count()
    group_size, size = evaluation_shape(setup)
    rounds = spec.samples // group_size
    key = replicate(setup.mesh, jax.random.PRNGKey(spec.seed))  # placed as in training: one program
    # A problem is asked `rounds` times. The last call is filled up from the front: one shape, one program; what is too
    # many is cut off again below.
    count = len(examples) * rounds
    calls = (
        np.arange(-(-count // size) * size).reshape(-1, processes, size // processes)[:, jax.process_index()] % count
    )
    problems = [examples[i // rounds].problem for i in calls.ravel() for _ in range(group_size)]
    verify, measure = verify or InProcessVerifier(setup.config.data.verifier), functools.partial(_counts, spec)
    said = []
    with Verification(setup, verify, problems, measure) as verification:
        for number, asked in enumerate(calls):
            prompts = left_pad(
                [examples[i // rounds] for i in asked], setup.config.data.max_prompt_tokens, setup.pad_token
            )
            ids, first = (asked // rounds).astype(np.int32), (asked % rounds * group_size).astype(np.int32)
            prompts = Prompts(prompts.prompt, prompts.prompt_mask, ids, first)
            told = functools.partial(_told, verification, number * len(asked) * group_size)
            rollouts = programs.engine(None).sample(params, prompts, key, told).rollouts
            said.append((rollouts.response_mask.sum(axis=1), broken(rollouts)))
        with share_errors("verification in an evaluation"):
            lengths, noise = (np.concatenate(parts) for parts in zip(*said, strict=True))
            require_whole(noise, "of an evaluation")
            found = verification.verdicts()
    columns = [found.verified.rewards, lengths, found.cut, found.verified.late]
    local = np.concatenate([np.stack(columns, axis=1), found.measured], axis=1, dtype=np.float32)
    everyone = gather_rows(local.reshape(1, len(calls), -1, local.shape[1])).swapaxes(0, 1).reshape(-1, local.shape[1])
    table = everyone[: len(examples) * spec.samples].reshape(len(examples), spec.samples, -1)
    rewards, lengths, cut, late, reflections, *thoughts = np.moveaxis(table, 2, 0)
    metrics = evaluation_metrics(rewards, lengths, cut, reflections)
    metrics |= metrics_by_source(rewards, [example.problem.source for example in examples])
    for thought, counts in zip(spec.thoughts, thoughts, strict=True):
        metrics[thought.metric] = float(counts.mean())
    return metrics | {"time/verifier_timeouts_of_evaluation": float(late.sum())}


def _told(verification: Verification, start: int, rows: np.ndarray, *said: np.ndarray) -> None:
    """An `OnComplete` of a call whose first row is row `start` of all."""
    verification.add(start + rows, *said)


def _counts(spec: EvaluationSpec, responses: Sequence[str]) -> np.ndarray:
    """f32[B, 1 + N]: reflections, and thoughts of each kind."""
    columns = [count_matches(spec.reflection, responses), *count_thoughts(responses, spec.thoughts).values()]
    return np.stack(columns, axis=1).astype(np.float32)
