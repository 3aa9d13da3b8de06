"""Sums and products small enough that a language model of 135 million parameters solves some of them.

Zero-shot, such a model never boxes a right answer, so there is nothing to reinforce. Two worked examples as chat turns
before the question change that: SmolLM2-135M-Instruct then solves about half of the sums of two one-digit numbers, and
a tenth of those of three terms or of two digits, which leaves groups of mixed reward for RL to learn from.

A question is one of a finite, enumerated set; the hash of its text alone says whether it belongs to training or to
evaluation. So the two splits never share a question, whatever the seeds, counts and other fields are.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import random
from collections.abc import Iterable, Iterator

from prerl_jax.data.problems import SPLITS, Message, Problem, split_of

EVALUATION_SHARE = 5
"""One question in five is for evaluation. A constant, not a field: two values of it would mix the splits."""
SUM_EXAMPLES = {2: ("3 + 4", "8 - 6"), 3: ("2 + 5 - 4", "7 - 1 + 3"), 4: ("2 + 5 - 4 + 1", "7 - 1 + 3 - 2")}
PRODUCT_EXAMPLES = ("3 * 4", "6 * 2")


@dataclasses.dataclass(frozen=True)
class ChainSum:
    r"""`count` distinct questions such as "What is 12 - 5 + 30?", each after two worked examples as chat turns.

    Kinds of question take turns (each number of terms, and products), so any prefix of the problems is a fair mixture.
    The gold answer is the exact value; the worked examples show it as "3 + 4 = 7. The answer is \boxed{7}.".

    Attributes:
        count: how many problems.
        split: "train" or "evaluation"; disjoint by the hash of the question.
        seed: which of the split's questions, and their order.
        terms: lengths of the sums, from 2 to 4.
        digits: digits an operand may have; one digit is 0 to 9, two are 10 to 99.
        operators: "+" and "-" mix within a sum; "*" adds products, always of two factors.
    """

    count: int
    split: str = "train"
    seed: int = 0
    terms: tuple[int, ...] = (2, 3)
    digits: tuple[int, ...] = (1, 2)
    operators: tuple[str, ...] = ("+", "-")

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"ChainSum needs a count of at least 1, got {self.count}")
        if self.split not in SPLITS:
            raise ValueError(f"ChainSum's split is one of {SPLITS}, got {self.split!r}")
        for name, allowed in (("terms", tuple(SUM_EXAMPLES)), ("digits", (1, 2, 3)), ("operators", ("+", "-", "*"))):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values) or not set(values) <= set(allowed):
                raise ValueError(f"ChainSum's {name} are distinct values out of {allowed}, got {values}")

    def load(self) -> tuple[tuple[Problem, ...], tuple[str, ...]]:
        """(`count` problems, ()); the same for the same fields, on every machine.

        Raises:
            ValueError: the split has fewer than `count` such questions.
        """
        kinds = [(terms, "".join(op for op in self.operators if op != "*")) for terms in self.terms]
        kinds = [kind for kind in kinds if kind[1]] + [(2, "*")] * ("*" in self.operators)
        expressions = tuple(itertools.islice(_take_turns(self._of_kind(*kind) for kind in kinds), self.count))
        if len(expressions) < self.count:
            raise ValueError(
                f"ChainSum has only {len(expressions)} distinct questions for {self.split} with terms {self.terms}, "
                f"digits {self.digits}, operators {self.operators}; {self.count} were asked for"
            )
        return tuple(_problem(expression) for expression in expressions), ()

    def _of_kind(self, terms: int, operators: str) -> Iterator[str]:
        shapes = itertools.product(self.digits, repeat=terms)
        return _take_turns(self._of_shape(shape, operators) for shape in shapes)

    def _of_shape(self, shape: tuple[int, ...], operators: str) -> Iterator[str]:
        """The split's expressions whose operands have these numbers of digits, in an order drawn from the seed."""
        choices = [range(10 ** (d - 1) if d > 1 else 0, 10**d) for d in shape]
        slots = [choices[0], *itertools.chain.from_iterable((operators, operands) for operands in choices[1:])]
        size = 1
        for slot in slots:
            size *= len(slot)
        # `sample` of a range is lazy and without replacement; ten draws a question are twice what either split needs.
        draws = random.Random(f"{self.seed} {shape} {operators}").sample(range(size), min(size, 10 * self.count + 1000))
        shown = (*itertools.chain.from_iterable(SUM_EXAMPLES.values()), *PRODUCT_EXAMPLES)
        for draw in draws:
            expression = _decode(draw, slots)
            if _split(expression) == self.split and expression not in shown:
                yield expression


def _decode(number: int, slots: list) -> str:
    """The number-th combination of one choice per slot, as text: mixed-radix digits."""
    chosen = []
    for slot in slots:
        number, digit = divmod(number, len(slot))
        chosen.append(str(slot[digit]))
    return " ".join(chosen)


def _split(expression: str) -> str:
    return split_of(hashlib.blake2b(expression.encode(), digest_size=8).digest(), EVALUATION_SHARE)


def _take_turns(streams: Iterable[Iterator[str]]) -> Iterator[str]:
    """One from each stream in turn, until all are empty."""
    active = list(streams)
    while active:
        still = []
        for stream in active:
            for item in itertools.islice(stream, 1):
                still.append(stream)
                yield item
        active = still


def value(expression: str) -> int:
    """The exact value of a sum such as "12 - 5 + 3" or of a product such as "3 * 4"."""
    first, *rest = expression.split()
    total = int(first)
    for operator, operand in zip(rest[::2], rest[1::2], strict=True):
        number = int(operand)
        total = total * number if operator == "*" else total + (number if operator == "+" else -number)
    return total


def _turns(expression: str) -> tuple[Message, Message]:
    result = value(expression)
    worked = f"{expression} = {result}. The answer is \\boxed{{{result}}}."
    return Message("user", f"What is {expression}?"), Message("assistant", worked)


def _problem(expression: str) -> Problem:
    operators = expression.split()[1::2]
    examples = PRODUCT_EXAMPLES if "*" in operators else SUM_EXAMPLES[len(operators) + 1]
    prompt = tuple(itertools.chain.from_iterable(_turns(example) for example in examples))
    question = _turns(expression)[0]
    return Problem((*prompt, question), str(value(expression)), "chain_sum", {"expression": expression})
