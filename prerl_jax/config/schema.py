"""The config of a run, as plain values: `TrainConfig` and the specs of its sections, all frozen dataclasses.

A config file is a Python file with `def config() -> TrainConfig`. A config holds objects, such as the space of a phase,
a verifier or a source of problems, and not names that a registry would look up. So a user's own class needs no change
here. Each spec checks its own fields when it is built; `config.checks.validate` checks what concerns several of them.
"""

from __future__ import annotations

import dataclasses

from prerl_jax.config.fields import require_at_least, require_one_of, require_probability, require_seed
from prerl_jax.config.measuring import AlignmentSpec, CheckpointSpec, EvaluationSpec
from prerl_jax.config.optimizing import CriticSpec, OptimizerSpec
from prerl_jax.core.phases import Phase
from prerl_jax.data.curriculum import Curriculum
from prerl_jax.data.field_types import require_types
from prerl_jax.data.problems import ProblemSource
from prerl_jax.data.prompts import TOO_LONG, ChatTemplate, PlainText
from prerl_jax.data.streams import ProblemStream
from prerl_jax.models.attention import BACKENDS
from prerl_jax.models.cache import CACHE_DTYPES
from prerl_jax.models.partitioning import DEFAULT_RULES, Rules
from prerl_jax.models.remat import REMAT
from prerl_jax.rollout.continuous import ContinuousBatching
from prerl_jax.rollout.engine import EngineSpec
from prerl_jax.runtime.mesh import MeshSpec
from prerl_jax.verify.batch import Verifier
from prerl_jax.verify.judgement import LARGEST_REWARD

