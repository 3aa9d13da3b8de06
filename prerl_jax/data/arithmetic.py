"""Sums and products so small that a language model of 135 million parameters solves some of them.

Zero-shot, such a model never boxes a right answer, so RL has nothing to reinforce. Two worked examples as chat turns
before the question change that. SmolLM2-135M-Instruct then solves about half of the sums of two one-digit numbers, and
a tenth of the sums of three terms or of two-digit numbers. Groups then have mixed rewards, from which RL can learn.

The questions form a finite, enumerated set. The hash of its text alone decides whether a question belongs to training
or to evaluation. So the two splits never share a question, whatever the seeds, counts and other fields are.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from prerl_jax.data.drawing import require_fields, split_of_question
from prerl_jax.data.problems import Message, Problem

SUM_EXAMPLES = {2: ("3 + 4", "8 - 6"), 3: ("2 + 5 - 4", "7 - 1 + 3"), 4: ("2 + 5 - 4 + 1", "7 - 1 + 3 - 2")}
"""Number of terms -> the two worked examples before a sum; they are never asked."""
PRODUCT_EXAMPLES = ("3 * 4", "6 * 2")
"""The two worked examples before a product; they are never asked."""


@dataclasses.dataclass(frozen=True)
class ChainSum:
    r"""Questions such as "What is 12 - 5 + 30?", all distinct, each after two worked examples as chat turns.

    The kinds of question (each number of terms, and products) alternate, so the first n problems are a fair mixture for
    any n. The ground truth is the exact value. The worked examples show it as "3 + 4 = 7. The answer is \boxed{7}.".

    Attributes:
        count: how many problems, at least 1.
        split: "train" or "evaluation"; the hash of a question decides its split.
        seed: decides which questions of the split are taken, and their order.
        terms: how many terms a sum has, from 2 to 4; distinct values.
        digits: how many digits an operand has, from 1 to 3; distinct values. One digit means 0 to 9, two mean 10 to 99.
        operators: distinct values of "+", "-" and "*". "+" and "-" mix within a sum; "*" adds products of two factors.

    Raises:
        ValueError: a field is outside these ranges.
    """

    count: int
    split: str = "train"
    seed: int = 0
    terms: tuple[int, ...] = (2, 3)
    digits: tuple[int, ...] = (1, 2)
    operators: tuple[str, ...] = ("+", "-")

    def __post_init__(self) -> None:
        for name, allowed in (("terms", tuple(SUM_EXAMPLES)), ("digits", (1, 2, 3)), ("operators", ("+", "-", "*"))):
            require_fields(self, name, allowed)

    def load(self) -> tuple[tuple[Problem, ...], tuple[str, ...]]:
        """Generates the problems. The same fields give the same problems on every machine.

        Returns:
            (`count` problems, ()): no row is dropped.

        Raises:
            ValueError: the split has fewer than `count` such questions.
        """
        kinds = [(terms, "".join(op for op in self.operators if op != "*")) for terms in self.terms]
        kinds = [kind for kind in kinds if kind[1]] + [(2, "*")] * ("*" in self.operators)
        expressions = tuple(itertools.islice(_take_turns(self._of_kind(*kind) for kind in kinds), self.count))
        if len(expressions) < self.count:
            raise ValueError(
                f"ChainSum has only {len(expressions)} distinct questions for {self.split} with terms {self.terms}, "
                f"digits {self.digits}, operators {self.operators}; {self.count} were asked for. Ask for fewer"
            )
        return tuple(_problem(expression) for expression in expressions), ()

    def _of_kind(self, terms: int, operators: str) -> Iterator[str]:
        shapes = itertools.product(self.digits, repeat=terms)
        return _take_turns(self._of_shape(shape, operators) for shape in shapes)

    def _of_shape(self, shape: tuple[int, ...], operators: str) -> Iterator[str]:
        """The split's expressions whose operands have these numbers of digits, in random order by the seed."""
        choices = [range(10 ** (d - 1) if d > 1 else 0, 10**d) for d in shape]
        slots = [choices[0], *itertools.chain.from_iterable((operators, operands) for operands in choices[1:])]
        size = 1
        for slot in slots:
            size *= len(slot)
        # `sample` of a range is lazy and without replacement. Evaluation needs five draws per question; ten are enough.
        draws = random.Random(f"{self.seed} {shape} {operators}").sample(range(size), min(size, 10 * self.count + 1000))
        shown = (*itertools.chain.from_iterable(SUM_EXAMPLES.values()), *PRODUCT_EXAMPLES)
        for draw in draws:
            expression = _decode(draw, slots)
            if split_of_question(expression) == self.split and expression not in shown:
                yield expression


def _decode(number: int, slots: Sequence[Sequence[Any]]) -> str:
    """Combination number `number` of one choice per slot, as text: the digits of a mixed-radix number."""
    chosen = []
    for slot in slots:
        number, digit = divmod(number, len(slot))
        chosen.append(str(slot[digit]))
    return " ".join(chosen)


def _take_turns(streams: Iterable[Iterator[str]]) -> Iterator[str]:
    """Takes one item from each stream in turn, until all are empty."""
    active = list(streams)
    while active:
        still = []
        for stream in active:
            for item in itertools.islice(stream, 1):
                still.append(stream)
                yield item
        active = still


def value(expression: str) -> int:
    """The exact value of an expression.

    Args:
        expression: a sum such as "12 - 5 + 3" or a product such as "3 * 4", evaluated from left to right.
    """
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
