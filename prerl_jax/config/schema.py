"""What a run is, as plain values: frozen dataclasses, checked when they are built and as a whole by `config.checks`.

A config file is a Python file with `def config() -> TrainConfig`. Behaviour is passed as objects (a phase's space, a
verifier, a source of problems), never as the name of something in a registry, so a new idea needs no change here.
Each class checks its own fields as it is built; what concerns several of them is in `config.checks.validate`.
"""

from __future__ import annotations

import dataclasses
import re

from prerl_jax.analysis.passk import metric_names
from prerl_jax.analysis.thought_patterns import THOUGHTS, Thought
from prerl_jax.analysis.thoughts import count_thoughts
from prerl_jax.core.phases import Phase
from prerl_jax.core.schedules import check_rate
from prerl_jax.core.types import Schedule
from prerl_jax.data import ChatTemplate, PlainText, ProblemSource
from prerl_jax.data.prompts import TOO_LONG
from prerl_jax.models.cache import CACHE_DTYPES
from prerl_jax.models.partitioning import DEFAULT_RULES, Rules
from prerl_jax.runtime.mesh import MeshSpec
from prerl_jax.verify import Verifier

COMPUTE_DTYPES = ("float32", "bfloat16")
REMAT_POLICIES = ("none", "dots", "attention", "full")
ATTENTION = ("auto", "xla", "splash")


def _one_of(name: str, value: object, allowed: tuple[str | None, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, allowed))}.")


def _at_least(low: float, spec: object, section: str, *fields: str) -> None:
    for field in fields:
        value = getattr(spec, field)
        if value is not None and not value >= low:
            raise ValueError(f"{section}{field} is {value}; it must be {low} or more.")


def _seed(spec: object, section: str) -> None:
    if not 0 <= spec.seed < 2**32:
        raise ValueError(f"{section}seed is {spec.seed}; it must be from 0 to 2**32 - 1 = {2**32 - 1}.")


def _probability(spec: object, section: str, field: str) -> None:
    value = getattr(spec, field)
    if value is not None and not 0 < value <= 1:
        raise ValueError(f"{section}{field} is {value}; it must be above 0 and at most 1 (None keeps every token).")


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """Which checkpoint is trained, and how its forward pass is computed. Parameters and moments are always float32."""

    path: str
    """A Hugging Face folder, a .gguf file, or `package:NAME/FILE` for one inside an installed Python package."""
    compute_dtype: str = "bfloat16"
    """"float32" or "bfloat16": what matrix products and activations are computed in."""
    remat: str = "full"
    """What the backward pass recomputes: "none", "dots" (all but matrix products), "attention" (all but attention) or
    "full" (each layer)."""
    attention: str = "auto"
    """How rows are attended to: "splash" (the TPU's kernel), "xla" (plain operations), "auto" (what fits)."""
    rules: Rules = DEFAULT_RULES
    """(logical axis, mesh axis, several, or None) pairs: what is split over which axis of the mesh."""

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("model.path is empty; give a folder, a .gguf file, or package:NAME/FILE.")
        _one_of("model.compute_dtype", self.compute_dtype, COMPUTE_DTYPES)
        _one_of("model.remat", self.remat, REMAT_POLICIES)
        _one_of("model.attention", self.attention, ATTENTION)


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """The problems, how they become prompts, and how responses to them are judged."""

    train: ProblemSource
    """Problems to sample from: shuffled anew every epoch."""
    evaluation: ProblemSource
    """Held-out problems, in their own order."""
    template: ChatTemplate | PlainText
    """Problem -> prompt text."""
    verifier: Verifier
    """(problem, response text) -> reward in [0, 1]; a response that was cut off gets 0 without being asked about."""
    max_prompt_tokens: int = 1024
    """Tokens; the width that prompts are padded to."""
    too_long: str = "drop"
    """What becomes of a longer prompt: "drop" (and count) it, or "truncate_left" (keep its last tokens)."""
    verify_workers: int = 0
    """Processes that verify, on every machine; 0 verifies in the trainer's own, without a deadline."""
    verify_timeout: float = 10.0
    """Seconds that a worker has for a response; a late one is killed, and its response gets 0 and is counted."""

    def __post_init__(self) -> None:
        _at_least(1, self, "data.", "max_prompt_tokens")
        _at_least(0, self, "data.", "verify_workers")
        if not 0 < self.verify_timeout < float("inf"):
            raise ValueError(f"data.verify_timeout is {self.verify_timeout}; it must be above 0, and finite.")
        _one_of("data.too_long", self.too_long, TOO_LONG)


