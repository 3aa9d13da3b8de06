"""Builds what a run needs from its config: the mesh, the model, the tokenizer, the encoded problems, the phases.

All errors in a config are found here, before anything is sampled or compiled.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from prerl_jax.config.checks import validate
from prerl_jax.config.schema import OptimizerSpec, TrainConfig
from prerl_jax.core.logprobs import chunk_length
from prerl_jax.core.optimizer import adamw
from prerl_jax.core.phases import Phase, Phases
from prerl_jax.core.spaces import PreTrainSpace, PromptDropout
from prerl_jax.core.types import CriticState, Params, Schedule, TrainState
from prerl_jax.data import Example, encode
from prerl_jax.data.prefix import resolve_prefix
from prerl_jax.data.problems import ProblemSource
from prerl_jax.evaluation.evaluate import CallShape, call_shape
from prerl_jax.evaluation.sampling import TokenFormat
from prerl_jax.models.critic import ValueDecoder
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.hf import load_model, read_config
from prerl_jax.models.tokenizer import known_ids, load_tokenizer
from prerl_jax.runtime.mesh import batch_shards, make_mesh
from prerl_jax.runtime.state import abstract_critic, abstract_state
from prerl_jax.trainer.prompts import PromptRecord, record
from prerl_jax.trainer.stop_tokens import stop_tokens
from prerl_jax.verify import unused_sources, usable

FEWEST_PARTS = 8
"""The train step splits a batch into at least this many microbatches, if its rows divide evenly. It skips empty ones,
so a batch of few rows is cheap even with microbatches=1."""


@dataclasses.dataclass(frozen=True)
class Setup:
    """A config, and the objects made from it. Nothing in it changes during a run.

    Attributes:
      config: the config.
      mesh: the devices.
      model: the policy's architecture.
      tokenizer: a Hugging Face tokenizer.
      phases: the config's phases, with prefixes as token ids.
      stop_tokens: the ids that end a response.
      pad_token: the id that fills prompts up.
      train: the training problems with their prompt tokens.
      evaluation: the held-out problems with their prompt tokens.
      notes: lines for the log: which tokens end a response and which are masked where the model's files differ, and how
        many problems were dropped or truncated.
    """

    config: TrainConfig
    mesh: Mesh
    model: Decoder
    tokenizer: Any
    phases: Phases
    stop_tokens: tuple[int, ...]
    pad_token: int
    train: tuple[Example, ...]
    evaluation: tuple[Example, ...]
    notes: tuple[str, ...]

    @property
    def rows(self) -> int:
        """Rollouts of one training step, over all processes."""
        return self.config.sampling.prompts_per_step * self.config.sampling.group_size

    @property
    def microbatch_rows(self) -> int:
        """The largest number of rows that are computed at once."""
        return self.rows // self.config.microbatches

    @property
    def part_rows(self) -> int:
        """Rows of one microbatch of the train step: `microbatch_rows`, or a fraction of it, see FEWEST_PARTS.

        It divides the minibatches of all phases.
        """
        shards = batch_shards(self.mesh)
        whole = math.gcd(self.microbatch_rows, *(self.rows // phase.minibatches for phase in self.phases))
        most = max(1, FEWEST_PARTS * whole // self.rows)
        return whole // max(n for n in range(1, most + 1) if whole % (n * shards) == 0)

    def chunk(self, length: int) -> int:
        """Tokens of a row whose logits are computed at once, for rows of `length` tokens in the train step."""
        return chunk_length(self.part_rows, length, self.model.config.vocab_size, batch_shards(self.mesh))

    @property
    def alignment_parts(self) -> int:
        """The number of parts in which alignment is measured; none of them has more rows than a microbatch."""
        rows, shards = self.config.alignment.prompts * self.config.sampling.group_size, batch_shards(self.mesh)
        fits = (n for n in range(1, rows + 1) if rows % (n * shards) == 0 and rows // n <= self.microbatch_rows)
        return next(fits)

    @property
    def tokens(self) -> TokenFormat:
        """How problems become token rows, and responses become text."""
        return TokenFormat(self.config.data.max_prompt_tokens, self.pad_token, self.stop_tokens, self.decode)

    @functools.cached_property
    def prompts(self) -> dict[str, PromptRecord]:
        """What a checkpoint records of the prompts of data.train and of data.evaluation."""
        return {"train": record(self.train, self.prompt_text), "evaluation": record(self.evaluation, self.prompt_text)}

    def prompt_text(self, tokens: Sequence[int]) -> str:
        """The tokens of a prompt as text, with special tokens."""
        return self.tokenizer.decode(list(tokens))

    @property
    def evaluation_calls(self) -> CallShape:
        """The size of the calls of the engine in an evaluation."""
        sampling, samples = self.config.sampling, self.config.evaluation.samples
        sizes = (sampling.prompts_per_step, sampling.group_size, batch_shards(self.mesh))
        return call_shape(len(self.evaluation), samples, *sizes)

    def learning_rate(self, phase: Phase) -> float | Schedule:
        """The learning rate of a phase: its own, or the run's."""
        return self.config.optimizer.learning_rate if phase.learning_rate is None else phase.learning_rate

    def optimizer(self, phase: Phase) -> optax.GradientTransformation:
        """The optimizer of a phase. Its state has the same tree in all phases."""
        return _adamw(self.config.optimizer, self.learning_rate(phase))

    @property
    def critic(self) -> ValueDecoder | None:
        """The value model; None in a run without a critic."""
        return None if self.config.critic is None else ValueDecoder(self.model)

    @property
    def critic_optimizer(self) -> optax.GradientTransformation:
        """The critic's optimizer, for a run with a critic."""
        if self.config.critic is None:
            raise ValueError("The config has no critic, so there is no optimizer of one.")
        spec = self.config.critic.optimizer
        return _adamw(spec, spec.learning_rate)

    def abstract_critic(self) -> CriticState | None:
        """The critic's state as a tree of ShapeDtypeStruct, sharded over the mesh; None without a critic."""
        if self.critic is None:
            return None
        return abstract_critic(self.critic.abstract_params(), self.critic_optimizer, self.mesh)

    def abstract_state(self, phase: Phase | None = None) -> TrainState:
        """The train state as a tree of ShapeDtypeStruct, sharded over the mesh: the same for all phases."""
        tx = self.optimizer(phase or self.phases[0])
        return abstract_state(self.model.abstract_params(), tx, self.mesh, self.abstract_critic())

    def decode(self, rows: list[list[int]]) -> list[str]:
        """Token ids of several responses as texts, without special tokens."""
        return self.tokenizer.batch_decode(rows, skip_special_tokens=True)

    def load_params(self) -> Params:
        """The parameters of the config's checkpoint, float32, loaded into their shards."""
        spec = self.config.model
        _, params = load_model(spec.path, mesh=self.mesh, dtype=jnp.float32, rules=spec.rules)
        return params


