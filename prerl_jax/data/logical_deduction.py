"""Logical deduction: statements about the order of three, five or seven objects, and a choice of what is true.

The questions are of our own writing, in the manner of BIG-Bench-Hard's logical deduction (Suzgun et al., 2022,
arXiv 2210.09261). They are a stand-in for it: scores on them are not scores on the benchmark.

The statements of a question are consistent with exactly one order, and none of them can be left out. The options name
each object for the same place, so exactly one is right.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import random
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from prerl_jax.data.drawing import Drawn, draw_problems, require_fields
from prerl_jax.data.instructions import CHOICE, Instructions
from prerl_jax.data.options import Choice
from prerl_jax.data.problems import Message, Problem

SIZES = (3, 5, 7)
SOURCE = "deduction"
"""`Problem.source` of these problems."""
NUMBERS = {3: "three", 5: "five", 7: "seven"}
ORDINALS = ("first", "second", "third", "fourth")


@dataclasses.dataclass(frozen=True)
class Scene:
    """Objects in an order, and how one says where they are.

    Attributes:
        opening: a sentence with {number} and {objects}.
        objects: seven or more, with "a" or "an" where they need an article.
        before, after: what an object does that comes before another one, or after it.
        first, last: what the object in the first place does, and in the last.
        from_first, from_last: what the object in another place does, with {ordinal}.
    """

    opening: str
    objects: tuple[str, ...]
    before: str
    after: str
    first: str
    last: str
    from_first: str
    from_last: str

    def place(self, index: int, size: int) -> str:
        """What the object at an index of `size` does, such as "is the second from the left"."""
        if index in (0, size - 1):
            return self.last if index else self.first
        if index <= size // 2:
            return self.from_first.format(ordinal=ORDINALS[index])
        return self.from_last.format(ordinal=ORDINALS[size - 1 - index])


_ROW = ("is left of", "is right of", "is the leftmost", "is the rightmost")
_FROM = ("is the {ordinal} from the left", "is the {ordinal} from the right")
SCENES = (
    Scene(
        "A shelf holds {number} books: {objects}.",
        ("a red book", "a blue book", "a green book", "a white book", "a black book", "a gray book", "a yellow book",
         "a brown book", "a purple book"),
        *_ROW, *_FROM,
    ),
    Scene(
        "There are {number} birds on a branch: {objects}.",
        ("an owl", "a crow", "a finch", "a sparrow", "a robin", "a magpie", "a swallow", "a pigeon", "a woodpecker"),
        *_ROW, *_FROM,
    ),
    Scene(
        "In a golf tournament, {number} players took part: {objects}.",
        ("Ada", "Ben", "Cleo", "Dan", "Eli", "Fay", "Gus", "Ivy", "Joe", "Kim"),
        "finished ahead of", "finished behind", "finished first", "finished last",
        "finished {ordinal}", "finished {ordinal} from last",
    ),
    Scene(
        "A garage has {number} vehicles of different ages: {objects}.",
        ("a truck", "a van", "a bus", "a taxi", "a tractor", "a jeep", "a scooter", "a limousine", "a camper"),
        "is older than", "is newer than", "is the oldest", "is the newest",
        "is the {ordinal} oldest", "is the {ordinal} newest",
    ),
    Scene(
        "A stall sells {number} kinds of fruit at different prices: {objects}.",
        ("apples", "pears", "plums", "mangoes", "cherries", "grapes", "peaches", "kiwis", "melons"),
        "cost less than", "cost more than", "are the cheapest", "are the most expensive",
        "are the {ordinal} cheapest", "are the {ordinal} most expensive",
    ),
    Scene(
        "A cart carries {number} parcels of different weights: {objects}.",
        ("a round parcel", "a flat parcel", "a long parcel", "a striped parcel", "a dotted parcel", "a silver parcel",
         "a torn parcel", "a sealed parcel"),
        "is lighter than", "is heavier than", "is the lightest", "is the heaviest",
        "is the {ordinal} lightest", "is the {ordinal} heaviest",
    ),
)  # fmt: skip

_SHOWN = (
    "A desk has three pens on it: a thick pen, a thin pen, and an old pen. The thick pen is left of the thin pen. The "
    "old pen is the leftmost.\nWhich of these is true?\n(A) The thick pen is the rightmost\n(B) The thin pen is the "
    "rightmost\n(C) The old pen is the rightmost",
    "In a race, there were three runners: Max, Nora, and Otto. Nora finished behind Max. Otto finished behind Nora.\n"
    "Which of these is true?\n(A) Max finished first\n(B) Nora finished first\n(C) Otto finished first",
)
DEDUCTION_SHOTS = Instructions(
    few_shot=(
        Message("user", _SHOWN[0]),
        Message("assistant", "The order is old, thick, thin. The answer is (B)."),
        Message("user", _SHOWN[1]),
        Message("assistant", "The order is Max, Nora, Otto. The answer is (A)."),
    ),
    answer_format="The answer is ({answer}).",
)
"""Shows two short answers about objects that are never asked about, and asks for no reasoning: for small models."""


@dataclasses.dataclass(frozen=True)
class LogicalDeduction:
    """Questions about the order of objects, with as many options as objects; all distinct. The answer is a letter.

    The sizes alternate, so the first n problems are a fair mixture for any n. `Problem.difficulty` is the size, and a
    guess is right once in so many times.

    Attributes:
        count: how many problems, at least 1.
        split: "train" or "evaluation"; the hash of what a question's statements say decides its split.
        seed: decides the problems, together with their number.
        sizes: how many objects, 3, 5 or 7; distinct values.
        instructions: how the answer is asked for. `DEDUCTION_SHOTS` is for small models.

    Raises:
        ValueError: a field is outside these ranges.
    """

    count: int
    split: str = "train"
    seed: int = 0
    sizes: tuple[int, ...] = SIZES
    instructions: Instructions = CHOICE

    def __post_init__(self) -> None:
        require_fields(self, "sizes", SIZES)

    def load(self) -> tuple[tuple[Problem, ...], tuple[str, ...]]:
        """Generates the problems. The same fields give the same problems on every machine.

        Returns:
            (`count` problems, ()): no row is dropped.
        """
        return draw_problems(self._draw, self.count, self.split, self.seed), ()

    def _draw(self, number: int, rng: random.Random) -> Drawn:
        size = self.sizes[number % len(self.sizes)]
        scene = rng.choice(SCENES)
        order = rng.sample(scene.objects, size)
        asked = rng.randrange(size)
        statements = _statements(scene, order, asked, rng)
        listed = rng.sample(order, size)
        options = rng.sample(order, size)
        opening = scene.opening.format(number=NUMBERS[size], objects=f"{', '.join(listed[:-1])}, and {listed[-1]}")
        place = scene.place(asked, size)
        choice = Choice(tuple(_sentence(one, place) for one in options), options.index(order[asked]))
        question = f"{opening} {' '.join(f'{one.text}.' for one in statements)}\nWhich of these is true?\n"
        prompt = self.instructions.ask(question, options=choice.listed())
        problem = Problem(
            prompt, choice.letter, SOURCE, {"order": tuple(order)}, self.instructions.answer_format, difficulty=size
        )
        return "; ".join(sorted(one.fact for one in statements)), problem


class _Statement(NamedTuple):
    """A statement: what it says however it is worded, its text, and bool[size!], the orders that it allows."""

    fact: str
    text: str
    allows: np.ndarray


def _statements(scene: Scene, order: Sequence[str], asked: int, rng: random.Random) -> list[_Statement]:
    """True statements that leave exactly one order, and of which none is superfluous; none is about the asked place."""
    candidates = _candidates(scene, order, asked, rng)
    rng.shuffle(candidates)
    kept: list[_Statement] = []
    orders = 0
    for one in candidates:
        left = _orders_left((*kept, one))
        if not kept or left < orders:
            kept.append(one)
            orders = left
    for one in tuple(kept):
        others = [other for other in kept if other is not one]
        if others and _orders_left(others) == 1:
            kept = others
    return kept


def _candidates(scene: Scene, order: Sequence[str], asked: int, rng: random.Random) -> list[_Statement]:
    """All statements about the place of an object, except for the asked one, and about two objects."""
    size, places = len(order), _places(len(order))
    found = [
        _Statement(f"{order[i]} is {i} of {size}", _sentence(order[i], scene.place(i, size)), places[:, i] == i)
        for i in range(size)
        if i != asked
    ]
    for i, j in itertools.combinations(range(size), 2):
        before = _sentence(order[i], f"{scene.before} {_definite(order[j])}")
        after = _sentence(order[j], f"{scene.after} {_definite(order[i])}")
        text = rng.choice((before, after))
        found.append(_Statement(f"{order[i]} before {order[j]}", text, places[:, i] < places[:, j]))
    return found


def _orders_left(statements: Sequence[_Statement]) -> int:
    return int(np.logical_and.reduce([one.allows for one in statements]).sum())


@functools.cache
def _places(size: int) -> np.ndarray:
    """i[size!, size]: the place of each object, in each order."""
    return np.array(list(itertools.permutations(range(size))))


def _definite(name: str) -> str:
    return re.sub("^an? ", "the ", name)


def _sentence(name: str, does: str) -> str:
    text = f"{_definite(name)} {does}"
    return text[0].upper() + text[1:]
