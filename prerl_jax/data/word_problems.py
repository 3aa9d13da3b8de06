"""Arithmetic word problems of one to three steps, with an open answer or with five options.

The stories are of our own writing, in the manner of GSM8K (Cobbe et al., 2021, arXiv 2110.14168), and with options in
that of MathQA (Amini et al., 2019, arXiv 1905.13319). They are stand-ins: scores on them are not scores on these.

A story begins with a number of things, each step changes it, and the last sentence asks for the result. All numbers are
whole and positive.
"""

from __future__ import annotations

import dataclasses
import operator
import random
from collections.abc import Callable
from typing import NamedTuple

from prerl_jax.data.drawing import Drawn, draw_problems, require_fields
from prerl_jax.data.instructions import CHOICE, HASHES, Instructions
from prerl_jax.data.options import Choice
from prerl_jax.data.problems import Message, Problem, Prompt

STEPS = (1, 2, 3)
OPTIONS = 5
SMALLEST, FACTOR = 2, 9
"""The smallest number in a story, and the largest that multiplies or divides."""
NAMES = ("Amira", "Bruno", "Chen", "Dina", "Emil", "Farah", "Goran", "Hana", "Igor", "Julia", "Kofi", "Lena")
THINGS = ("apples", "shells", "stamps", "marbles", "buttons", "postcards", "cookies", "pencils", "stickers", "candles")

OPENINGS = {
    "": ("{name} has {a} {things}.", "{name} owns {a} {things}.", "{name} collects {a} {things}."),
    "*": ("{name} buys {a} packs with {b} {things} in each.", "For {a} days, {name} gets {b} {things} a day."),
}
"""How a story begins: with a number, or with a product as its first step."""
CHANGES = {
    "+": (
        "{friend} gives {name} {b} more.",
        "Then {name} gets another {b}.",
        "Later {b} more {things} are added to them.",
    ),
    "-": (
        "{name} gives {b} of them to {friend}.",
        "Then {name} loses {b} of them.",
        "{friend} takes {b} of the {things} away.",
    ),
}
ENDINGS = {
    "": ("How many {things} does {name} have in the end?", "How many {things} does {name} have now?"),
    "*": (
        "{name} sells all of them for {b} dollars each. How many dollars does {name} get?",
        "{name} puts all of them on a scale. Each weighs {b} grams. How many grams does the scale show?",
    ),
    "/": (
        "{name} puts them into {b} bags, with the same number in each. How many {things} are in a bag?",
        "They are shared equally among {b} children. How many {things} does each child get?",
    ),
}
"""How a story ends: with a question, or with a last step and a question."""
_VALUES: dict[str, Callable[[int, int], int]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv,
}  # fmt: skip

_SHOWN = (
    "Rosa has 8 cups. She breaks 3 of them. How many cups does she have now?",
    "Theo has 4 bags with 3 rolls in each. He bakes 2 more rolls. How many rolls does he have now?",
)
_SHOWN_OPTIONS = ("\n(A) 11\n(B) 5\n(C) 3\n(D) 6\n(E) 8", "\n(A) 12\n(B) 9\n(C) 24\n(D) 14\n(E) 10")
_SHOWN_KEYS = ("8 - 3", "4 * 3 + 2")
WORD_PROBLEM_SHOTS = Instructions(
    few_shot=(
        Message("user", _SHOWN[0]),
        Message("assistant", "8 - 3 = 5\n#### 5"),
        Message("user", _SHOWN[1]),
        Message("assistant", "4 * 3 = 12\n12 + 2 = 14\n#### 14"),
    ),
    answer_format="#### {answer}",
)
"""Shows two short answers with a number after "####"; their calculations are never asked: for small models."""
FIVE_WAY_SHOTS = Instructions(
    few_shot=(
        Message("user", _SHOWN[0] + _SHOWN_OPTIONS[0]),
        Message("assistant", "8 - 3 = 5. The answer is (B)."),
        Message("user", _SHOWN[1] + _SHOWN_OPTIONS[1]),
        Message("assistant", "4 * 3 = 12, 12 + 2 = 14. The answer is (D)."),
    ),
    answer_format="The answer is ({answer}).",
)
"""The same with options."""