def _adamw(spec: OptimizerSpec, rate: float | Schedule) -> optax.GradientTransformation:
    betas = {"b1": spec.b1, "b2": spec.b2, "eps": spec.eps}
    return adamw(rate, **betas, weight_decay=spec.weight_decay, max_grad_norm=spec.max_grad_norm)


def set_up(config: TrainConfig, devices: list[jax.Device] | None = None) -> Setup:
    """Checks the config against the devices, the checkpoint's architecture and the data. Reads no weights.

    Args:
      config: what to run.
      devices: the devices to use; all by default.

    Raises ValueError or FileNotFoundError, which say what is wrong and what to do.
    """
    mesh = make_mesh(config.mesh, devices)
    validate(config, shards=batch_shards(mesh))
    spec = config.model
    architecture, tokenizer = read_config(spec.path), load_tokenizer(spec.path)
    known = known_ids(architecture.vocab_size, tokenizer)
    model = Decoder(
        architecture,
        compute_dtype=spec.compute_dtype,
        remat=spec.remat,
        attention=spec.attention,
        valid_ids=known if known < architecture.vocab_size else None,
        mesh=mesh,
        rules=spec.rules,
    )
    model.abstract_params()  # refuses a mesh that does not divide the model
    stops = stop_tokens(config, architecture, tokenizer)
    _check_lengths(config, model)
    train, train_notes = _examples(config, config.data.train, tokenizer, "train")
    if len(train) < config.sampling.prompts_per_step:
        raise ValueError(
            f"sampling.prompts_per_step is {config.sampling.prompts_per_step}, but data.train has {len(train)} usable "
            "problems, and a step uses no problem twice. Set sampling.prompts_per_step to at most that."
        )
    evaluation, evaluation_notes = _examples(config, config.data.evaluation, tokenizer, "evaluation")
    pad = model.config.pad_token_id
    phases = resolve_prefix(config.phases, tokenizer)
    _check_vocabulary(known, (*train, *evaluation), phases)
    return Setup(
        config=config,
        mesh=mesh,
        model=model,
        tokenizer=tokenizer,
        phases=phases,
        stop_tokens=stops.ids,
        pad_token=0 if pad is None else pad,
        train=train,
        evaluation=_first_of_each_source(evaluation, config.evaluation.limit),
        notes=(
            *stops.notes,
            *_masked(known, architecture.vocab_size),
            *train_notes,
            *evaluation_notes,
            *_unused(config, train, evaluation),
        ),
    )


