"""A step's rollouts: problems drawn from the data, responses sampled and verified, and drawn again where asked for.

Rows are verified as they end, while the device decodes the others.

Groups whose rewards are all equal have no advantage. A phase with `max_resamples` puts mixed groups of further draws in their
places (dynamic sampling, DAPO, arXiv 2503.14476), in the order in which they were drawn, and leaves them where there
are none to be had. A draw is a batch of prompts from the data, sampled from the same policy; its prompts have ids of
their own, so its randomness is a function of (seed, step, draw, prompt, sample). What is drawn is put together over all
processes: the batch, and how often is drawn, are those of a single one.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import numpy as np

from prerl_jax.core.types import Array, Prompts, Rollouts
from prerl_jax.data import left_pad
from prerl_jax.evaluation.sampling import broken, require_whole, texts
from prerl_jax.evaluation.verification import Verification
from prerl_jax.runtime.distributed import share_errors
from prerl_jax.runtime.mesh import gather_rows, global_rows
from prerl_jax.runtime.profile import annotate
from prerl_jax.trainer.steps import Step, problems_of

if TYPE_CHECKING:
    from prerl_jax.trainer.loop import Run


@dataclasses.dataclass(frozen=True)
class Draw:
    """A batch of prompts and their verified rollouts, this process's."""

    problems: np.ndarray
    """i32[prompts], which of the data."""
    rollouts: Rollouts
    responses: list[str]
    late: np.ndarray
    """bool[rows]."""

    def mixed(self, group_size: int) -> np.ndarray:
        """bool[prompts], of all processes: whether a group's rewards are not all equal."""
        rewards = self.rollouts.rewards.reshape(-1, group_size)
        return gather_rows((rewards != rewards[:, :1]).any(axis=1))


def sample(run: Run, step: Step, check: Callable[[], None]) -> None:
    """Fills in a step's examples, rollouts and verdicts; `check` raises what has gone wrong in the background."""
    group_size = run.setup.config.sampling.group_size
    key, step.key = run.programs.step_keys(run.state.rng, step.number - 1)
    draws = [_draw(run, step, key, 0, check)]
    problems, step.rollouts, step.responses = draws[0].problems, draws[0].rollouts, draws[0].responses
    if step.phase.max_resamples:
        step.counted = dict(run.programs.statistics(global_rows(run.setup.mesh, draws[0].rollouts)))
        mixed = [draws[0].mixed(group_size)]
        while np.sum(mixed) < len(mixed[0]) and len(draws) <= step.phase.max_resamples:
            draws.append(_draw(run, step, key, len(draws), check))
            mixed.append(draws[-1].mixed(group_size))
        places, sources = replacements(np.stack(mixed))
        problems, step.rollouts, step.responses = _put_together(run, draws, places, sources)
        counted = {"train/draws": len(draws), "train/mixed_groups": mixed[0].sum() + len(places)}
        step.counted |= {name: np.float32(n) for name, n in counted.items()}
    step.examples = [run.setup.train[i] for i in problems]
    step.drawn = [draw.rollouts for draw in draws]
    step.late = gather_rows(np.concatenate([draw.late for draw in draws]))
    step.position = run.batches.get_state()
    step.times.mark("verified")


def _draw(run: Run, step: Step, key: Array, number: int, check: Callable[[], None]) -> Draw:
    """The step's first draw, number 0, or a further one."""
    setup, config = run.setup, run.setup.config
    problems = next(run.batches)
    examples = [setup.train[i] for i in problems]
    prompts = left_pad(examples, config.data.max_prompt_tokens, setup.pad_token)
    first = config.sampling.prompts_per_step * number + len(examples) * jax.process_index()
    prompts = Prompts(prompts.prompt, prompts.prompt_mask, first + np.arange(len(examples), dtype=np.int32))
    with Verification(setup, run.verify, problems_of(examples, config.sampling.group_size)) as verification:
        with annotate("sample"):
            engine = run.programs.engine(step.phase)
            before = step.times.marks.get("sampled", step.times.marks["begun"])
            step.times.idle.append((before, time.perf_counter()))
            sampled = engine.sample(run.state.params, prompts, key, verification.add)
            rollouts = sampled.rollouts
        step.times.idle += sampled.idle
        step.times.mark("sampled")
        with share_errors("verification"):
            check()
            require_whole(broken(rollouts), f"of step {step.number}")
            verdicts = verification.verdicts()
    rollouts = dataclasses.replace(rollouts, rewards=verdicts.verified.rewards, truncated=verdicts.cut)
    return Draw(problems, rollouts, verdicts.responses, verdicts.verified.late)


def replacements(mixed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which groups of the first draw are replaced, and by which.

    Args:
      mixed: bool[draws, prompts], whether a group's rewards are not all equal.

    Returns: (i64[n] groups of the first draw, i64[n] those that take their places, counted on from the first draw).
    """
    places, sources = np.flatnonzero(~mixed[0]), np.flatnonzero(mixed[1:]) + mixed.shape[1]
    count = min(len(places), len(sources))
    return places[:count], sources[:count]


def _put_together(
    run: Run, draws: list[Draw], places: np.ndarray, sources: np.ndarray
) -> tuple[np.ndarray, Rollouts, list[str]]:
    """(problems, rollouts, responses) of this process, with groups at `places` replaced, see `replacements`."""
    problems, rollouts, responses = draws[0].problems.copy(), draws[0].rollouts, list(draws[0].responses)
    local, group_size = len(problems), run.setup.config.sampling.group_size
    start, total = local * jax.process_index(), local * jax.process_count()
    rollouts = jax.tree.map(np.array, rollouts)
    for number, draw in enumerate(draws[1:], 1):
        asked = gather_rows(draw.problems)
        drawn = jax.tree.map(gather_rows, draw.rollouts)
        for place, source in zip(places - start, sources - number * total, strict=True):
            if not (0 <= place < local and 0 <= source < total):
                continue
            problems[place] = asked[source]
            mine, theirs = (slice(n * group_size, (n + 1) * group_size) for n in (place, source))
            for array, other in zip(jax.tree.leaves(rollouts), jax.tree.leaves(drawn), strict=True):
                array[mine] = other[theirs]
            lengths = rollouts.response_mask[mine].sum(axis=1)
            responses[mine] = texts(rollouts.response[mine], lengths, run.setup.decode)
    return problems, rollouts, responses