@dataclasses.dataclass(frozen=True)
class SamplingSpec:
    """The responses of one training step. Their temperature is the phase's."""

    prompts_per_step: int = 128
    """Problems a step, over all processes."""
    group_size: int = 8
    """Responses a problem."""
    max_new_tokens: int = 8192
    """Tokens; a response that reaches it is truncated, gets reward 0, and keeps no invented stop token."""
    top_k: int | None = None
    """Sample among this many most likely tokens; None is all. A number samples from another policy than is scored."""
    top_p: float | None = None
    """Sample within this probability mass; None is all. A number samples from another policy than is scored."""
    slots: int | None = None
    """Responses decoded at once; bounds the KV cache. One that ends makes room for the next. None is all
    `prompts * group_size`, which share their group's prompt; with fewer each slot has a copy of its own."""
    cache_dtype: str | None = None
    """What keys and values are stored in while sampling, evaluation included: None (model.compute_dtype), "bfloat16" or
    "int8". Less than the compute dtype samples from a policy near the one that is scored: see
    train/sampler_logprob_diff."""
    stop_tokens: tuple[int, ...] | None = None
    """Token ids that end a response; None takes those of the model's generation config."""

    def __post_init__(self) -> None:
        _at_least(1, self, "sampling.", "prompts_per_step", "group_size", "max_new_tokens", "top_k", "slots")
        _probability(self, "sampling.", "top_p")
        _one_of("sampling.cache_dtype", self.cache_dtype, CACHE_DTYPES)
        if any(token < 0 for token in self.stop_tokens or ()):
            raise ValueError(f"sampling.stop_tokens is {self.stop_tokens}; token ids are 0 or more.")


@dataclasses.dataclass(frozen=True)
class OptimizerSpec:
    """AdamW over every parameter, behind a clip of the gradient's global norm."""

    learning_rate: float | Schedule = 1e-6
    """The rate, or `Warmup`, `Cosine`, `Linear` or a function of the steps done in the phase; see `Phase`."""
    b1: float = 0.9
    """Decay of the first moment, per step."""
    b2: float = 0.999
    """Decay of the second moment, per step."""
    eps: float = 1e-8
    """Added to the root of the second moment. With tiny gradients it sets the step size: do not change it lightly."""
    weight_decay: float = 0.01
    """Decoupled: each step takes `learning_rate * weight_decay` of every parameter."""
    max_grad_norm: float | None = 1.0
    """Largest global gradient norm; None does not clip."""

    def __post_init__(self) -> None:
        check_rate("optimizer.learning_rate is", self.learning_rate)
        for field in ("b1", "b2"):
            if not 0 <= getattr(self, field) < 1:
                raise ValueError(f"optimizer.{field} is {getattr(self, field)}; it must be at least 0 and below 1.")
        _at_least(0, self, "optimizer.", "weight_decay")
        if not self.eps > 0 or (self.max_grad_norm is not None and not self.max_grad_norm > 0):
            raise ValueError(
                f"optimizer.eps is {self.eps} and optimizer.max_grad_norm is {self.max_grad_norm}; both must be above 0."
            )


@dataclasses.dataclass(frozen=True)
class CriticSpec:
    """PPO's value model: a decoder like the policy, begun as the policy with a head of zeros."""

    optimizer: OptimizerSpec = OptimizerSpec(learning_rate=1e-5)
    """Its own; a Schedule is of the steps done in the phase."""
    value_clip: float | None = 0.5
    """How far an update is rewarded for taking a value from where it stood when its rollouts were judged; None for any
    distance. It never binds where a rollout gets one update."""

    def __post_init__(self) -> None:
        if self.value_clip is not None and not self.value_clip > 0:
            raise ValueError(f"critic.value_clip is {self.value_clip}; it must be above 0, or None for no clip.")


