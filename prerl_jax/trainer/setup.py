"""Builds what a run needs from its config: the mesh, the model, the tokenizer, the encoded problems, the phases.

All errors in a config are found here, before anything is sampled or compiled.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from prerl_jax.config.optimizing import OptimizerSpec
from prerl_jax.config.schema import TrainConfig
from prerl_jax.core.logprobs import chunk_length
from prerl_jax.core.optimizer import adamw
from prerl_jax.core.phases import Phase, Phases
from prerl_jax.core.spaces import PreTrainSpace, PromptDropout
from prerl_jax.core.types import CriticState, Params, Schedule, TrainState
from prerl_jax.data import Example
from prerl_jax.data.arrivals import ExampleStream
from prerl_jax.data.contamination import Overlap
from prerl_jax.data.order import Order
from prerl_jax.data.prefix import resolve_prefix
from prerl_jax.evaluation.evaluate import CallShape, call_shape
from prerl_jax.evaluation.sampling import TokenFormat
from prerl_jax.models.critic import ValueDecoder
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.hf import load_model, read_config
from prerl_jax.models.tokenizer import known_ids, load_tokenizer
from prerl_jax.runtime.mesh import batch_shards
from prerl_jax.runtime.row_share import RowShare, row_share
from prerl_jax.runtime.state import abstract_critic, abstract_state, require_placement
from prerl_jax.trainer.examples import first_of_each_source, load_examples
from prerl_jax.trainer.meshes import mesh_and_model
from prerl_jax.trainer.prompts import PromptRecord, record
from prerl_jax.trainer.stop_tokens import stop_tokens

FEWEST_PARTS = 8
"""The train step splits a batch into at least this many microbatches, if its rows divide evenly. It skips empty ones,
so a batch of few rows is cheap even with microbatches=1."""


@dataclasses.dataclass(frozen=True)
class Setup:
    """A config, and the objects made from it. Nothing in it changes during a run, except that a stream goes on.

    Attributes:
      config: the config.
      mesh: the devices.
      model: the policy's architecture.
      tokenizer: a Hugging Face tokenizer.
      phases: the config's phases, with prefixes as token ids.
      stop_tokens: the ids that end a response.
      pad_token: the id that fills prompts up.
      train: the training problems with their prompt tokens; a stream gives them as they arrive.
      order: the order of training with a mixture or a curriculum; None: every epoch is shuffled.
      evaluation: the held-out problems with their prompt tokens.
      overlaps: the training problems that are in data.evaluation, too.
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
    train: tuple[Example, ...] | ExampleStream
    order: Order | None
    evaluation: tuple[Example, ...]
    overlaps: tuple[Overlap, ...]
    notes: tuple[str, ...]

    @property
    def share(self) -> RowShare:
        """The rows that this process samples and verifies."""
        return row_share(self.mesh)

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

    @property
    def fixed(self) -> dict[str, tuple[Example, ...]]:
        """The examples of data.train and of data.evaluation that are known before the run: none of a stream."""
        train = () if isinstance(self.train, ExampleStream) else self.train
        return {"train": train, "evaluation": self.evaluation}

    @functools.cached_property
    def prompts(self) -> dict[str, PromptRecord]:
        """What a checkpoint records of the prompts of data.train and of data.evaluation."""
        return {split: record(examples, self.prompt_text) for split, examples in self.fixed.items()}

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
        if self.critic is None or self.config.critic is None:
            return None
        placement = self.config.critic.optimizer.placement
        return abstract_critic(self.critic.abstract_params(), self.critic_optimizer, self.mesh, placement)

    def abstract_state(self, phase: Phase | None = None) -> TrainState:
        """The train state as a tree of ShapeDtypeStruct, sharded over the mesh: the same for all phases."""
        tx = self.optimizer(phase or self.phases[0])
        placement = self.config.optimizer.placement
        return abstract_state(self.model.abstract_params(), tx, self.mesh, self.abstract_critic(), placement=placement)

    def decode(self, rows: list[list[int]]) -> list[str]:
        """Token ids of several responses as texts, without special tokens."""
        return self.tokenizer.batch_decode(rows, skip_special_tokens=True)

    def load_params(self) -> Params:
        """The parameters of the config's checkpoint, float32, loaded into their shards."""
        spec = self.config.model
        _, params = load_model(spec.path, mesh=self.mesh, dtype=jnp.float32, rules=spec.rules)
        return params


def _adamw(spec: OptimizerSpec, rate: float | Schedule) -> optax.GradientTransformation:
    return adamw(
        rate,
        b1=spec.b1,
        b2=spec.b2,
        eps=spec.eps,
        weight_decay=spec.weight_decay,
        max_grad_norm=spec.max_grad_norm,
        moments=spec.moments,
    )


def set_up(config: TrainConfig, devices: list[jax.Device] | None = None) -> Setup:
    """Checks the config against the devices, the checkpoint's architecture and the data. Reads no weights.

    Args:
      config: what to run.
      devices: the devices to use; all by default.

    Raises ValueError or FileNotFoundError, which say what is wrong and what to do.
    """
    architecture, tokenizer = read_config(config.model.path), load_tokenizer(config.model.path)
    known = known_ids(architecture.vocab_size, tokenizer)
    mesh, model = mesh_and_model(config, architecture, known, devices)
    for optimizer in (config.optimizer, *(() if config.critic is None else (config.critic.optimizer,))):
        require_placement(optimizer.placement, mesh)
    stops = stop_tokens(config, architecture, tokenizer)
    phases = resolve_prefix(config.phases, tokenizer)
    examples = load_examples(config, tokenizer, functools.partial(_check_vocabulary, known, phases))
    pad = model.config.pad_token_id
    return Setup(
        config=config,
        mesh=mesh,
        model=model,
        tokenizer=tokenizer,
        phases=phases,
        stop_tokens=stops.ids,
        pad_token=0 if pad is None else pad,
        train=examples.train,
        order=examples.order,
        evaluation=first_of_each_source(examples.evaluation, config.evaluation.limit),
        overlaps=examples.overlaps,
        notes=(*stops.notes, *_masked(known, architecture.vocab_size), *examples.notes),
    )


def _masked(known: int, vocab_size: int) -> list[str]:
    """A line for the log where the tokenizer has fewer ids than the model."""
    if known == vocab_size:
        return []
    return [
        f"the model has {vocab_size} token ids and its tokenizer {known}: the {vocab_size - known} ids from {known} "
        "have probability 0, in sampling and in every score"
    ]


def _check_vocabulary(known: int, phases: Phases, examples: Sequence[Example]) -> None:
    """An id outside the embedding would silently be clamped to its last row."""
    spaces = [term.space for phase in phases for term in phase.all_terms]
    prefixes = [space.prefix for space in spaces if isinstance(space, PreTrainSpace | PromptDropout)]
    largest = max([max(example.tokens) for example in examples] + [p for p in prefixes if isinstance(p, int)])
    if largest >= known:
        raise ValueError(
            f"token id {largest} of the prompts or prefix is outside the model's vocabulary of {known}; the tokenizer "
            "belongs to another model."
        )