def _first_of_each_source(examples: tuple[Example, ...], limit: int | None) -> tuple[Example, ...]:
    counts: Counter[str] = Counter()
    kept = []
    for example in examples:
        counts[example.problem.source] += 1
        if limit is None or counts[example.problem.source] <= limit:
            kept.append(example)
    return tuple(kept)


def _unused(config: TrainConfig, train: tuple[Example, ...], evaluation: tuple[Example, ...]) -> list[str]:
    """A line for the log on each verifier that names sources which no problem has."""
    other = config.data.evaluation_verifier
    asked = {"verifier": (config.data.verifier, train if other else (*train, *evaluation))}
    if other:
        asked["evaluation_verifier"] = other, evaluation
    unused = {name: unused_sources(one, [example.problem for example in of]) for name, (one, of) in asked.items()}
    return [
        f"data.{name} names sources that no problem has: {', '.join(map(repr, sources))}"
        for name, sources in unused.items()
        if sources
    ]


def _masked(known: int, vocab_size: int) -> list[str]:
    """A line for the log where the tokenizer has fewer ids than the model."""
    if known == vocab_size:
        return []
    return [
        f"the model has {vocab_size} token ids and its tokenizer {known}: the {vocab_size - known} ids from {known} "
        "have probability 0, in sampling and in every score"
    ]


def _check_vocabulary(known: int, examples: tuple[Example, ...], phases: Phases) -> None:
    """An id outside the embedding would silently be clamped to its last row."""
    spaces = [term.space for phase in phases for term in phase.all_terms]
    prefixes = [space.prefix for space in spaces if isinstance(space, PreTrainSpace | PromptDropout)]
    largest = max([max(example.tokens) for example in examples] + [p for p in prefixes if isinstance(p, int)])
    if largest >= known:
        raise ValueError(
            f"token id {largest} of the prompts or prefix is outside the model's vocabulary of {known}; the tokenizer "
            "belongs to another model."
        )


def _check_lengths(config: TrainConfig, model: Decoder) -> None:
    length = config.data.max_prompt_tokens + config.sampling.max_new_tokens
    context = model.config.max_position_embeddings
    if length > context:
        raise ValueError(
            f"data.max_prompt_tokens + sampling.max_new_tokens = {length} tokens, but the model's context is "
            f"{context}; shorten one of them."
        )


def _examples(
    config: TrainConfig, source: ProblemSource, tokenizer: Any, split: str
) -> tuple[tuple[Example, ...], list[str]]:
    """(the problems of data.train or data.evaluation with their prompt tokens, notes for the log)."""
    problems, dropped = source.load()
    if not problems:
        raise ValueError(f"data.{split} {source} has no problems.")
    data = config.data
    verifier = data.verifier_of_evaluation if split == "evaluation" else data.verifier
    try:
        problems, not_verifiable = usable(verifier, problems)
    except ValueError as error:
        raise ValueError(f"data.{split}: {error}") from error
    dropped = (*dropped, *not_verifiable)
    examples, report = encode(problems, tokenizer, data.template, data.max_prompt_tokens, data.too_long)
    notes = [f"{split} data: {report}"]
    if dropped:
        first = "; ".join(dropped[:4]) + (" ..." if len(dropped) > 4 else "")
        notes.append(f"{split} data: {len(dropped)} problems dropped ({first})")
    return examples, notes
