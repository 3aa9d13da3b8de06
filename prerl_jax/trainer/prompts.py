"""The problems of a run as a checkpoint records them, so that a resume with other prompts or answers is found.

A config does not determine its prompts. A chat template may write today's date into each of them, and the file that a
source reads may have changed. A run that resumed all the same would go on with another P(y|x), or with other rewards.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from prerl_jax.data import Example, Problem

HASH_BYTES = 4
"""Bytes of the hash of one prompt: enough to say which of two prompts differ, where the digest says that some do."""
MOST = 100_000
"""Of more prompts than this, the hash of each is left out: a checkpoint's record stays near a megabyte."""
LONGEST_TEXT = 2_000
"""Characters of the first prompt's text that are recorded."""
SHOWN_AROUND = 60
"""Characters that an error message shows before and after the first that differs."""
LONGEST_SHOWN = 240
"""Characters of a prompt that an error message shows where the text of the other is not known."""
DIGEST_BYTES = 16

Decode = Callable[[Sequence[int]], str]
"""Token ids of a prompt -> its text, with special tokens."""


@dataclasses.dataclass(frozen=True)
class PromptRecord:
    """What a checkpoint holds of the prompts of a data set.

    Attributes:
      count: how many there are.
      digest: of the tokens of all of them, in their order, in hexadecimal.
      each: HASH_BYTES of the hash of each prompt, one after the other, in base64; "" for more than MOST prompts.
      first: the text of the first one, cut to LONGEST_TEXT characters.
      answers: as `digest`, of what the verifier reads beside the prompt; "" in a record of an older version.
      each_answer: as `each`, of that.
    """

    count: int
    digest: str
    each: str
    first: str
    answers: str = ""
    each_answer: str = ""

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> PromptRecord | None:
        """The record with the saved fields; None where one without a default is missing, as in another version's."""
        fields = dataclasses.fields(cls)
        needed = {field.name for field in fields if field.default is dataclasses.MISSING}
        found = {field.name: saved[field.name] for field in fields if field.name in saved}
        return cls(**found) if needed <= set(found) else None

    @property
    def hashes(self) -> list[bytes]:
        """The HASH_BYTES of each prompt; empty where they are left out."""
        return _split(self.each)

    @property
    def answer_hashes(self) -> list[bytes]:
        """The HASH_BYTES of what the verifier reads of each problem; empty where they are left out."""
        return _split(self.each_answer)


def _split(joined: str) -> list[bytes]:
    found = base64.b64decode(joined)
    return [found[i : i + HASH_BYTES] for i in range(0, len(found), HASH_BYTES)]


def record(examples: Sequence[Example], decode: Decode) -> PromptRecord:
    """The record of the problems of examples. It takes about 15 microseconds for a prompt of 170 tokens."""
    digest, each = _digests(struct.pack(f"<{len(example.tokens)}i", *example.tokens) for example in examples)
    answers, each_answer = _digests(_verified(example.problem) for example in examples)
    first = decode(examples[0].tokens)[:LONGEST_TEXT] if examples else ""
    return PromptRecord(len(examples), digest, each, first, answers, each_answer)


def _digests(texts: Iterable[bytes]) -> tuple[str, str]:
    """(the digest of all texts, HASH_BYTES of each in base64)."""
    whole, each = hashlib.sha256(), []
    for text in texts:
        digest = hashlib.sha256(text).digest()[:DIGEST_BYTES]
        whole.update(digest)
        each.append(digest[:HASH_BYTES])
    kept = base64.b64encode(b"".join(each)).decode() if len(each) <= MOST else ""
    return whole.hexdigest()[: 2 * DIGEST_BYTES], kept


def _verified(problem: Problem) -> bytes:
    """What verifiers, and a curriculum, read of a problem beside its prompt, the same in every process."""
    read = [problem.answer, problem.alternatives, problem.source, problem.tolerance, problem.difficulty]
    return json.dumps([*read, dict(problem.metadata)], skipkeys=True, default=_written).encode()


def _written(value: Any) -> Any:
    """A value that JSON lacks: a set in an order that does not change, anything else without its address in memory."""
    if isinstance(value, set | frozenset):
        return sorted(map(repr, value))
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def difference(saved: PromptRecord, now: PromptRecord, examples: Sequence[Example], decode: Decode) -> str | None:
    """How the problems differ from those of a checkpoint, as a text of some lines; None where they are the same.

    Args:
      saved: the checkpoint's record.
      now: the record of the problems that there are now.
      examples: these problems.
      decode: turns the tokens of their prompts into text.

    Returns:
      The text begins with "other prompts", or with "other answers" where all prompts are the same.
    """
    if saved.digest != now.digest:
        return f"other prompts than the checkpoint: {_other_prompts(saved, now, examples, decode)}"
    if saved.answers in ("", now.answers):
        return None
    pairs = zip(saved.answer_hashes, now.answer_hashes, strict=False)
    differ = [index for index, (was, here) in enumerate(pairs) if was != here]
    said = "other answers than the checkpoint, or other values that a verifier may read, and the same prompts"
    if not differ:
        return f"{said}. Which of them differ is not recorded for more than {MOST:,} prompts"
    first, start = examples[differ[0]].problem, decode(examples[differ[0]].tokens)[:LONGEST_SHOWN]
    return (
        f"{said}: {len(differ)} of {now.count} differ. The first is problem {differ[0]}, with the answer "
        f"{first.answer[:LONGEST_SHOWN]!r} now and the prompt\n    {start!r}"
    )


def _other_prompts(saved: PromptRecord, now: PromptRecord, examples: Sequence[Example], decode: Decode) -> str:
    """How the prompts differ, where they do."""
    pairs = list(zip(saved.hashes, now.hashes, strict=False))
    differ = [index for index, (was, here) in enumerate(pairs) if was != here]
    counts = f"{saved.count} prompts then, {now.count} now"
    if pairs:
        counts += f"; {len(differ)} of the first {len(pairs)} differ" if differ else f"; the first {len(pairs)} agree"
    if saved.first != now.first:
        was, here = _around(saved.first, now.first)
        return f"{counts}. The first that differs is that of problem 0:\n    then {was!r}\n    now  {here!r}"
    if differ:
        start = decode(examples[differ[0]].tokens)[:LONGEST_SHOWN]
        return f"{counts}. The first that differs is that of problem {differ[0]}, which is now\n    {start!r}"
    return counts if pairs else f"{counts}. Which of them differ is not recorded for more than {MOST:,} prompts"


def _around(was: str, now: str) -> tuple[str, str]:
    """Both texts around their first different character."""
    same = next((i for i, (a, b) in enumerate(zip(was, now, strict=False)) if a != b), min(len(was), len(now)))
    shown = slice(max(0, same - SHOWN_AROUND), same + SHOWN_AROUND)
    return was[shown], now[shown]
