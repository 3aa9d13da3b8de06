r"""Instructions: what a prompt says besides the question, such as "End with #### N", and the answer's format with it.

A data set's question says what is asked, and not how the answer is to be given. The instructions say it to the model,
and `answer_format` says it to the run, which checks before it starts that its verifier accepts such answers.
"""

from __future__ import annotations

import dataclasses

from prerl_jax.data.field_types import require_types
from prerl_jax.data.problems import Message, Prompt


@dataclasses.dataclass(frozen=True)
class Instructions:
    """What is put around a question.

    Attributes:
        system: the content of a system turn before everything else; "" for none.
        before: text before the question, as it is: end it with a space or a line break.
        after: text after the question, as it is.
        few_shot: turns before the question, which show how questions are answered: user, assistant, user, assistant.
        answer_format: the format that these texts ask for, with "{answer}" in the answer's place, as in
            "#### {answer}"; "" if they ask for none.

    Raises:
        ValueError: a field has another type, the format has no "{answer}", or the few-shot turns do not alternate from
            user to assistant.
    """

    system: str = ""
    before: str = ""
    after: str = ""
    few_shot: tuple[Message, ...] = ()
    answer_format: str = ""

    def __post_init__(self) -> None:
        require_types(self)
        for turn in self.few_shot:
            require_types(turn)
        if self.answer_format and "{answer}" not in self.answer_format:
            raise ValueError(f"Instructions.answer_format needs {{answer}} in it, got {self.answer_format!r}")
        roles = tuple(turn.role for turn in self.few_shot)
        if roles != ("user", "assistant") * (len(roles) // 2):
            raise ValueError(f"Instructions.few_shot must alternate between user and assistant, it has {list(roles)}")

    def ask(self, question: Prompt, context: str = "", options: str = "") -> Prompt:
        """The prompt that asks a question.

        Args:
            question: a text, or turns. The texts go around the last user turn.
            context: text between `before` and the question.
            options: text between the question and `after`.

        Returns:
            Turns; a text if the question is one, and there is neither a system turn nor a few-shot turn.

        Raises:
            ValueError: the question has a system turn and so have the instructions, or it has no user turn to put the
                texts around.
        """
        before, after = self.before + context, options + self.after
        if isinstance(question, str):
            text = before + question + after
            return self._under_system((*self.few_shot, Message("user", text))) if self.system or self.few_shot else text
        own = question[: sum(turn.role == "system" for turn in question[:1])]
        if own and self.system:
            raise ValueError("the row has a system turn of its own; leave out Instructions.system")
        return self._under_system((*own, *self.few_shot, *_around(question[len(own) :], before, after)))

    def _under_system(self, turns: tuple[Message, ...]) -> tuple[Message, ...]:
        return (Message("system", self.system), *turns) if self.system else turns


def _around(turns: tuple[Message, ...], before: str, after: str) -> tuple[Message, ...]:
    """The turns, with texts before and after the content of the last user turn."""
    if not before and not after:
        return turns
    users = [index for index, turn in enumerate(turns) if turn.role == "user"]
    if not users:
        raise ValueError("the prompt has no user turn that the instructions could be put around")
    at = users[-1]
    return (*turns[:at], Message("user", before + turns[at].content + after), *turns[at + 1 :])


BOXED = Instructions(
    system=r"Please reason step by step, and put your final answer within \boxed{}.", answer_format=r"\boxed{{answer}}"
)
r"""Asks for the answer in a \boxed, with the system turn of the paper's problem files."""

HASHES = Instructions(
    after='\n\nReason step by step. End with "#### N", where N is the answer as a number.',
    answer_format="#### {answer}",
)
"""Asks for a number after "####", as GSM8K's solutions give it."""

CHOICE = Instructions(
    after='\n\nReason step by step. End with "The answer is (X).", where X is the letter of the right option.',
    answer_format="The answer is ({answer}).",
)
"""Asks for the letter of an option."""
