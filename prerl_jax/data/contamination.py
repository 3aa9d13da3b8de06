"""Training problems whose text is that of an evaluation problem, as a whole or in 13 words in a row.

Of a chat the last user turn is compared: it asks the question. The turns before it are worked examples, which many
problems share.

Texts are compared as words: small letters, numbers and the signs of arithmetic. All else, white space, punctuation and
the spacing of LaTeX, is left out. Runs of 13 words are those of GPT-3 (Brown et al., 2020, arXiv 2005.14165, appendix
C). Instructions tell nothing: those of the package (`BOXED`, `HASHES`, `CHOICE`) and the words with which all prompts
of a data set begin and end are taken off, and a run of words counts only if a single evaluation text has it. Two to
nine prompts may begin alike by chance: these words are taken off before runs are looked for, and not before whole texts
are compared.
"""

from __future__ import annotations

import collections
import dataclasses
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from prerl_jax.data.instructions import BOXED, CHOICE, HASHES
from prerl_jax.data.problems import Problem, Prompt, as_text

WORDS = 13
"""Words in a row that two problems must share."""
SAMPLED, FEWEST, ALIKE = 200, 10, 2
"""The words that all prompts of a data set share are found from so many of its first prompts. With FEWEST or more they
are its instructions. With ALIKE or more they are taken off before runs of words are looked for."""
AFFIX = 4
"""Words of the shortest instruction."""
CHUNK = 4096
"""Texts that are compared at once."""
SHOWN = 100
"""Characters of a text that the note shows."""

_LATEX_SPACE = re.compile(r"\\(?:[,;:! ]|quad|qquad|left|right|displaystyle|text|mathrm)(?![a-zA-Z])")
_LATEX_FRACTION = re.compile(r"\\[dt]frac(?![a-zA-Z])")
_GROUPED = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_ASIAN = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"\d+(?:\.\d+)?|[{_ASIAN}]|[^\W\d_{_ASIAN}]+|[-+*/=<>^%]")


@dataclasses.dataclass(frozen=True)
class Overlap:
    """A training problem with the text of an evaluation problem.

    Attributes:
        train: the number of the training problem.
        evaluation: the number of the evaluation problem, the first one with this text.
        shared: the words that both share: all of them, or `WORDS`.
        whole: whether all words are the same.
        train_text: the training problem's prompt.
        evaluation_text: the evaluation problem's prompt.
    """

    train: int
    evaluation: int
    shared: str
    whole: bool
    train_text: str
    evaluation_text: str


def asked(prompt: Prompt) -> str:
    """The text that is compared: the last user turn of a chat; all turns where there is none."""
    turns = () if isinstance(prompt, str) else [turn for turn in prompt if turn.role == "user"]
    return turns[-1].content if turns else as_text(prompt)


def words(text: str) -> list[str]:
    """The words of a text: letters, numbers and signs of arithmetic; Chinese, Japanese and Korean by character."""
    text = unicodedata.normalize("NFKC", text).casefold()
    if "\\" in text:
        text = _LATEX_FRACTION.sub(r"\\frac", _LATEX_SPACE.sub(" ", text))
    return _WORD.findall(_GROUPED.sub("", text))


@dataclasses.dataclass(frozen=True)
class Wording:
    """The instructions of data sets: the words with which all their prompts begin, and end."""

    before: frozenset[tuple[str, ...]] = frozenset()
    after: frozenset[tuple[str, ...]] = frozenset()

    @classmethod
    def of(cls, problems: Iterable[Problem], fewest: int = FEWEST) -> Wording:
        """What the prompts of each source with `fewest` or more of them share, and the package's instructions."""
        texts: dict[str, set[str]] = {}
        for problem in problems:
            found = texts.setdefault(problem.source, set())
            if len(found) < SAMPLED:
                found.add(asked(problem.prompt))
        groups = [[words(text) for text in found] for found in texts.values() if len(found) >= fewest]
        before = {_common(group) for group in groups}
        after = {_common([found[::-1] for found in group])[::-1] for group in groups}
        for one in (BOXED, HASHES, CHOICE):
            before.add(tuple(words(one.system + one.before)))
            after.add(tuple(words(one.after)))
        return cls(*(frozenset(affix for affix in found if len(affix) >= AFFIX) for found in (before, after)))

    def __or__(self, other: Wording) -> Wording:
        return Wording(self.before | other.before, self.after | other.after)

    def bare(self, found: Sequence[str]) -> tuple[str, ...]:
        """The words of a text without the longest instruction before and after them."""
        text = tuple(found)
        text = text[max((len(one) for one in self.before if text[: len(one)] == one), default=0) :]
        return text[: len(text) - max((len(one) for one in self.after if text[-len(one) :] == one), default=0)]


