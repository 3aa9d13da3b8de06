"""From a config to what a run works with: the mesh, the model, the tokenizer, the encoded problems, the phases.

Whatever can be wrong with a config is found here, before anything is sampled or compiled.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
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
from prerl_jax.core.types import CriticState, Params, Schedule, TrainState
from prerl_jax.data import Example, encode
from prerl_jax.data.prefix import resolve_prefix
from prerl_jax.models.critic import ValueDecoder
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.hf import load_model, read_config
from prerl_jax.models.tokenizer import load_tokenizer
from prerl_jax.runtime.mesh import batch_shards, make_mesh
from prerl_jax.runtime.state import abstract_critic, abstract_state
from prerl_jax.verify import check_all

FEWEST_PARTS = 8
"""Parts of a batch, each computed only if a row is in it, that a config of fewer microbatches gets."""


@dataclasses.dataclass(frozen=True)
class Setup:
    """A config made concrete. Nothing in it changes during a run."""

    config: TrainConfig
    mesh: Mesh
    model: Decoder
    tokenizer: Any
    phases: Phases
    """The config's phases, with prefixes as token ids."""
    stop_tokens: tuple[int, ...]
    pad_token: int
    train: tuple[Example, ...]
    evaluation: tuple[Example, ...]
    notes: tuple[str, ...]
    """What was dropped or cut of the data, for the log."""

    @property
    def microbatch_rows(self) -> int:
        """The most rows that are computed at once."""
        sampling = self.config.sampling
        return sampling.prompts_per_step * sampling.group_size // self.config.microbatches

    @property
    def part_rows(self) -> int:
        """Rows of a part of the train step: a microbatch, or what makes FEWEST_PARTS parts of a batch where it divides so.

        Parts that packing leaves empty are not computed, so there must be some for a step of few rows to cost little.
        A minibatch of any phase is a number of parts.
        """
        shards, rows = batch_shards(self.mesh), self.config.sampling.prompts_per_step * self.config.sampling.group_size
        whole = math.gcd(self.microbatch_rows, *(rows // phase.minibatches for phase in self.phases))
        most = max(1, FEWEST_PARTS * whole // rows)
        return whole // max(n for n in range(1, most + 1) if whole % (n * shards) == 0)

    def chunk(self, length: int) -> int:
        """Tokens of a row of so many that are unembedded at once, where a part of the train step's rows is."""
        return chunk_length(self.part_rows, length, self.model.config.vocab_size, batch_shards(self.mesh))

    @property
    def alignment_parts(self) -> int:
        """Parts that the rows whose alignment is measured are computed in, so that none has more than a microbatch."""
        rows, shards = self.config.alignment.prompts * self.config.sampling.group_size, batch_shards(self.mesh)
        fits = (n for n in range(1, rows + 1) if rows % (n * shards) == 0 and rows // n <= self.microbatch_rows)
        return next(fits)

    def optimizer(self, phase: Phase) -> optax.GradientTransformation:
        """The optimizer of a phase; its state has the same tree in all of them."""
        spec = self.config.optimizer
        return _adamw(spec, spec.learning_rate if phase.learning_rate is None else phase.learning_rate)

    @property
    def critic(self) -> ValueDecoder | None:
        """The value model; None in a run without one."""
        return None if self.config.critic is None else ValueDecoder(self.model)

    @property
    def critic_optimizer(self) -> optax.GradientTransformation:
        """Of a run with a critic."""
        spec = self.config.critic.optimizer
        return _adamw(spec, spec.learning_rate)

    def abstract_critic(self) -> CriticState | None:
        """The critic's tree of ShapeDtypeStruct, sharded over the mesh."""
        if self.critic is None:
            return None
        return abstract_critic(self.critic.abstract_params(), self.critic_optimizer, self.mesh)

    def abstract_state(self, phase: Phase | None = None) -> TrainState:
        """The train state's tree of ShapeDtypeStruct, sharded over the mesh: the same for all phases."""
        tx = self.optimizer(phase or self.phases[0])
        return abstract_state(self.model.abstract_params(), tx, self.mesh, self.abstract_critic())

    def decode(self, rows: list[list[int]]) -> list[str]:
        """Responses as text, without special tokens."""
        return self.tokenizer.batch_decode(rows, skip_special_tokens=True)

    def load_params(self) -> Params:
        """The config's checkpoint, float32, straight into its shards."""
        spec = self.config.model
        _, params = load_model(spec.path, mesh=self.mesh, dtype=jnp.float32, rules=spec.rules)
        return params


def _adamw(spec: OptimizerSpec, rate: float | Schedule) -> optax.GradientTransformation:
    betas = {"b1": spec.b1, "b2": spec.b2, "eps": spec.eps}
    return adamw(rate, **betas, weight_decay=spec.weight_decay, max_grad_norm=spec.max_grad_norm)


def set_up(config: TrainConfig, devices: list[jax.Device] | None = None) -> Setup:
    """Checks the config against the devices, the checkpoint's architecture and the data, and puts them together.

    Raises ValueError or FileNotFoundError with what is wrong and the remedy. Reads no weights.
    """
    mesh = make_mesh(config.mesh, devices)
    validate(config, shards=batch_shards(mesh))
    spec = config.model
    how = {"compute_dtype": spec.compute_dtype, "remat": spec.remat, "attention": spec.attention}
    model = Decoder(read_config(spec.path), **how, mesh=mesh, rules=spec.rules)
    model.abstract_params()  # refuses a mesh that does not divide the model
    tokenizer = load_tokenizer(spec.path)
    stop_tokens = model.config.eos_token_ids if config.sampling.stop_tokens is None else config.sampling.stop_tokens
    if not stop_tokens and config.sampling.stop_tokens is None:
        raise ValueError(
            f"{spec.path} names no end-of-sequence token in its generation config, so no response would ever end. "
            f"Name one with sampling.stop_tokens, or pass () to say that this is meant."
        )
    _check_lengths(config, model)
    train, train_notes = _examples(config, config.data.train, tokenizer, "train")
    if len(train) < config.sampling.prompts_per_step:
        raise ValueError(
            f"sampling.prompts_per_step is {config.sampling.prompts_per_step}, but data.train has {len(train)} usable problems, and "
            "a step takes no problem twice. Set sampling.prompts_per_step to at most that."
        )
    evaluation, evaluation_notes = _examples(config, config.data.evaluation, tokenizer, "evaluation")
    pad = model.config.pad_token_id
    phases = resolve_prefix(config.phases, tokenizer)
    _check_vocabulary(model, (*train, *evaluation), stop_tokens, phases)
    return Setup(
        config=config,
        mesh=mesh,
        model=model,
        tokenizer=tokenizer,
        phases=phases,
        stop_tokens=tuple(stop_tokens),
        pad_token=0 if pad is None else pad,
        train=train,
        evaluation=_first_of_each_source(evaluation, config.evaluation.limit),
        notes=(*train_notes, *evaluation_notes),
    )


def _first_of_each_source(examples: tuple[Example, ...], limit: int | None) -> tuple[Example, ...]:
    counts, kept = Counter(), []
    for example in examples:
        counts[example.problem.source] += 1
        if limit is None or counts[example.problem.source] <= limit:
            kept.append(example)
    return tuple(kept)


def _check_vocabulary(model: Decoder, examples: tuple[Example, ...], stop_tokens: tuple[int, ...], phases: Phases):
    """An id outside the embedding would be clamped to its last row, without a word."""
    prefixes = [getattr(term.space, "prefix", None) for phase in phases for term in phase.all_terms]
    ids = [max(example.tokens) for example in examples] + list(stop_tokens) + [p for p in prefixes if p is not None]
    if max(ids) >= model.config.vocab_size:
        raise ValueError(
            f"token id {max(ids)} of the prompts, stop tokens or prefix is outside the model's vocabulary of "
            f"{model.config.vocab_size}; the tokenizer belongs to another model."
        )


def evaluation_shape(setup: Setup) -> tuple[int, int]:
    """(responses a prompt, prompts) of one evaluation call: no more rows than a training step has.

    Where they come out even and fill half of one, calls have the shape of a training step, and so its programs.
    Otherwise they are no larger than need be. The prompts divide over the mesh. Where k responses of so many prompts
    are too many rows, each is asked several times for a part of them.
    """
    sampling, samples = setup.config.sampling, setup.config.evaluation.samples
    group_size, count = sampling.group_size, len(setup.evaluation)
    if samples % group_size == 0 and 2 * count * (samples // group_size) >= sampling.prompts_per_step:
        return group_size, sampling.prompts_per_step
    rows, shards = sampling.prompts_per_step * group_size, batch_shards(setup.mesh)
    group_size = max(n for n in range(1, samples + 1) if samples % n == 0 and (n == 1 or n * shards <= rows))
    asked = count * (samples // group_size)
    return group_size, shards * max(1, min(rows // group_size, asked) // shards)


def _check_lengths(config: TrainConfig, model: Decoder) -> None:
    length = config.data.max_prompt_tokens + config.sampling.max_new_tokens
    context = model.config.max_position_embeddings
    if length > context:
        raise ValueError(
            f"data.max_prompt_tokens + sampling.max_new_tokens = {length} tokens, but the model's context is "
            f"{context}; shorten one of them."
        )


def _examples(config: TrainConfig, source: Any, tokenizer: Any, what: str) -> tuple[tuple[Example, ...], list[str]]:
    problems, dropped = source.load()
    if not problems:
        raise ValueError(f"data.{what} {source} has no problems.")
    data = config.data
    try:
        check_all(data.verifier, problems)
    except ValueError as error:
        raise ValueError(f"data.{what}: {error}") from error
    examples, report = encode(problems, tokenizer, data.template, data.max_prompt_tokens, data.too_long)
    notes = [f"{what} data: {report}"]
    if dropped:
        first = "; ".join(dropped[:4]) + (" ..." if len(dropped) > 4 else "")
        notes.append(f"{what} data: {len(dropped)} problems dropped ({first})")
    return examples, notes
