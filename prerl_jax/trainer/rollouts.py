"""The rollouts of a step: sampled, verified, and sampled again if the phase has `max_resamples`.

A group whose known rewards are all equal has advantage zero. A phase with `max_resamples` samples further batches of
prompts with the same policy, and replaces such groups by mixed ones, which are groups with different known rewards
(dynamic sampling, DAPO, arXiv 2503.14476). Mixed groups are used in sampling order. If there are too few of them, the
remaining groups are not replaced. The prompts of a resample have ids of their own, so its randomness is a function of
(seed, step, resample, prompt, sample). Groups are replaced across all processes, so the result does not depend on the
number of processes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from prerl_jax.core.phases import Phase
from prerl_jax.core.types import Array, Params, Rollouts
from prerl_jax.data import Example
from prerl_jax.data.arrivals import ExampleStream
from prerl_jax.data.problems import as_text
from prerl_jax.evaluation.sampling import PendingResponses, VerifiedResponses, padded_prompts, problems_of
from prerl_jax.evaluation.sampling import sample as sample_responses
from prerl_jax.evaluation.sampling import verify as verify_responses
from prerl_jax.evaluation.unknown import require_known
from prerl_jax.evaluation.verification import Decode, Verification, Verify, as_texts
from prerl_jax.runtime.distributed import gather_text
from prerl_jax.runtime.gather import gather_rows
from prerl_jax.runtime.mesh import global_rows
from prerl_jax.runtime.profile import annotate
from prerl_jax.runtime.row_share import RowShare
from prerl_jax.trainer.programs import Programs
from prerl_jax.trainer.setup import Setup
from prerl_jax.trainer.timing import StepClock
from prerl_jax.verify import Judgement, Verified


@dataclasses.dataclass(frozen=True)
class PendingRollouts:
    """The sampled responses to one batch of this process's prompts. They may still be in verification.

    Attributes:
      problems: i32[prompts], the numbers of the problems in the training data.
      responses: the responses, `group_size` to each prompt.
    """

    problems: np.ndarray
    responses: PendingResponses


@dataclasses.dataclass(frozen=True)
class RolloutBatch:
    """The verified rollouts of one batch of this process's prompts, on the host.

    Attributes:
      problems: i32[prompts], the numbers of the problems in the training data.
      responses: rollouts, texts and judgements, `group_size` rows for each problem.
    """

    problems: np.ndarray
    responses: VerifiedResponses

    @property
    def rollouts(self) -> Rollouts:
        """The rollouts with their rewards; numpy."""
        return self.responses.rollouts

    def mixed(self, group_size: int, share: RowShare) -> np.ndarray:
        """bool[prompts of all processes], True where the known rewards of a group differ."""
        rewards, known = (np.asarray(x).reshape(-1, group_size) for x in (self.rollouts.rewards, self.rollouts.known))
        low, high = np.where(known, rewards, np.inf).min(axis=1), np.where(known, rewards, -np.inf).max(axis=1)
        return gather_rows(low < high, share)


@dataclasses.dataclass(frozen=True)
class StepRollouts:
    """The rollouts that a step trains on.

    Attributes:
      batch: the rollouts, after replacements.
      sampled: all rollouts that were sampled in the step.
      timeouts: the number of verifier timeouts, over all processes.
      metrics: in a phase with `max_resamples`, the statistics of the first batch and the number of batches; else empty.
    """

    batch: RolloutBatch
    sampled: tuple[Rollouts, ...]
    timeouts: int
    metrics: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class RolloutWorker:
    """Samples and verifies batches of prompts for one step.

    Attributes:
      programs: the run's engines.
      batches: yields the numbers of the next batch of problems, those of all processes.
      verifier: verifies responses.
      check: raises the error of the reporting thread, if there was one.
    """

    programs: Programs
    batches: Iterator[np.ndarray]
    verifier: Verify
    check: Callable[[], None]

    @property
    def setup(self) -> Setup:
        """The run's config, model and mesh."""
        return self.programs.setup

    def sample(self, params: Params, phase: Phase, key: Array, clock: StepClock, number: int = 0) -> PendingRollouts:
        """Samples the next batch of prompts; `number` is 0 for the first batch of a step, n for its n-th resample."""
        setup, sampling = self.setup, self.setup.config.sampling
        mine = setup.share.part(sampling.prompts_per_step)
        problems = next(self.batches)[mine]
        examples = [setup.train[i] for i in problems]
        ids = sampling.prompts_per_step * number + np.arange(mine.start, mine.stop, dtype=np.int32)
        prompts = padded_prompts(examples, setup.tokens, ids)
        verification = Verification(
            problems_of(examples, sampling.group_size),
            self.verifier,
            setup.decode,
            setup.stop_tokens,
            share=setup.share,
        )
        with annotate("sample"):
            engine = self.programs.engine(phase)
            clock.engine_begins()
            responses = sample_responses(engine, params, prompts, key, verification)
        clock.engine_ends(responses.sampled.idle)
        return PendingRollouts(problems, responses)

    def verify(self, pending: PendingRollouts, step: int) -> RolloutBatch:
        """Waits for the verdicts; `step` is named in an error.

        Raises UnknownVerdictsError where too many are unknown.
        """
        where = f"of step {step}"
        batch = RolloutBatch(pending.problems, verify_responses(pending.responses, where, self.check))
        verified = batch.responses.verified
        known, timed_out = gather_rows(np.stack([verified.known, verified.timed_out], axis=1), self.setup.share).T
        require_known(
            known,
            timed_out,
            self.setup.config.data.unknown_limit,
            where,
            problems=problems_of([self.setup.train[i] for i in batch.problems], self.setup.config.sampling.group_size),
            texts=batch.responses.texts,
            verified=verified,
        )
        return batch

    def resample(
        self, first: RolloutBatch, params: Params, phase: Phase, key: Array, clock: StepClock, step: int
    ) -> StepRollouts:
        """Replaces groups of equal rewards by mixed groups of further batches, if the phase has `max_resamples`."""
        batches = [first]
        metrics: dict[str, Any] = {}
        batch = first
        if phase.max_resamples:
            group_size, share = self.setup.config.sampling.group_size, self.setup.share
            metrics = dict(self.programs.statistics(global_rows(self.setup.mesh, first.rollouts, share)))
            mixed = [first.mixed(group_size, share)]
            while np.sum(mixed) < len(mixed[0]) and len(batches) <= phase.max_resamples:
                batches.append(self.verify(self.sample(params, phase, key, clock, len(batches)), step))
                mixed.append(batches[-1].mixed(group_size, share))
            places, sources = replacements(np.stack(mixed))
            batch = replace_groups(batches, places, sources, group_size, self.setup.decode, share)
            counts = {"train/sampled_batches": len(batches), "train/mixed_groups": mixed[0].sum() + len(places)}
            metrics |= {name: np.float32(count) for name, count in counts.items()}
        timed_out = gather_rows(np.concatenate([b.responses.verified.timed_out for b in batches]), self.setup.share)
        sampled = tuple(b.rollouts for b in batches)
        return StepRollouts(batch, sampled, int(timed_out.sum()), metrics)


