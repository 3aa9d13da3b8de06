"""The specs of what a run measures and writes: evaluation, gradient alignment and checkpoints."""

from __future__ import annotations

import dataclasses
import re

from prerl_jax.analysis.passk import metric_names
from prerl_jax.analysis.thought_patterns import THOUGHTS, Thought
from prerl_jax.analysis.thoughts import count_thoughts
from prerl_jax.config.fields import require_at_least, require_probability, require_seed


@dataclasses.dataclass(frozen=True)
class EvaluationSpec:
    """Evaluation on the held-out problems: before the first step, every `every` steps, and at the end of each phase.

    Attributes:
      every: steps between evaluations inside a phase, 0 or more; 0 evaluates at the ends only.
      samples: responses per problem, 1 or more: the k of eval/avg@k.
      temperature: 0 or more; 0 is greedy.
      top_k: as in `SamplingSpec`. Evaluation trains on nothing, so a number is harmless.
      top_p: as in `SamplingSpec`.
      limit: evaluates the first `limit` problems of each source; None evaluates all.
      seed: of the sampling, from 0 to 2**32 - 1. All evaluations use the same one, so two of them differ by the policy.
      reflection: a regular expression; eval/reflections counts its matches in a response.
      thoughts: kinds of thoughts; eval/thoughts/NAME counts those in a response.

    Raises:
      ValueError: a field is out of its range, a pattern is no regular expression or matches the empty text, or two
        kinds of thoughts have one name.
    """

    every: int = 25
    samples: int = 8
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    limit: int | None = None
    seed: int = 0
    reflection: str = r"(?i)\bwait\b"
    thoughts: tuple[Thought, ...] = THOUGHTS

    def __post_init__(self) -> None:
        require_at_least(0, "evaluation.", every=self.every, temperature=self.temperature)
        require_seed("evaluation.seed", self.seed)
        require_at_least(1, "evaluation.", samples=self.samples, top_k=self.top_k, limit=self.limit)
        require_probability("evaluation.top_p", self.top_p)
        try:
            pattern = re.compile(self.reflection)
        except re.error as error:
            raise ValueError(f"evaluation.reflection {self.reflection!r} is no regular expression: {error}.") from error
        if pattern.search("") is not None:
            raise ValueError(
                f"evaluation.reflection {self.reflection!r} matches the empty text, so eval/reflections would count "
                "places in a response. Give a pattern that matches at least one character."
            )
        names = [thought.name for thought in self.thoughts]
        if len(set(names)) < len(names):
            raise ValueError(f"evaluation.thoughts are named {names}; give each its own name.")
        count_thoughts([""], self.thoughts)  # raises for a pattern that is no regular expression or matches ""

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the `eval/` metrics, except that of the standard error."""
        return (*metric_names(self.samples), *(thought.metric for thought in self.thoughts))


@dataclasses.dataclass(frozen=True)
class CheckpointSpec:
    """Which checkpoints are written and kept. The one at a phase's end is always written and never deleted.

    Attributes:
      every: steps between checkpoints inside a phase, 0 or more; 0 writes none there.
      keep_last: how many of the latest are kept, 1 or more.
      best: the name of an `eval/` metric. The checkpoint where it is highest is kept, too, among those of steps with an
        evaluation. None keeps none for a metric.

    Raises:
      ValueError: a field is out of its range.
    """

    every: int = 25
    keep_last: int = 2
    best: str | None = "eval/avg@8"

    def __post_init__(self) -> None:
        require_at_least(0, "checkpoints.", every=self.every)
        require_at_least(1, "checkpoints.", keep_last=self.keep_last)


@dataclasses.dataclass(frozen=True)
class AlignmentSpec:
    """Measurements of how well the gradients of log P(y) and log P(y|x) align, taken before the update of a step.

    Attributes:
      every: steps between measurements, the first at step 1; 0 or more, 0 never measures.
      prompts: groups of the step's batch that are measured, 1 or more.
      mean_logprob: also aligns the gradients of the mean log-probabilities. It takes two more backward passes.

    Raises:
      ValueError: a field is out of its range.
    """

    every: int = 0
    prompts: int = 8
    mean_logprob: bool = False

    def __post_init__(self) -> None:
        require_at_least(0, "alignment.", every=self.every)
        require_at_least(1, "alignment.", prompts=self.prompts)
