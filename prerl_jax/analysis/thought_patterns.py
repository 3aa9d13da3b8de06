"""The default patterns of thoughts: regular expressions for what a response says about its own reasoning, in English.

    transition      turns to another line of thought: "alternatively", "however", "another approach"
    reflection      doubts its own reasoning: "wait", "hmm", "let me reconsider", "I made a mistake"
    subgoal         sets an intermediate goal: "Step 1:", "first, we ...", "we need to find ...", "break this down"
    enumeration     goes through cases: "Case 1:", "list all ...", "consider the case where", "try n = 3"
    verification    checks a result: "let me verify", "check:", "substituting back", "sanity check"
    backtracking    abandons a line of thought: "that's not right", "let's start over", "this approach fails"

arXiv 2604.14142 counts transitions and reflections, and compares the other four behaviours. Its lists of patterns are
not published, so these are our own. Counts can be compared between models, but not with the paper's numbers.

The patterns prefer precision, because word problems tell stories: of waiters, of checks for $20, of what the baker sold
first. A word with an everyday meaning counts only where it begins a clause, and only where no story goes on after it.
"""

from __future__ import annotations

import dataclasses

from prerl_jax.analysis.openings import Openings
from prerl_jax.analysis.thought_doubts import REFLECTION, VERIFICATION
from prerl_jax.analysis.thought_plans import ENUMERATION, SUBGOAL
from prerl_jax.analysis.thought_turns import BACKTRACKING, TRANSITION

Strings = tuple[str, ...]
METRICS = "eval/thoughts/"
"""The beginning of the names of the metrics of thoughts."""


@dataclasses.dataclass(frozen=True)
class Thought:
    """A kind of thought.

    Attributes:
      name: the name of the kind; its metric is `eval/thoughts/NAME`.
      patterns: regular expressions; each match of one of them in a text is one thought.
      openings: phrases that begin a sentence or a clause (`openings.py`). Those in one sentence are one thought.

    Raises:
      ValueError: the name is empty, or there is neither a pattern nor an opening.
    """

    name: str
    patterns: Strings = ()
    openings: Openings = ()

    def __post_init__(self) -> None:
        if not self.name or not (self.patterns or self.openings):
            raise ValueError(f"{self} needs a name, and at least one pattern or opening.")

    @property
    def metric(self) -> str:
        """The name of its metric: the mean number of such thoughts in a response of an evaluation."""
        return METRICS + self.name


THOUGHTS = (
    Thought("transition", openings=TRANSITION),
    Thought("reflection", openings=REFLECTION),
    Thought("subgoal", openings=SUBGOAL),
    Thought("enumeration", openings=ENUMERATION),
    Thought("verification", openings=VERIFICATION),
    Thought("backtracking", openings=BACKTRACKING),
)
"""The kinds that are counted by default."""