@dataclasses.dataclass(frozen=True)
class WordProblems:
    """Word problems, all of distinct calculations. The answer is a whole number.

    The numbers of steps alternate, so the first n problems are a fair mixture for any n. `Problem.difficulty` is the
    number of steps, and `metadata["solution"]` has the calculation, a line for each step.

    Attributes:
        count: how many problems, at least 1.
        split: "train" or "evaluation"; the hash of a problem's calculation decides its split, so no calculation of one
            split is in the other with other names. `FiveWayWordProblems` divides them in the same way.
        seed: decides the problems, together with their number.
        steps: how many calculations a problem takes, from 1 to 3; distinct values.
        largest: the largest number that begins a story, is added or taken away, from 10 to 1,000.
        instructions: how the answer is asked for. `WORD_PROBLEM_SHOTS` is for small models.

    Raises:
        ValueError: a field is outside these ranges.
    """

    count: int
    split: str = "train"
    seed: int = 0
    steps: tuple[int, ...] = STEPS
    largest: int = 20
    instructions: Instructions = HASHES

    def __post_init__(self) -> None:
        _require(self)

    def load(self) -> tuple[tuple[Problem, ...], tuple[str, ...]]:
        """Generates the problems. The same fields give the same problems on every machine.

        Returns:
            (`count` problems, ()): no row is dropped.

        Raises:
            ValueError: the split has fewer than `count` such problems.
        """
        return draw_problems(self._draw, self.count, self.split, self.seed), ()

    def _draw(self, number: int, rng: random.Random) -> Drawn | None:
        story = _story(self, number, rng)
        if story is None:
            return None
        how = self.instructions
        return story.key, _problem("word_problems", story, how.ask(story.text), str(story.values[-1]), how)


@dataclasses.dataclass(frozen=True)
class FiveWayWordProblems:
    """The problems of `WordProblems` with five options, one of which is right. The answer is a letter.

    A wrong option is what a slip gives (a step left out, or its sign mistaken) or a number near the right one. As many
    are smaller as are larger, on average.

    Attributes:
        count: how many problems, at least 1.
        split: "train" or "evaluation", as in `WordProblems`.
        seed: decides the problems, together with their number.
        steps: how many calculations a problem takes, from 1 to 3; distinct values.
        largest: the largest number that begins a story, is added or taken away, from 10 to 1,000.
        instructions: how the answer is asked for. `FIVE_WAY_SHOTS` is for small models.

    Raises:
        ValueError: a field is outside these ranges.
    """

    count: int
    split: str = "train"
    seed: int = 0
    steps: tuple[int, ...] = STEPS
    largest: int = 20
    instructions: Instructions = CHOICE

    def __post_init__(self) -> None:
        _require(self)

    def load(self) -> tuple[tuple[Problem, ...], tuple[str, ...]]:
        """Generates the problems. The same fields give the same problems on every machine.

        Returns:
            (`count` problems, ()): no row is dropped.

        Raises:
            ValueError: the split has fewer than `count` such problems.
        """
        return draw_problems(self._draw, self.count, self.split, self.seed), ()

    def _draw(self, number: int, rng: random.Random) -> Drawn | None:
        story = _story(self, number, rng)
        if story is None:
            return None
        texts = rng.sample((right := str(story.values[-1]), *map(str, _wrong(story, rng))), OPTIONS)
        choice = Choice(tuple(texts), texts.index(right))
        prompt = self.instructions.ask(story.text, options=f"\n{choice.listed()}")
        return story.key, _problem("five_way", story, prompt, choice.letter, self.instructions)


def _require(source: WordProblems | FiveWayWordProblems) -> None:
    require_fields(source, "steps", STEPS)
    if not 10 <= source.largest <= 1000:
        raise ValueError(f"{type(source).__name__}'s largest must be from 10 to 1,000, got {source.largest!r}")


