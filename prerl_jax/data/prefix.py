"""The token that stands before a response in P(y): by the tokenizer, by its text, by its id, or none.

The published code hard-codes `<|im_start|>` of Qwen3, which has no BOS. Here "auto" takes `<|im_start|>` where the
vocabulary has it, else the tokenizer's BOS, else its EOS.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from prerl_jax.core.phases import Phases
from prerl_jax.core.spaces import PreTrainSpace, PromptDropout

TURN_START = "<|im_start|>"


def prefix_id(prefix: int | str | None, tokenizer: Any) -> int | None:
    """The prefix's token id, None for no prefix.

    Raises:
        ValueError: the text is not one known token, the id is outside the vocabulary, or "auto" finds no candidate.
    """
    if prefix is None:
        return None
    if isinstance(prefix, int):
        if not 0 <= prefix < len(tokenizer):
            raise ValueError(f"the prefix {prefix} is outside the tokenizer's {len(tokenizer)} tokens")
        return prefix
    if prefix != "auto":
        return _one_token(prefix, tokenizer)
    candidates = (tokenizer.get_vocab().get(TURN_START), tokenizer.bos_token_id, tokenizer.eos_token_id)
    found = next((token for token in candidates if token is not None), None)
    if found is None:
        raise ValueError(f"the tokenizer has no {TURN_START}, BOS or EOS to stand before a response; name a prefix")
    return found


def _one_token(text: str, tokenizer: Any) -> int:
    remedy = 'it must be one token of the vocabulary: name another, a token by its id, None for none, or "auto"'
    try:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    except Exception as error:  # of tokenizers without an unknown token, which have no class of their own
        raise ValueError(f"the tokenizer does not know the prefix {text!r} ({error}); {remedy}") from error
    if len(ids) != 1:
        raise ValueError(f"the prefix {text!r} is {len(ids)} tokens, {ids}; {remedy}")
    if ids[0] == tokenizer.unk_token_id and text != tokenizer.unk_token:
        raise ValueError(f"the prefix {text!r} is the unknown token {tokenizer.unk_token!r}; {remedy}")
    return ids[0]


def resolve_prefix(phases: Phases, tokenizer: Any) -> Phases:
    """The phases with the prefix of every PreTrainSpace and PromptDropout as a token id (or None)."""

    def resolved(item):
        if isinstance(item.space, PreTrainSpace | PromptDropout):
            space = dataclasses.replace(item.space, prefix=prefix_id(item.space.prefix, tokenizer))
            return dataclasses.replace(item, space=space)
        return item

    return tuple(
        dataclasses.replace(resolved(phase), terms=tuple(resolved(term) for term in phase.terms)) for phase in phases
    )