@dataclasses.dataclass(frozen=True)
class EvaluationSpec:
    """Sampling on the held-out problems; always before the first step, at each phase's end and after the last step."""

    every: int = 25
    """Steps between evaluations inside a phase; 0 is none."""
    samples: int = 8
    """Responses a problem: the k of eval/avg@k."""
    temperature: float = 1.0
    """0 is greedy."""
    top_k: int | None = None
    """As in `SamplingSpec`; nothing is trained on these samples."""
    top_p: float | None = None
    """As in `SamplingSpec`; nothing is trained on these samples."""
    limit: int | None = None
    """Problems: the first so many of each source; None is all."""
    seed: int = 0
    """Of the samples: the same at every evaluation, so that two of them differ by the policy alone."""
    reflection: str = r"(?i)\bwait\b"
    """Regular expression; eval/reflections counts its matches in a response."""
    thoughts: tuple[Thought, ...] = THOUGHTS
    """Kinds of thoughts; eval/thoughts/NAME counts those of a response."""

    def __post_init__(self) -> None:
        _at_least(0, self, "evaluation.", "every", "temperature")
        _seed(self, "evaluation.")
        _at_least(1, self, "evaluation.", "samples", "top_k", "limit")
        _probability(self, "evaluation.", "top_p")
        try:
            pattern = re.compile(self.reflection)
        except re.error as error:
            raise ValueError(f"evaluation.reflection {self.reflection!r} is no regular expression: {error}.") from error
        if pattern.search("") is not None:
            raise ValueError(
                f"evaluation.reflection {self.reflection!r} matches empty text, so eval/reflections would count "
                "places in a response; give a pattern that takes at least one character."
            )
        names = [thought.name for thought in self.thoughts]
        if len(set(names)) < len(names):
            raise ValueError(f"evaluation.thoughts are named {names}; give each its own name.")
        count_thoughts([""], self.thoughts)  # refuses patterns that are none, or that match empty text

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the `eval/` metrics, but for that of the standard error."""
        return (*metric_names(self.samples), *(thought.metric for thought in self.thoughts))


@dataclasses.dataclass(frozen=True)
class CheckpointSpec:
    """Which checkpoints are written and kept. Those at a phase's end are always written and never deleted."""

    every: int = 25
    """Steps between checkpoints inside a phase; 0 is none."""
    keep_last: int = 2
    """How many of the latest are kept."""
    best: str | None = "eval/avg@8"
    """Of the checkpoints of steps with an evaluation, the one where this metric is highest is kept; None keeps none."""

    def __post_init__(self) -> None:
        _at_least(0, self, "checkpoints.", "every")
        _at_least(1, self, "checkpoints.", "keep_last")


@dataclasses.dataclass(frozen=True)
class AlignmentSpec:
    """Measurements of how well the gradients of log P(y) and log P(y|x) align, taken before the update of a step.

    Attributes:
      every: steps between two measurements, the first of them at step 1; 0 measures never.
      prompts: groups of the step's batch that are measured.
      mean_logprob: also aligns the gradients of the mean log-probabilities. It takes two more backward passes.
    """

    every: int = 0
    prompts: int = 8
    mean_logprob: bool = False

    def __post_init__(self) -> None:
        _at_least(0, self, "alignment.", "every")
        _at_least(1, self, "alignment.", "prompts")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A whole run. With `seed` and `evaluation.seed` it settles every number that is not a time."""

    name: str
    """What tables, plots and the default workdir call the run."""
    model: ModelSpec
    """The policy that training starts from."""
    data: DataSpec
    """Problems, prompts and rewards."""
    phases: tuple[Phase, ...]
    """Run one after the other; `grpo(...)`, `dsrl(...)` and the other recipes make them."""
    sampling: SamplingSpec = SamplingSpec()
    """The responses of a training step."""
    optimizer: OptimizerSpec = OptimizerSpec()
    """AdamW."""
    critic: CriticSpec | None = None
    """The value model that a credit such as `GAE()` reads."""
    evaluation: EvaluationSpec = EvaluationSpec()
    """Accuracy on held-out problems."""
    checkpoints: CheckpointSpec = CheckpointSpec()
    """What is written and kept."""
    mesh: MeshSpec = MeshSpec()
    """How many devices along each mesh axis."""
    seed: int = 0
    """Of the data order and of the training samples."""
    microbatches: int = 1
    """The fewest parts that a full batch is computed in, one after the other; what packs into fewer rows takes fewer
    parts of the same size. The gradient is the same, the memory is not."""
    alignment: AlignmentSpec = AlignmentSpec()
    """How often, and of what, the alignment of P(y) and P(y|x) is measured."""
    completions_per_step: int = 4
    """Sampled responses a step that completions.jsonl gets."""

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name:
            raise ValueError(f"name is {self.name!r}; give the run a name that can be a folder's.")
        _at_least(1, self, "", "microbatches")
        _at_least(0, self, "", "completions_per_step")
        _seed(self, "")
