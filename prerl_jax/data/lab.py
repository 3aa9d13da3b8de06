r"""The lab: additions worked out digit by digit, with frequent mistakes and some corrections.

    47+38=                     the question; the response does not repeat it
    7+8+0=15                   one step per digit: the operands, the carry, and their sum
    4+3+1=9                    a wrong step,
    wait 4+3+1=8               and its correction
    #85                        the answer, assembled from the steps

Each step restates its operands. A wrong step can therefore be recognised from log P(y) alone, without the question.
This is in miniature what the paper says of reasoning (arXiv 2604.14142, section 3). The corpus for pre-training the
base model consists of such documents, with and without their question, and with a share of wrong steps.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import numpy as np

from prerl_jax.data.field_types import require_types
from prerl_jax.data.problems import SPLITS, Problem, split_of

CHARACTERS = "0123456789+=#\n wait"
BOS, EOS, PAD = "<s>", "</s>", "<pad>"
ANSWER, REFLECTION = "#", "wait"
ANSWER_FORMAT = ANSWER + "{answer}"
EVALUATION_ONE_IN = 8
"""One question in eight belongs to evaluation."""


@dataclasses.dataclass(frozen=True)
class Additions:
    """Additions of two numbers, as problems; all distinct.

    Attributes:
      digits: how many digits each number has, at least 1; the first digit is not 0.
      count: how many problems, at least 1.
      seed: decides which questions of the split are taken, at least 0.
      split: "train" or "evaluation"; the hash of a question decides its split, so the two never share a question.

    Raises:
      ValueError: a field is outside these ranges.
    """

    digits: int = 2
    count: int = 1024
    seed: int = 0
    split: str = "train"

    def __post_init__(self) -> None:
        require_types(self)
        if self.split not in SPLITS:
            raise ValueError(f"Additions.split must be one of {SPLITS}, got {self.split!r}.")
        if self.digits < 1 or self.seed < 0:
            raise ValueError(f"{self} needs at least 1 digit, and a seed of 0 or more.")

    def load(self) -> tuple[tuple[Problem, ...], tuple[str, ...]]:
        """Generates the problems.

        Returns:
          (`count` problems, ()): no row is dropped.

        Raises:
          ValueError: the split has fewer than `count` questions.
        """
        low, high = 10 ** (self.digits - 1), 10**self.digits
        share = (EVALUATION_ONE_IN - 1 if self.split == "train" else 1) / EVALUATION_ONE_IN
        available = int(0.9 * share * (high - low) ** 2)  # the hash splits by this share approximately
        if not 0 < self.count <= available:
            raise ValueError(
                f"Additions of {self.digits} digits has at least {available} problems a split; {self.count} were asked "
                f"for. Ask for fewer, or for more digits."
            )
        rng = np.random.default_rng([self.seed, SPLITS.index(self.split)])
        found: dict[str, Problem] = {}
        while len(found) < self.count:
            a, b = (int(x) for x in rng.integers(low, high, 2))
            if _split(question(a, b)) == self.split:
                found.setdefault(
                    question(a, b), Problem(question(a, b), str(a + b), "lab", answer_format=ANSWER_FORMAT)
                )
        return tuple(found.values()), ()


def question(a: int, b: int) -> str:
    """The prompt that asks for a + b: two integers of at least 0."""
    return f"{a}+{b}=\n"


def _split(text: str) -> str:
    """The split of a question."""
    return split_of(hashlib.sha256(text.encode()).digest()[:1], EVALUATION_ONE_IN)


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Worked additions to pre-train the base model on.

    Attributes:
      digits: how many digits each number has, at least 1.
      wrong: the share of steps whose sum is off by 1, 2 or 3, in [0, 1].
      reflect: the share of wrong steps that are followed by "wait" and the corrected step, in [0, 1].
      questions: the share of documents that begin with their question, in [0, 1]; the others are the response alone.

    Raises:
      ValueError: a field is outside these ranges.
    """

    digits: int = 2
    wrong: float = 0.3
    reflect: float = 0.15
    questions: float = 0.5

    def __post_init__(self) -> None:
        require_types(self)
        shares = (self.wrong, self.reflect, self.questions)
        if self.digits < 1 or not all(0 <= share <= 1 for share in shares):
            raise ValueError(f"{self} needs at least 1 digit, and shares in [0, 1].")

    def document(self, rng: np.random.Generator) -> str:
        """One random document about a question of the train split, without special tokens."""
        low, high = 10 ** (self.digits - 1), 10**self.digits
        while True:
            a, b = (int(x) for x in rng.integers(low, high, 2))
            if _split(question(a, b)) == "train":
                break
        return (question(a, b) if rng.random() < self.questions else "") + self.response(a, b, rng)

    def response(self, a: int, b: int, rng: np.random.Generator) -> str:
        """The worked addition a + b, with random mistakes and corrections.

        Args:
          a: the first number, of `digits` digits.
          b: the second number, of `digits` digits.
          rng: decides where the mistakes and corrections are.
        """
        carry, lines, answer = 0, [], ""
        for place in range(self.digits):
            x, y = a // 10**place % 10, b // 10**place % 10
            total = x + y + carry
            said = total
            if rng.random() < self.wrong:
                said = int(rng.choice([s for s in range(total - 3, total + 4) if s >= 0 and s != total]))
            lines.append(f"{x}+{y}+{carry}={said}")
            if said != total and rng.random() < self.reflect:
                said = total
                lines.append(f"{REFLECTION} {x}+{y}+{carry}={said}")
            carry, digit = divmod(said, 10)
            answer = f"{digit}{answer}"
        return "\n".join([*lines, f"{ANSWER}{carry or ''}{answer}"])


def make_tokenizer() -> Any:
    """Makes the lab's character tokenizer.

    Returns:
      A transformers.PreTrainedTokenizerFast whose ids 0, 1 and 2 are padding, <s> and </s>. Every text begins with <s>.
      It raises an error for characters that the lab does not use, because its unknown token is not in the vocabulary.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate([PAD, BOS, EOS, *dict.fromkeys(CHARACTERS)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, vocabulary[BOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD, clean_up_tokenization_spaces=False
    )
