"""A run's `Setup` from its config and the model's config.json alone: no weights, no tokenizer, no data.

What only the tokenizer knows is assumed: every token id of the model is known, a prefix is any one token, and one token
ends a response. None of these changes the size of an array.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from prerl_jax.config.schema import TrainConfig
from prerl_jax.data import Example
from prerl_jax.data.prefix import resolve_prefix
from prerl_jax.data.problems import Problem
from prerl_jax.models.hf import read_config
from prerl_jax.trainer.meshes import mesh_and_model
from prerl_jax.trainer.setup import Setup

STOP = 0
"""Any token id."""


@dataclasses.dataclass(frozen=True)
class AnyTokenizer:
    """Stands for a tokenizer of `size` ids in which every text is one token. It makes no text."""

    size: int
    bos_token_id: int = 0
    eos_token_id: int = STOP
    unk_token_id: None = None
    unk_token: None = None

    def __len__(self) -> int:
        return self.size

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [0]}

    def get_vocab(self) -> dict[str, int]:
        """No token has a name."""
        return {}


def abstract_setup(config: TrainConfig, devices: Sequence[Any], evaluated: int) -> Setup:
    """What `set_up` makes, without reading the data, the tokenizer or the weights.

    Args:
        config: the run.
        devices: the devices to plan for.
        evaluated: the number of held-out problems.

    Raises ValueError or FileNotFoundError, as `set_up` does, about the mesh, the config and the model.
    """
    architecture = read_config(config.model.path)
    tokenizer = AnyTokenizer(architecture.vocab_size)
    mesh, model = mesh_and_model(config, architecture, architecture.vocab_size, devices)
    return Setup(
        config=config,
        mesh=mesh,
        model=model,
        tokenizer=tokenizer,
        phases=resolve_prefix(config.phases, tokenizer),
        stop_tokens=(STOP,),
        pad_token=0,
        train=(),
        order=None,
        evaluation=(Example(Problem("", ""), (0,)),) * evaluated,
        overlaps=(),
        notes=(),
    )