class _Story(NamedTuple):
    """A story: its text, the symbols and numbers of its steps, and the values before, between and after them."""

    text: str
    symbols: tuple[str, ...]
    numbers: tuple[int, ...]
    values: tuple[int, ...]

    @property
    def key(self) -> str:
        """The calculation, step by step: "12 - 5 * 3" is (12 - 5) * 3."""
        steps = (f"{symbol} {number}" for symbol, number in zip(self.symbols, self.numbers, strict=True))
        return " ".join((str(self.values[0]), *steps))

    @property
    def solution(self) -> str:
        """A line for each step, such as "12 - 5 = 7"."""
        steps = zip(self.values, self.symbols, self.numbers, self.values[1:], strict=False)
        return "\n".join(f"{before} {symbol} {number} = {after}" for before, symbol, number, after in steps)


def _story(source: WordProblems | FiveWayWordProblems, number: int, rng: random.Random) -> _Story | None:
    """A random story; None if its numbers do not fit, or it is one of those that the shots show."""
    steps = source.steps[number % len(source.steps)]
    opening, *changes, ending = _plan(steps, rng)
    name, friend = rng.sample(NAMES, 2)
    things = rng.choice(THINGS)
    values = [rng.randint(SMALLEST, FACTOR if opening else source.largest)]
    symbols = tuple(symbol for symbol in (opening, *changes, ending) if symbol)
    numbers = tuple(rng.randint(SMALLEST, FACTOR if symbol in "*/" else source.largest) for symbol in symbols)
    for symbol, operand in zip(symbols, numbers, strict=True):
        value = _VALUES[symbol](values[-1], operand)
        if value < SMALLEST or (symbol == "/" and value * operand != values[-1]):
            return None
        values.append(value)
    parts = [(opening, OPENINGS[opening]), *((one, CHANGES[one]) for one in changes), (ending, ENDINGS[ending])]
    operands = iter(numbers)
    who = {"name": name, "friend": friend, "things": things, "a": values[0]}
    sentences = [rng.choice(texts).format(**who, b=next(operands) if symbol else 0) for symbol, texts in parts]
    story = _Story(" ".join(sentences), symbols, numbers, tuple(values))
    return None if story.key in _SHOWN_KEYS else story


def _plan(steps: int, rng: random.Random) -> tuple[str, ...]:
    """The symbol of the opening, of the changes and of the ending; "" where there is no step."""
    while True:
        opening, ending = rng.choice(("", "*")), rng.choice(("", "*", "/"))
        changes = steps - bool(opening) - bool(ending)
        if changes >= 0:
            return (opening, *(rng.choice("+-") for _ in range(changes)), ending)


def _wrong(story: _Story, rng: random.Random) -> list[int]:
    """Four distinct wrong answers: what slips give, then numbers near the right one.

    How many of them are smaller than the right one is drawn first. So the size of an option does not tell which is
    right.
    """
    before, number, right = story.values[-2], story.numbers[-1], story.values[-1]
    slips = {*story.values[:-1], number, before + number, before - number, before * number, before // number}
    smaller = min(rng.randrange(OPTIONS), right - 1)
    sides = ((range(1, right), range(max(1, right - 10), right), smaller),
             (range(right + 1, 10 * right), range(right + 1, right + 10), OPTIONS - 1 - smaller))  # fmt: skip
    return [wrong for allowed, near, count in sides for wrong in _some(slips.intersection(allowed), near, count, rng)]


def _some(first: set[int], then: range, count: int, rng: random.Random) -> list[int]:
    """`count` distinct numbers in random order, those of `first` before the others."""
    others = sorted(set(then) - first)
    return [*rng.sample(sorted(first), len(first)), *rng.sample(others, len(others))][:count]


def _problem(source: str, story: _Story, prompt: Prompt, answer: str, how: Instructions) -> Problem:
    metadata = {"solution": story.solution}
    return Problem(prompt, answer, source, metadata, how.answer_format, difficulty=len(story.symbols))
