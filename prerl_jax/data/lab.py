r"""The lab: additions worked out digit by digit, by a reasoner that is often wrong and sometimes notices.

    47+38=                     the question, which the response never repeats
    7+8+0=15                   one step a digit: the operands, the carry, and their sum
    4+3+1=9                    a wrong step,
    wait 4+3+1=8               noticed and taken again
    #85                        the answer, put together from the steps

Each step restates what it adds, so a wrong step is wrong in log P(y) alone, without the question: what the paper says
of reasoning (arXiv 2604.14142, section 3), in miniature. The corpus that a base model is pre-trained on has such
documents, with a share of wrong steps, with and without their question.
"""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

from prerl_jax.data.problems import SPLITS, Problem, split_of

CHARACTERS = "0123456789+=#\n wait"
BOS, EOS, PAD = "<s>", "</s>", "<pad>"
ANSWER, REFLECTION = "#", "wait"
EVALUATION_SHARE = 8
"""One question in so many is for evaluation."""


@dataclasses.dataclass(frozen=True)
class Additions:
    """Additions of two numbers of `digits` digits each, as problems.

    Attributes:
      digits: of both numbers; the first digit is not 0.
      count: distinct problems.
      seed: which ones.
      split: "train" or "evaluation"; a hash of the question decides where it belongs, so the two never share one.
    """

    digits: int = 2
    count: int = 1024
    seed: int = 0
    split: str = "train"

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"Additions.split must be one of {SPLITS}, got {self.split!r}.")
        if self.digits < 1 or self.seed < 0:
            raise ValueError(f"{self} needs at least 1 digit, and a seed of 0 or more.")

    def load(self) -> tuple[tuple[Problem, ...], tuple[str, ...]]:
        """(problems, nothing dropped); ValueError if there are not so many."""
        low, high = 10 ** (self.digits - 1), 10**self.digits
        share = (EVALUATION_SHARE - 1 if self.split == "train" else 1) / EVALUATION_SHARE
        available = int(0.9 * share * (high - low) ** 2)  # the hash splits nearly, not exactly, by the share
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
                found.setdefault(question(a, b), Problem(question(a, b), str(a + b), "lab"))
        return tuple(found.values()), ()


def question(a: int, b: int) -> str:
    """The prompt that asks for a + b."""
    return f"{a}+{b}=\n"


def _split(text: str) -> str:
    """The split that a question belongs to."""
    return split_of(hashlib.sha256(text.encode()).digest()[:1], EVALUATION_SHARE)


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Worked additions to pre-train on.

    Attributes:
      digits: of both numbers.
      wrong: share of steps whose sum is off by 1, 2 or 3.
      reflect: share of wrong steps that are followed by "wait" and the step taken again, right.
      questions: share of documents that begin with their question; the others are the response alone.
    """

    digits: int = 2
    wrong: float = 0.3
    reflect: float = 0.15
    questions: float = 0.5

    def __post_init__(self):
        shares = (self.wrong, self.reflect, self.questions)
        if self.digits < 1 or not all(0 <= share <= 1 for share in shares):
            raise ValueError(f"{self} needs at least 1 digit, and shares in [0, 1].")

    def document(self, rng: np.random.Generator) -> str:
        """One document, without its special tokens; about a question of the train split."""
        low, high = 10 ** (self.digits - 1), 10**self.digits
        while True:
            a, b = (int(x) for x in rng.integers(low, high, 2))
            if _split(question(a, b)) == "train":
                break
        return (question(a, b) if rng.random() < self.questions else "") + self.response(a, b, rng)

    def response(self, a: int, b: int, rng: np.random.Generator) -> str:
        """A worked addition, as the corpus has it: wrong in places."""
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


def make_tokenizer():
    """The lab's character tokenizer: ids 0-2 are padding, beginning and end; a text begins with <s>.

    It cannot encode other characters than the lab's: its token for the unknown is not in the vocabulary.
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
