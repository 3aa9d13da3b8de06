"""The prompts of a run as a checkpoint records them, so that a resume with other prompts is found.

A config does not determine its prompts. A chat template may write today's date into each of them, and the file that a
source reads may have changed. A run that resumed all the same would go on with another P(y|x).
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prerl_jax.data import Example

HASH_BYTES = 4
"""Bytes of the hash of one prompt: enough to say which of two prompts differ, where the digest says that some do."""
MOST = 100_000
"""Of more prompts than this, the hash of each is left out: a checkpoint's record stays below a megabyte."""
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
    """

    count: int
    digest: str
    each: str
    first: str

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> PromptRecord | None:
        """The record with the saved fields; None where one of them is missing, as in another version's record."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: saved[name] for name in names}) if set(names) <= set(saved) else None

    @property
    def hashes(self) -> list[bytes]:
        """The HASH_BYTES of each prompt; empty where they are left out."""
        joined = base64.b64decode(self.each)
        return [joined[i : i + HASH_BYTES] for i in range(0, len(joined), HASH_BYTES)]


def record(examples: Sequence[Example], decode: Decode) -> PromptRecord:
    """The record of the prompts of examples. It takes about 6 microseconds a prompt of 170 tokens."""
    whole, each = hashlib.sha256(), []
    for example in examples:
        digest = hashlib.sha256(struct.pack(f"<{len(example.tokens)}i", *example.tokens)).digest()[:DIGEST_BYTES]
        whole.update(digest)
        each.append(digest[:HASH_BYTES])
    kept = base64.b64encode(b"".join(each)).decode() if len(each) <= MOST else ""
    first = decode(examples[0].tokens)[:LONGEST_TEXT] if examples else ""
    return PromptRecord(len(examples), whole.hexdigest()[: 2 * DIGEST_BYTES], kept, first)


def difference(saved: PromptRecord, now: PromptRecord, examples: Sequence[Example], decode: Decode) -> str | None:
    """How the prompts differ from those of a checkpoint, as a text of some lines; None where they are the same.

    Args:
      saved: the checkpoint's record.
      now: the record of the prompts that there are now.
      examples: these prompts.
      decode: turns their tokens into text.
    """
    if saved.digest == now.digest:
        return None
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
