"""From problems to prompt tokens: chat template or plain text, the length limit, and left padding.

The tokens are the x of P(y|x). A run makes them once, before anything compiles. So it finds a prompt that is too long,
or a tokenizer without a chat template, at its start.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from prerl_jax.core.types import Prompts
from prerl_jax.data.field_types import require_types
from prerl_jax.data.problems import Problem, as_messages, as_text

TOO_LONG = ("drop", "truncate_left")
"""What `encode` can do with a prompt that is too long."""


@dataclasses.dataclass(frozen=True)
class ChatTemplate:
    """Formats prompts with the tokenizer's own chat template; a text prompt becomes one user turn.

    The template writes its own special tokens, so none are added.

    Attributes:
        arguments: (name, value) pairs for the template, for instance `(("enable_thinking", False),)` for Qwen3.
        add_generation_prompt: whether the prompt ends with the beginning of an assistant turn.

    Raises:
        ValueError: a field has another type.
    """

    arguments: tuple[tuple[str, Any], ...] = ()
    add_generation_prompt: bool = True

    def __post_init__(self) -> None:
        require_types(self)

    def tokenize(self, problems: Sequence[Problem], tokenizer: Any) -> list[list[int]]:
        """Tokenises prompts.

        Args:
            problems: P problems.
            tokenizer: a Hugging Face tokenizer.

        Returns:
            The token ids of each of the P prompts.

        Raises:
            ValueError: the tokenizer has no chat template, or the template does not use an argument.
        """
        if not tokenizer.chat_template:
            raise ValueError("the tokenizer has no chat template; use PlainText() for a base model")
        template = tokenizer.get_chat_template()
        unknown = [name for name, _ in self.arguments if name not in template]
        if unknown:  # templates ignore unknown arguments: a misspelt one would train in the wrong mode
            raise ValueError(f"the tokenizer's chat template does not use the arguments {unknown}; leave them out")
        texts = tokenizer.apply_chat_template(
            [as_messages(problem.prompt) for problem in problems],
            tokenize=False,
            add_generation_prompt=self.add_generation_prompt,
            **dict(self.arguments),
        )
        return tokenizer(texts, add_special_tokens=False)["input_ids"]


@dataclasses.dataclass(frozen=True)
class PlainText:
    """Takes prompts as plain text, for base models; the turns of a chat are joined by blank lines.

    The prompt begins with one BOS if the tokenizer adds a BOS by default. Nothing is appended, even if the tokenizer
    would add an EOS, since the response continues where the prompt ends.
    """

    def tokenize(self, problems: Sequence[Problem], tokenizer: Any) -> list[list[int]]:
        """Tokenises prompts.

        Args:
            problems: P problems.
            tokenizer: a Hugging Face tokenizer.

        Returns:
            The token ids of each of the P prompts.
        """
        texts = [as_text(problem.prompt) for problem in problems]
        bodies = tokenizer(texts, add_special_tokens=False)["input_ids"]
        bos = tokenizer.bos_token_id
        if bos is None or tokenizer("a")["input_ids"][:1] != [bos]:
            return bodies
        return [body if body[:1] == [bos] else [bos, *body] for body in bodies]


@dataclasses.dataclass(frozen=True)
class Example:
    """A problem and its prompt's tokens.

    Attributes:
        problem: the problem.
        tokens: the token ids of its prompt.
    """

    problem: Problem
    tokens: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class LengthReport:
    """What the length limit did to the prompts. `str` makes one line for the log.

    Attributes:
        total: how many prompts there were.
        dropped: how many were dropped because they were too long.
        truncated: how many were truncated.
        longest: tokens of the longest prompt, before truncation.
        limit: the limit, in tokens.
    """

    total: int
    dropped: int
    truncated: int
    longest: int
    limit: int

    def __str__(self) -> str:
        return (
            f"{self.total} prompts, the longest of {self.longest} tokens; limit {self.limit}: "
            f"{self.dropped} dropped, {self.truncated} truncated from the left"
        )


def encode(
    problems: Sequence[Problem],
    tokenizer: Any,
    template: ChatTemplate | PlainText,
    max_prompt_tokens: int,
    too_long: str = "drop",
) -> tuple[tuple[Example, ...], LengthReport]:
    """Tokenises prompts and applies the length limit.

    Args:
        problems: the problems.
        tokenizer: a Hugging Face tokenizer.
        template: how a prompt becomes tokens.
        max_prompt_tokens: the limit, at least 1, special tokens included.
        too_long: "drop" leaves longer prompts out; "truncate_left" keeps their last `max_prompt_tokens` tokens, as the
            published code does (it cuts off a BOS or the beginning of the chat template, too).

    Returns:
        (the examples, in the order of the problems; what the limit did).

    Raises:
        ValueError: the limit or `too_long` is not valid, there are no problems, a prompt is empty, the tokenizer cannot
            encode a prompt or has no chat template, or every prompt is too long.
    """
    if too_long not in TOO_LONG:
        raise ValueError(f"too_long is one of {TOO_LONG}, got {too_long!r}")
    if max_prompt_tokens < 1:
        raise ValueError(f"max_prompt_tokens must be at least 1, got {max_prompt_tokens}")
    if not problems:
        raise ValueError("there are no problems to encode")
    rows = _tokenize(problems, tokenizer, template)
    lengths = [len(row) for row in rows]
    if not min(lengths):
        raise ValueError(f"the prompt of problem {lengths.index(0)} has no token: {problems[lengths.index(0)]}")
    excess = sum(length > max_prompt_tokens for length in lengths)
    drop = too_long == "drop"
    if drop and excess == len(rows):
        raise ValueError(
            f"all {len(rows)} prompts are longer than max_prompt_tokens={max_prompt_tokens} "
            f"({min(lengths)} to {max(lengths)} tokens); raise the limit or set too_long='truncate_left'"
        )
    examples = tuple(
        Example(problem, tuple(row[-max_prompt_tokens:]))
        for problem, row in zip(problems, rows, strict=True)
        if not drop or len(row) <= max_prompt_tokens
    )
    report = LengthReport(len(rows), excess if drop else 0, 0 if drop else excess, max(lengths), max_prompt_tokens)
    return examples, report


def _tokenize(problems: Sequence[Problem], tokenizer: Any, template: ChatTemplate | PlainText) -> list[list[int]]:
    try:
        return template.tokenize(problems, tokenizer)
    except ValueError:
        raise
    except Exception as error:  # tokenizers without an unknown token raise no more precise class
        for index, problem in enumerate(problems):
            try:
                template.tokenize([problem], tokenizer)
            except Exception as reason:
                raise ValueError(
                    f"the tokenizer cannot encode the prompt of problem {index} ({reason}): {problem}"
                ) from error
        raise


def left_pad(examples: Sequence[Example], length: int, pad_id: int) -> Prompts:
    """Puts examples into one array, padded on the left.

    Args:
        examples: B examples.
        length: the length of the rows, in tokens.
        pad_id: the token id of padding. It may be a token that occurs in prompts: the mask comes from the lengths.

    Returns:
        Numpy arrays: prompt i32[B, length] and prompt_mask bool[B, length].

    Raises:
        ValueError: an example is longer than `length`.
    """
    longest = max((len(example.tokens) for example in examples), default=0)
    if longest > length:
        raise ValueError(f"a prompt of {longest} tokens does not fit into rows of {length}; raise the length")
    prompt: Any = np.full((len(examples), length), pad_id, np.int32)  # Any: on the host, Prompts hold numpy arrays
    mask: Any = np.zeros((len(examples), length), bool)
    for row, example in enumerate(examples):
        start = length - len(example.tokens)
        prompt[row, start:] = example.tokens
        mask[row, start:] = True
    return Prompts(prompt, mask)
