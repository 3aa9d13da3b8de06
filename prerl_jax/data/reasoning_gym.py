"""Problems of reasoning-gym (Stojanovski et al., 2025, arXiv 2505.24760), an extra; only those that are safe for RL.

Install it with `pip install -e ".[reasoning-gym]"`.

What the package does by itself is not safe for RL, as of version 0.1.25:

- Its scores give part of the reward to wrong answers: "42" gets 0.5 where 2 is right, and "0" gets 1.0 for each coin
  flip. So only the problem's own answer counts here, by the verifier of the config. Its `score_answer` is never asked.
- Item i of seed s is item i - 1 of seed s + 1. So the seeds here are far apart, the hash of a question's text decides
  its split, and no question comes twice.
- base_conversion writes the number 0 as nothing, in the question and in the answer. Such items are left out here.
- Some tasks have wrong answers, such as basic_arithmetic without parentheses, or several right ones. So only tasks
  whose answers were recomputed can be asked for.
"""

from __future__ import annotations

import dataclasses
import importlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from prerl_jax.data.drawing import require_fields, split_of_question
from prerl_jax.data.instructions import Instructions
from prerl_jax.data.problems import Problem

TASKS = (
    "base_conversion",
    "chain_sum",
    "count_bits",
    "count_primes",
    "gcd",
    "lcm",
    "letter_counting",
    "products",
    "spell_backward",
)
"""Tasks with one right answer, which the tests recompute from the text of the question."""
FAR = 10**9
"""The distance of two seeds, in items."""
DRAWS = 50
"""For each problem that is asked for, so many items are looked at."""
LAST_LINE = Instructions(after="\nEnd with a line Answer: N.", answer_format="Answer: {answer}")


@dataclasses.dataclass(frozen=True)
class ReasoningGym:
    """Problems of one or several tasks, all distinct. They are verified with `AnswerLine()`.

    The tasks alternate. `Problem.source` is the name of the task.

    Attributes:
        tasks: names out of `TASKS`, distinct.
        count: how many problems, at least 1.
        split: "train" or "evaluation"; the hash of a question decides its split.
        seed: decides the problems; 0 or more.
        settings: (name, value) pairs of the task's configuration, such as (("min_terms", 2), ("max_terms", 3)). All
            tasks get the same.
        instructions: how the answer is asked for.

    Raises:
        ValueError: a field is outside these ranges.
    """

    tasks: tuple[str, ...]
    count: int
    split: str = "train"
    seed: int = 0
    settings: tuple[tuple[str, Any], ...] = ()
    instructions: Instructions = LAST_LINE

    def __post_init__(self) -> None:
        require_fields(self, "tasks", TASKS)
        if self.seed < 0:
            raise ValueError(f"ReasoningGym's seed must be 0 or more, got {self.seed}")

    def load(self) -> tuple[tuple[Problem, ...], tuple[str, ...]]:
        """Generates the problems. The same fields give the same problems with the same version of reasoning-gym.

        Returns:
            (`count` problems, ()): no row is dropped.

        Raises:
            ImportError: reasoning-gym is not installed.
            ValueError: a task has too few distinct questions in this split, or refuses the settings.
        """
        streams = [self._items(task) for task in self.tasks]
        return tuple(itertools.islice(itertools.chain.from_iterable(zip(*streams, strict=True)), self.count)), ()

    def _items(self, task: str) -> Iterator[Problem]:
        wanted = -(-self.count // len(self.tasks))
        items = _data_set(task, self.seed * FAR, wanted * DRAWS, dict(self.settings))
        found: dict[str, Problem] = {}
        for number in range(wanted * DRAWS):
            question, answer = (item := items[number])["question"].strip(), str(item["answer"]).strip()
            if answer and question not in found and split_of_question(question) == self.split:
                prompt, form = self.instructions.ask(question), self.instructions.answer_format
                found[question] = Problem(prompt, answer, task, answer_format=form)
                yield found[question]
            if len(found) == wanted:
                return
        raise ValueError(
            f"only {len(found)} distinct questions of {task!r} were found for {self.split}; {wanted} are needed. Ask "
            "for fewer, or choose settings with more questions"
        )


def _data_set(task: str, seed: int, size: int, settings: Mapping[str, Any]) -> Any:
    try:
        package = importlib.import_module("reasoning_gym")
    except ImportError as error:
        raise ImportError("ReasoningGym needs reasoning-gym: pip install -e '.[reasoning-gym]'") from error
    try:
        return package.create_dataset(task, seed=seed, size=size, **settings)
    except (AssertionError, TypeError, ValueError) as error:
        raise ValueError(f"reasoning-gym refuses the settings {dict(settings)} for {task!r}: {error}") from error
