"""The tokens that end a response: all that the model's files, its tokenizer or its chat template name.

They may differ. The config of Qwen3's base models names `<|endoftext|>`, and their chat template ends a turn with
`<|im_end|>`. A run that stopped at the model's token alone would sample on past the end of a turn, up to
`max_new_tokens`, and train on responses that are cut off.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from prerl_jax.config.schema import TrainConfig
from prerl_jax.data.prompts import ChatTemplate
from prerl_jax.models.layers import DecoderConfig
from prerl_jax.models.tokenizer import known_ids

CONTENT = "zq7content7qz"
"""What the assistant says in the turn whose end is looked for: a text that no template writes of its own."""
NEXT = "zq7next7qz"
"""What the user says in the turn after it."""
TURNS = (
    {"role": "user", "content": "question"},
    {"role": "assistant", "content": CONTENT},
    {"role": "user", "content": NEXT},
)


@dataclasses.dataclass(frozen=True)
class StopTokens:
    """The ids that end a response.

    Attributes:
      named: {who names them: their ids}, without those who name none.
      notes: lines for the log: which token was named by whom, where they differ, and why a chat template names none.
    """

    named: dict[str, tuple[int, ...]]
    notes: tuple[str, ...] = ()

    @property
    def ids(self) -> tuple[int, ...]:
        """Every id once; those of the model come first."""
        return tuple(dict.fromkeys(token for ids in self.named.values() for token in ids))


def stop_tokens(config: TrainConfig, model: DecoderConfig, tokenizer: Any) -> StopTokens:
    """The tokens that end a response in a run: `sampling.stop_tokens`, else all that the model's files name.

    Args:
      config: the run.
      model: the architecture, with the EOS ids of config.json and of generation_config.json.
      tokenizer: a Hugging Face tokenizer: it has an EOS, and its chat template ends a turn.

    Raises ValueError where nobody names a token, and for a token that the model or the tokenizer does not have.
    """
    chosen = config.sampling.stop_tokens
    found = _named(config, model, tokenizer) if chosen is None else StopTokens({"sampling.stop_tokens": chosen})
    known = known_ids(model.vocab_size, tokenizer)
    for source, ids in found.named.items():
        if max(ids, default=0) >= known:
            raise ValueError(
                f"the stop token {max(ids)} ({source}) can never be sampled: {config.model.path} and its tokenizer "
                f"have {known} token ids, from 0. Name the right tokens with sampling.stop_tokens."
            )
    return found if chosen is not None else _with_differences(found, tokenizer)


def _named(config: TrainConfig, model: DecoderConfig, tokenizer: Any) -> StopTokens:
    """What the model's files name. Raises ValueError where they name nothing."""
    template = config.data.template
    ends: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    if tokenizer.chat_template:
        try:
            ends = (end_of_turn(tokenizer, dict(template.arguments) if isinstance(template, ChatTemplate) else {}),)
        except ValueError as error:
            notes = (f"the chat template names no token that ends a turn: {error}",)
    eos = tokenizer.eos_token_id
    named = {"model": model.eos_token_ids, "tokenizer": () if eos is None else (eos,), "chat template": ends}
    if not any(named.values()):
        raise ValueError(
            f"{config.model.path} names no end-of-sequence token in its config, its generation config, its tokenizer "
            "or its chat template, so no response would ever end. Name one with sampling.stop_tokens, or set it to () "
            "if this is intended."
        )
    return StopTokens({source: ids for source, ids in named.items() if ids}, notes)


def _with_differences(found: StopTokens, tokenizer: Any) -> StopTokens:
    """With a note of who names which token, where they differ."""
    if len({frozenset(ids) for ids in found.named.values()}) == 1:
        return found
    sources = {token: [name for name, ids in found.named.items() if token in ids] for token in found.ids}
    texts = [f"{tokenizer.decode([token])} ({token}, {', '.join(names)})" for token, names in sources.items()]
    return dataclasses.replace(found, notes=(f"responses end at {' and '.join(texts)}", *found.notes))


def end_of_turn(tokenizer: Any, arguments: dict[str, Any]) -> int:
    """The first added token that the chat template writes behind an assistant's words, special or not.

    It is looked for at the end of a conversation. A template that writes none there may write one where the user goes
    on, or begin the user's turn with one.

    Args:
      tokenizer: a Hugging Face tokenizer with a chat template.
      arguments: arguments of the template.

    Raises ValueError where the template raises, leaves the assistant's words out, or writes no added token there.
    """
    try:
        return _first_added_token(tokenizer, _behind_content(tokenizer, TURNS[:2], arguments))
    except ValueError as at_the_end:
        try:
            return _first_added_token(tokenizer, _behind_content(tokenizer, TURNS, arguments))
        except ValueError:
            raise at_the_end from None


def _behind_content(tokenizer: Any, turns: Sequence[dict[str, str]], arguments: dict[str, Any]) -> str:
    """What the chat template writes behind CONTENT, up to NEXT. Raises ValueError where it does not write CONTENT."""
    try:
        text = tokenizer.apply_chat_template(list(turns), tokenize=False, **arguments)
    except Exception as error:  # a template may raise anything
        raise ValueError(f"it does not render an assistant's turn ({type(error).__name__}: {error})") from error
    _, content, behind = text.rpartition(CONTENT)
    if not content:
        raise ValueError("it leaves out what the assistant says")
    return behind.partition(NEXT)[0]


def _first_added_token(tokenizer: Any, text: str) -> int:
    """The id of the first added token in a text, the longest if several begin there. Raises ValueError for none."""
    added = {token.content: index for index, token in tokenizer.added_tokens_decoder.items() if token.content.strip()}
    found = [(text.find(content), -len(content), index) for content, index in added.items() if content in text]
    if not found:
        raise ValueError(f"it writes {text[:20]!r} behind what the assistant says, which has no added token")
    return min(found)[2]