def _common(texts: Sequence[list[str]]) -> tuple[str, ...]:
    """The words with which all texts begin."""
    low, high = min(texts), max(texts)
    same = next((n for n, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return tuple(low[:same])


class Contamination:
    """Finds the texts of evaluation problems in others.

    Args:
        evaluation: the evaluation problems.
    """

    def __init__(self, evaluation: Sequence[Problem]) -> None:
        self._texts = [as_text(problem.prompt) for problem in evaluation]
        self._wording, self._alike = Wording.of(evaluation), Wording.of(evaluation, ALIKE)
        self._whole: dict[tuple[str, ...], int] = {}
        bare: dict[tuple[str, ...], int] = {}
        cut: dict[tuple[str, ...], int] = {}
        for number, problem in enumerate(evaluation):
            found = words(asked(problem.prompt))
            bare.setdefault(self._wording.bare(found), number)
            cut.setdefault(self._alike.bare(found), number)
            self._whole.setdefault(tuple(found), number)
        self._whole = {text: number for text, number in {**bare, **self._whole}.items() if text}
        holders = collections.Counter(run for text in cut for run in set(_runs(text)))
        self._runs = {run: number for text, number in cut.items() for run in _runs(text) if holders[run] == 1}
        self._ids = {word: n for n, word in enumerate(dict.fromkeys(w for run in self._runs for w in run), 1)}
        ids = np.array([[self._ids[word] for word in run] for run in self._runs], np.uint64)
        self._hashes = np.unique(_hashed(ids.reshape(-1))[::WORDS])

    def find(self, problems: Sequence[Problem]) -> Iterator[Overlap]:
        """The problems with the text of an evaluation problem, in their order, each once: about 60 us a problem."""
        wording, alike = self._wording | Wording.of(problems), self._alike | Wording.of(problems, ALIKE)
        for start in range(0, len(problems), CHUNK):
            prompts = [problem.prompt for problem in problems[start : start + CHUNK]]
            found = [tuple(words(asked(prompt))) for prompt in prompts]
            bare = [wording.bare(text) for text in found]
            cut = bare if alike == wording else [alike.bare(text) for text in found]
            suspects = self._with_known_hash(cut)
            for index, prompt in enumerate(prompts):
                shared = next((whole for whole in (found[index], bare[index]) if whole in self._whole), ())
                other, whole = self._whole.get(shared), bool(shared)
                if other is None and index in suspects:  # which may only be an equal hash
                    shared = next((run for run in _runs(cut[index]) if run in self._runs), ())
                    other = self._runs.get(shared)
                if other is not None:
                    train, evaluation = as_text(prompt), self._texts[other]
                    yield Overlap(start + index, other, " ".join(shared), whole, train, evaluation)

    def _with_known_hash(self, texts: Sequence[Sequence[str]]) -> set[int]:
        """The numbers of the texts of which a run of words has the hash of an evaluation problem's."""
        lengths = [len(found) + 1 for found in texts]  # a word 0 ends each text
        ids: Any = np.fromiter((self._ids.get(w, 0) for found in texts for w in (*found, "")), np.uint64, sum(lengths))
        if len(ids) < WORDS or not len(self._hashes):
            return set()
        hashes = _hashed(ids)
        places = np.searchsorted(self._hashes, hashes).clip(max=len(self._hashes) - 1)
        hits = np.flatnonzero(self._hashes[places] == hashes)
        return set(np.searchsorted(np.cumsum(lengths), hits, side="right").tolist())


def _runs(text: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    return (text[i : i + WORDS] for i in range(len(text) - WORDS + 1))


def _hashed(ids: np.ndarray) -> np.ndarray:
    """u64[n - WORDS + 1]: a hash of each run of WORDS ids, modulo 2**64."""
    count = max(0, len(ids) - WORDS + 1)
    found = np.zeros(count, np.uint64)
    for place in range(WORDS):
        found = found * np.uint64(0x9E3779B97F4A7C15) + ids[place : place + count]
    return found


def note(overlaps: Sequence[Overlap], total: int, dropped: bool) -> str:
    """A line for the log about the overlaps among `total` training problems; "" without any."""
    if not overlaps:
        return ""
    whole, first = sum(overlap.whole for overlap in overlaps), overlaps[0]
    what = "were dropped" if dropped else "are trained on all the same; data.decontaminate=True drops them"
    return (
        f"contamination: {len(overlaps):,} of {total:,} training problems are in data.evaluation, {whole:,} with the "
        f"same text and {len(overlaps) - whole:,} with {WORDS} words in a row. They {what}. The first is training "
        f"problem {first.train}, like evaluation problem {first.evaluation}: {first.shared[:SHOWN]!r}"
    )
