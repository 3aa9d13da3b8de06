"""The prefix: the token that comes before a response in P(y).

A config names it by its text, by its id, or as "auto"; None means no prefix. The published code hard-codes
`<|im_start|>` of Qwen3, which has no BOS. "auto" takes `<|im_start|>` if the vocabulary has it, else the tokenizer's
BOS, else its EOS.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from prerl_jax.core.phases import Phases
from prerl_jax.core.spaces import PreTrainSpace, PromptDropout

TURN_START = "<|im_start|>"


def prefix_id(prefix: int | str | None, tokenizer: Any) -> int | None:
    """Finds the token id of a prefix.

    Args:
        prefix: "auto", the text of one token, a token id, or None for no prefix.
        tokenizer: a Hugging Face tokenizer.

    Returns:
        The token id, or None for no prefix.

    Raises:
        ValueError: the text is not exactly one known token, the id is outside the vocabulary, or "auto" finds no token.
    """
    if prefix is None:
        return None
    if isinstance(prefix, int):
        if not 0 <= prefix < len(tokenizer):
            raise ValueError(f"the prefix {prefix} is outside the tokenizer's vocabulary of {len(tokenizer)} tokens")
        return prefix
    if prefix != "auto":
        return _one_token(prefix, tokenizer)
    candidates = (tokenizer.get_vocab().get(TURN_START), tokenizer.bos_token_id, tokenizer.eos_token_id)
    found = next((token for token in candidates if token is not None), None)
    if found is None:
        raise ValueError(f"the tokenizer has no {TURN_START}, BOS or EOS as a prefix for responses; name a prefix")
    return found


def _one_token(text: str, tokenizer: Any) -> int:
    remedy = 'it must be one token of the vocabulary: name another, a token by its id, None for none, or "auto"'
    try:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    except Exception as error:  # tokenizers without an unknown token raise no more precise class
        raise ValueError(f"the tokenizer does not know the prefix {text!r} ({error}); {remedy}") from error
    if len(ids) != 1:
        raise ValueError(f"the prefix {text!r} is {len(ids)} tokens, {ids}; {remedy}")
    if ids[0] == tokenizer.unk_token_id and text != tokenizer.unk_token:
        raise ValueError(f"the prefix {text!r} is the unknown token {tokenizer.unk_token!r}; {remedy}")
    return ids[0]


def resolve_prefix(phases: Phases, tokenizer: Any) -> Phases:
    """Replaces the prefix of every PreTrainSpace and PromptDropout by its token id, or None.

    Args:
        phases: the phases of a config; their terms are searched, too.
        tokenizer: a Hugging Face tokenizer.

    Returns:
        The phases.

    Raises:
        ValueError: a prefix is not valid, see `prefix_id`.
    """

    def resolved(item: Any) -> Any:
        if isinstance(item.space, PreTrainSpace | PromptDropout):
            space = dataclasses.replace(item.space, prefix=prefix_id(item.space.prefix, tokenizer))
            return dataclasses.replace(item, space=space)
        return item

    return tuple(
        dataclasses.replace(resolved(phase), terms=tuple(resolved(term) for term in phase.terms)) for phase in phases
    )
