"""The seconds of a run's steps at the bounds of its programs, from assumed lengths of prompts and responses.

All responses have the assumed length, so slots are full to the end. A loop over microbatches skips the empty ones: a
batch packs into its share of the rows. Nothing of the host is counted: verifying, packing, checkpoints.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from prerl_jax.core.phases import Phase
from prerl_jax.plan.program import EVALUATION, Lengths
from prerl_jax.plan.report import Rates, Row
from prerl_jax.plan.sampling import engines
from prerl_jax.rollout.continuous import ContinuousBatchingEngine
from prerl_jax.rollout.plan import BatchingPlan
from prerl_jax.trainer.programs import Programs
from prerl_jax.trainer.setup import Setup


@dataclasses.dataclass(frozen=True)
class Step:
    """A step of a phase at the bound.

    Attributes:
        phase: its name.
        steps: how many the phase has.
        stages: seconds by stage: sample, score, prepare, train.
        tokens: tokens of all responses of a step.
    """

    phase: str
    steps: int
    stages: Mapping[str, float]
    tokens: int

    @property
    def seconds(self) -> float:
        """Of the whole step."""
        return sum(self.stages.values())

    @property
    def rate(self) -> float:
        """Tokens of responses a second."""
        return self.tokens / self.seconds


@dataclasses.dataclass(frozen=True)
class Run:
    """A run at the bound.

    Attributes:
        steps: one for each phase.
        evaluations: how many, and the seconds of one.
        alignments: how many, and the seconds of one.
        chips: the chips that it holds.
    """

    steps: tuple[Step, ...]
    evaluations: tuple[int, float]
    alignments: tuple[int, float]
    chips: int

    @property
    def hours(self) -> float:
        """Of the whole run."""
        more = sum(count * seconds for count, seconds in (self.evaluations, self.alignments))
        return (sum(step.steps * step.seconds for step in self.steps) + more) / 3600

    @property
    def chip_hours(self) -> float:
        """Hours times chips."""
        return self.hours * self.chips


def run_at_bound(programs: Programs, rows: Sequence[Row], rates: Rates, lengths: Lengths, chips: int) -> Run | None:
    """The seconds of a run. None where a program that it needs was not compiled, how often its decoding loops run could
    not be read, or an engine's programs are not known.

    Args:
        programs: the run's programs.
        rows: a row for each of them.
        rates: of a device.
        lengths: assumed.
        chips: how many the run holds.
    """
    setup = programs.setup
    if any(row.work is None or (row.role in ("decode", "sample") and row.unbounded) for row in rows):
        return None
    sampling = {name: _sampling(programs, rows, rates, lengths, name) for name in _samplers(setup)}
    if None in sampling.values():
        return None
    steps = tuple(
        Step(
            phase.name,
            phase.steps,
            {"sample": sampling[phase.name] or 0.0, **_updates(programs, rows, rates, lengths, phase)},
            setup.rows * lengths.response,
        )
        for phase in setup.phases
    )
    aligned = next((row.seconds(rates) or 0.0 for row in rows if row.role == "align"), 0.0)
    calls = setup.evaluation_calls
    asked = len(setup.evaluation) * setup.config.evaluation.samples
    evaluation = (sampling[EVALUATION] or 0.0) * math.ceil(asked / (calls.prompts * calls.group_size))
    return Run(steps, (evaluations(setup), evaluation), (alignments(setup), aligned), chips)


def evaluations(setup: Setup) -> int:
    """Before the first step, every `evaluation.every` steps, and at the end of each phase."""
    ends, every = [0], setup.config.evaluation.every
    for phase in setup.phases:
        ends.append(ends[-1] + phase.steps)
    return len({*ends, *(range(0, ends[-1], every) if every else ())})


def alignments(setup: Setup) -> int:
    """At step 1, and every `alignment.every` steps from there."""
    every, steps = setup.config.alignment.every, sum(phase.steps for phase in setup.phases)
    return -(-steps // every) if every else 0


def _samplers(setup: Setup) -> list[str]:
    return [*(phase.name for phase in setup.phases), EVALUATION]


def _sampling(programs: Programs, rows: Sequence[Row], rates: Rates, lengths: Lengths, who: str) -> float | None:
    """Seconds of one call of the engine of a phase, or of evaluation; None for an engine that is not known."""
    mine = [row for row in rows if who in row.phases]
    most = programs.setup.config.sampling.max_new_tokens
    for names, engine, prompts in engines(programs):
        if who in names and isinstance(engine, ContinuousBatchingEngine):
            asked = prompts * engine.group_size
            return continuous_seconds(
                engine.plan(asked, programs.setup.config.data.max_prompt_tokens), asked, mine, rates, lengths.response
            )
        static = [row.seconds(rates) or 0.0 for row in mine if row.role == "sample"]
        if who in names and static:
            return static[0] * lengths.response / most
    return None


def continuous_seconds(plan: BatchingPlan, asked: int, rows: Sequence[Row], rates: Rates, tokens: int) -> float:
    """Seconds in which continuous batching decodes responses of equal length.

    The first responses begin in the shortest ring and grow it. Those after them decode in the ring that is there.

    Args:
        plan: the numbers of the engine.
        asked: responses of the call.
        rows: of the engine's programs.
        rates: of a device.
        tokens: of each response.
    """
    once = sum(row.seconds(rates) or 0.0 for row in rows if row.role in ("copy", "prefill"))
    a_token = {row.columns: (row.seconds(rates) or 0.0) / row.tokens for row in rows if row.role == "decode"}
    grown = [row.seconds(rates) or 0.0 for row in rows if row.role == "grow"]
    last = next((ring for ring in plan.rings if ring >= tokens), plan.rings[-1])
    before, first = 0, 0.0
    for ring in plan.rings[: plan.rings.index(last) + 1]:
        until = tokens if ring == last else ring
        first += (until - before) * a_token[ring]
        before = until
    later = (asked / plan.slots - 1) * tokens * a_token[last]
    return once + first + later + sum(grown[: plan.rings.index(last)])


def _updates(programs: Programs, rows: Sequence[Row], rates: Rates, lengths: Lengths, phase: Phase) -> dict[str, float]:
    """Seconds of scoring, preparing and training in a step of a phase."""
    share = packed_share(programs, phase, lengths)
    times = {"score": share, "values": 1.0, "prepare": phase.updates, "train": phase.updates * share}
    found: dict[str, float] = {}
    for row in rows:
        if row.role in times and phase.name in row.phases:
            stage = "score" if row.role == "values" else row.role
            found[stage] = found.get(stage, 0.0) + times[row.role] * (row.seconds(rates) or 0.0)
    return found


def packed_share(programs: Programs, phase: Phase, lengths: Lengths) -> float:
    """The share of a batch's microbatches that its packed rows fill, if every response is trained on."""
    setup = programs.setup
    rows, length = programs.batching.shape
    terms = [term.space.traits.given_prompt for term in phase.all_terms]
    tokens = sum(setup.rows * (lengths.response + (lengths.prompt if given else 1)) for given in terms)
    parts = rows // setup.part_rows
    return min(1.0, math.ceil(parts * tokens / (rows * length)) / parts)