COMPUTE_DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """The checkpoint that is trained, and how its forward pass is computed.

    Parameters are float32, whatever `compute_dtype` is.

    Attributes:
      path: a Hugging Face folder, a .gguf file, `package:NAME/FILE` for one inside an installed Python package, or
        OWNER/NAME or OWNER/NAME@REVISION of the hub. A local path that exists comes first.
      compute_dtype: "float32" or "bfloat16", the dtype of matrix products and activations.
      remat: what the backward pass recomputes: "none", "dots" (everything except matrix products), "attention"
        (everything except attention) or "full" (every layer). See `models.remat.REMAT`.
      attention: "xla" (plain operations), "splash" (the Pallas kernel for TPUs) or "auto" (splash where it fits).
        On TPUs, decoding has a kernel of its own (`models.filled`), which "xla" rules out too.
      rules: (logical axis, mesh axes) pairs. A logical axis is split over one mesh axis, several, or none (None).

    Raises:
      ValueError: `path` is empty, or another field is not one of its choices.
    """

    path: str
    compute_dtype: str = "bfloat16"
    remat: str = "full"
    attention: str = "auto"
    rules: Rules = DEFAULT_RULES

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("model.path is empty; give a folder, a .gguf file, or package:NAME/FILE.")
        require_one_of("model.compute_dtype", self.compute_dtype, COMPUTE_DTYPES)
        require_one_of("model.remat", self.remat, tuple(REMAT))
        require_one_of("model.attention", self.attention, BACKENDS)


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """The problems, how they become prompts, and how responses are verified.

    Attributes:
      train: the training problems: a source, which every epoch shuffles anew; a `Mixture` of sources; or a stream,
        which is read in its own order.
      evaluation: the held-out problems, in their own order.
      template: makes the text of a prompt from a problem.
      verifier: (problem, response text) -> a reward, a `Judgement`, or None where it does not know. Rewards outside
        [0, 1] are accepted if no phase needs to know which responses are right, as NSR and PSR do.
      max_prompt_tokens: 1 or more. Prompts are padded to this many tokens.
      too_long: what happens to a longer prompt: "drop" leaves the problem out and reports it, "truncate_left" keeps the
        last tokens.
      verify_workers: processes that verify, on every machine, 0 or more. 0 verifies in the trainer's process, without a
        time limit.
      verify_timeout: seconds that a worker has for one response, above 0. A worker that takes longer is killed; the
        verdict is unknown, and time/verifier_timeouts counts it.
      verify_memory: GiB that a worker may allocate, above 0. The verdict is unknown where it needs more.
      evaluation_verifier: the verifier of the held-out problems; None takes `verifier`. A number of it that is 1 or
        more means right.
      truncated_reward: the reward of a truncated response, from -1e15 to 1e15. It is wrong, and it is not verified.
        With rewards of -1 and 1, set it to -1: else a truncated response is worth more than a wrong one.
      unknown_limit: at least 0 and below 1. A step or an evaluation with a larger share of unknown verdicts ends the
        run.
      probe: whether a run checks before its first step that its verifiers accept the problems' own answers.
      curriculum: which problems are drawn when, by their difficulty; None draws from all. Not for a stream.
      decontaminate: whether to drop training problems whose text is in the evaluation, as a whole or in 13 words in a
        row. Otherwise the log counts them.

    Raises:
      ValueError: a field is out of its range, or is not one of its choices.
    """

    train: ProblemSource | ProblemStream
    evaluation: ProblemSource
    template: ChatTemplate | PlainText
    verifier: Verifier
    max_prompt_tokens: int = 1024
    too_long: str = "drop"
    verify_workers: int = 0
    verify_timeout: float = 10.0
    verify_memory: float = 4.0
    evaluation_verifier: Verifier | None = None
    truncated_reward: float = 0.0
    unknown_limit: float = 0.5
    probe: bool = True
    curriculum: Curriculum | None = None
    decontaminate: bool = False

    @property
    def verifier_of_evaluation(self) -> Verifier:
        """The verifier of the held-out problems: `evaluation_verifier`, or `verifier` where that is None."""
        return self.verifier if self.evaluation_verifier is None else self.evaluation_verifier

    def __post_init__(self) -> None:
        if isinstance(self.evaluation, ProblemStream):
            raise ValueError(f"data.evaluation is {self.evaluation}; evaluations need fixed problems, not a stream.")
        require_types(self, besides=("verifier", "evaluation_verifier"))  # require_verifier says more of these
        if self.curriculum is not None and isinstance(self.train, ProblemStream):
            raise ValueError(
                "data.curriculum chooses among all problems, and data.train is a stream; leave one of them out."
            )
        require_at_least(1, "data.", max_prompt_tokens=self.max_prompt_tokens)
        require_at_least(0, "data.", verify_workers=self.verify_workers)
        for field in ("verify_timeout", "verify_memory"):
            if not 0 < getattr(self, field) < float("inf"):
                raise ValueError(f"data.{field} is {getattr(self, field)}; it must be above 0, and finite.")
        if not abs(self.truncated_reward) <= LARGEST_REWARD:
            raise ValueError(
                f"data.truncated_reward is {self.truncated_reward}; it must be between -{LARGEST_REWARD:g} and "
                f"{LARGEST_REWARD:g}."
            )
        if not 0 <= self.unknown_limit < 1:
            raise ValueError(f"data.unknown_limit is {self.unknown_limit}; it must be at least 0 and below 1.")
        require_one_of("data.too_long", self.too_long, TOO_LONG)