def replacements(mixed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Chooses the groups of the first batch to replace, and their replacements.

    Args:
      mixed: bool[batches, prompts], True where the known rewards of a group differ.

    Returns: (groups of the first batch i64[n]; their replacements i64[n], where group g of batch b has the number
      b * prompts + g).
    """
    places, sources = np.flatnonzero(~mixed[0]), np.flatnonzero(mixed[1:]) + mixed.shape[1]
    count = min(len(places), len(sources))
    return places[:count], sources[:count]


def replace_groups(
    batches: Sequence[RolloutBatch],
    places: np.ndarray,
    sources: np.ndarray,
    group_size: int,
    decode: Decode,
    share: RowShare,
) -> RolloutBatch:
    """The first batch of this process, with the groups at `places` replaced; see `replacements`.

    Args:
      batches: the first batch and the resamples.
      places: i64[n], groups of the first batch over all processes.
      sources: i64[n], the groups that replace them.
      group_size: rows of a group.
      decode: turns token ids into text.
      share: the rows of this process.
    """
    first = batches[0]
    problems, texts = first.problems.copy(), list(first.responses.texts)
    judgements, timed_out = list(first.responses.verified.judgements), first.responses.verified.timed_out.copy()
    rollouts = jax.tree.map(np.array, first.rollouts)
    local = len(problems)
    start, total = local * share.index, local * share.count
    for number, batch in enumerate(batches[1:], 1):
        all_problems = gather_rows(batch.problems, share)
        all_rollouts = jax.tree.map(lambda rows: gather_rows(rows, share), batch.rollouts)
        all_timed_out = gather_rows(batch.responses.verified.timed_out, share)
        all_judgements = _gather_judgements(batch.responses.verified.judgements, share)
        for place, source in zip(places - start, sources - number * total, strict=True):
            if not (0 <= place < local and 0 <= source < total):
                continue
            problems[place] = all_problems[source]
            mine, theirs = (slice(n * group_size, (n + 1) * group_size) for n in (place, source))
            for array, other in zip(jax.tree.leaves(rollouts), jax.tree.leaves(all_rollouts), strict=True):
                array[mine] = other[theirs]
            timed_out[mine], judgements[mine] = all_timed_out[theirs], all_judgements[theirs]
            lengths = rollouts.response_mask[mine].sum(axis=1)
            texts[mine] = as_texts(rollouts.response[mine], lengths, decode)
    return RolloutBatch(problems, VerifiedResponses(rollouts, texts, Verified(judgements, timed_out)))


def _gather_judgements(judgements: Sequence[Judgement], share: RowShare) -> list[Judgement]:
    """The judgements of all row groups, in the order of the groups."""
    texts = gather_text(json.dumps([dataclasses.astuple(judgement) for judgement in judgements]))
    return [Judgement(*fields) for text in share.once(texts) for fields in json.loads(text)]


def completions(
    batch: RolloutBatch, examples: Sequence[Example] | ExampleStream, phase: str, count: int
) -> list[dict[str, Any]]:
    """Up to `count` responses of a batch as rows of completions.jsonl, evenly spread over its groups.

    Args:
      batch: the rollouts.
      examples: the training data.
      phase: the name of the phase.
      count: how many rows at most.

    Returns: the rows. "verdict" is "right", "wrong" or "unknown", "reward" is None where it is unknown, and "extracted"
      is the answer that the verifier found in the response, None where it names none.
    """
    responses = batch.responses
    group_size = len(responses.texts) // len(batch.problems)
    problems = problems_of([examples[i] for i in batch.problems], group_size)
    count = min(count, len(problems))
    truncated = np.asarray(responses.rollouts.truncated)
    return [
        {
            "phase": phase,
            "prompt": as_text(problems[row].prompt),
            "answer": problems[row].answer,
            "response": responses.texts[row],
            "reward": None if judgement.verdict == "unknown" else judgement.reward,
            "verdict": judgement.verdict,
            "extracted": judgement.answer,
            "truncated": bool(truncated[row]),
        }
        for row in (i * len(problems) // count for i in range(count))
        for judgement in (responses.verified.judgements[row],)
    ]