@dataclasses.dataclass(frozen=True)
class SamplingSpec:
    """How the responses of one training step are sampled. The phase sets their temperature.

    Attributes:
      prompts_per_step: problems per step, over all processes, 1 or more.
      group_size: responses per problem, 1 or more.
      max_new_tokens: most tokens of a response, 1 or more. A longer response is truncated: it is wrong, gets
        data.truncated_reward, and has no stop token.
      top_k: samples among the k most likely tokens; None samples among all. With a number, the sampled policy is not
        the policy whose log-probabilities are trained.
      top_p: samples within this probability mass, in (0, 1]; None samples from all of it. As with `top_k`, a number
        makes the sampled policy another one.
      engine: the engine that samples the responses, in training and in evaluation. `ContinuousBatching(slots=128)`
        decodes 128 responses at once, and when one is complete the next takes its slot; `StaticBatching()` decodes all
        together; or an `EngineSpec` of your own.
      cache_dtype: dtype of the KV cache while sampling, in evaluation too: None (model.compute_dtype), "bfloat16" or
        "int8". Below the compute dtype the sampled policy is near the trained one, and train/sampler_logprob_diff
        measures the difference.
      stop_tokens: token ids that end a response; None takes those of the model's config and generation config, the
        tokenizer's EOS and the token that ends a turn in its chat template.

    Raises:
      ValueError: a field is out of its range, or is not one of its choices.
    """

    prompts_per_step: int = 128
    group_size: int = 8
    max_new_tokens: int = 8192
    top_k: int | None = None
    top_p: float | None = None
    engine: EngineSpec = ContinuousBatching()
    cache_dtype: str | None = None
    stop_tokens: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        require_at_least(1, "sampling.", prompts_per_step=self.prompts_per_step, group_size=self.group_size)
        require_at_least(1, "sampling.", max_new_tokens=self.max_new_tokens, top_k=self.top_k)
        require_probability("sampling.top_p", self.top_p)
        require_one_of("sampling.cache_dtype", self.cache_dtype, CACHE_DTYPES)
        if not isinstance(self.engine, EngineSpec):
            raise ValueError(
                f"sampling.engine is {self.engine!r}, which is no EngineSpec: it needs the methods make and check. Use "
                "ContinuousBatching(slots=...), StaticBatching(), or a frozen dataclass of your own."
            )
        if any(token < 0 for token in self.stop_tokens or ()):
            raise ValueError(f"sampling.stop_tokens is {self.stop_tokens}; token ids are 0 or more.")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A whole run. Together with the code it determines every number of the run that is not a time.

    Attributes:
      name: names the run in tables and plots, and its folder runs/NAME.
      model: the policy that training starts from.
      data: problems, prompts and rewards.
      phases: run one after the other. `grpo(...)`, `dsrl(...)` and the other recipes make them; `+` joins them.
      sampling: the responses of a training step.
      optimizer: AdamW of the policy.
      critic: the value model that an advantage estimator such as `GAE()` reads; None for none.
      evaluation: accuracy on held-out problems.
      checkpoints: which checkpoints are written and kept.
      mesh: the number of devices along each mesh axis.
      seed: of the data order and of the sampling in training, from 0 to 2**32 - 1.
      microbatches: the number of parts that a full batch is split into, 1 or more. They are computed one after the
        other. A batch that packs into fewer rows has fewer microbatches of the same size. More microbatches need less
        memory, and the gradient is the same.
      alignment: how often, and on how many prompts, gradient alignment is measured.
      completions_per_step: sampled responses per step that completions.jsonl gets, 0 or more.

    Raises:
      ValueError: the name could not be a folder's, or a number is out of its range.
    """

    name: str
    model: ModelSpec
    data: DataSpec
    phases: tuple[Phase, ...]
    sampling: SamplingSpec = SamplingSpec()
    optimizer: OptimizerSpec = OptimizerSpec()
    critic: CriticSpec | None = None
    evaluation: EvaluationSpec = EvaluationSpec()
    checkpoints: CheckpointSpec = CheckpointSpec()
    mesh: MeshSpec = MeshSpec()
    seed: int = 0
    microbatches: int = 1
    alignment: AlignmentSpec = AlignmentSpec()
    completions_per_step: int = 4

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name:
            raise ValueError(f"name is {self.name!r}; give the run a name that can be a folder's.")
        require_at_least(1, "", microbatches=self.microbatches)
        require_at_least(0, "", completions_per_step=self.completions_per_step)
        require_seed("seed", self.seed)
