"""How a right response to a problem looks: the problem's own answer, in the format that its source asks for."""

from __future__ import annotations

import dataclasses
import re

from prerl_jax.data.problems import Problem, as_text
from prerl_jax.evaluation.quoted import quoted
from prerl_jax.verify import Verifier, written
from prerl_jax.verify.boxed import last_boxed

AFTER_THOUGHT = "<think>\n</think>\n\n"
"""An empty thought: some verifiers read only what follows one."""


@dataclasses.dataclass(frozen=True)
class AnswerFormat:
    """A format in which prompts ask for an answer.

    Attributes:
        asked: a regular expression that finds it in a prompt or in an answer.
        text: a response, with "{answer}" in place of the answer.
        verifier: verifiers that read it.
    """

    asked: str
    text: str
    verifier: str

    def asked_in(self, problem: Problem, prompt: str) -> bool:
        """Whether a prompt asks for it. A prompt that ends with it does not: the response continues after it."""
        if not re.search(self.asked, prompt):
            return False
        return not re.search(rf"(?:{self.asked})[\s*:({{]*\Z", as_text(problem.prompt))


_HEADING = r"(?:[^\W\d]|\*|\d+[.)]\s)"  # how the text of a heading begins: "Task", "**Hint**", "1. Input"
_HASHES = (  # in a line of text; or at the start of a line, before nothing, a number or a placeholder; in no heading
    rf"(?m:^[ \t]*+(?!####)[^\n]*?####(?!#|[ \t]+{_HEADING})"
    r"|^[ \t]*+####[ \t]*+(?:$|[-+$]?\d[\d.,/% ]*$|[<{\[](?i:your|the|final|answer|number|result|value)\b))"
)
FORMATS = (
    AnswerFormat(r"\\boxed", r"\boxed{{answer}}", "BoxedAnswer() or MathAnswer()"),
    AnswerFormat(_HASHES, "#### {answer}", "GSM8KAnswer()"),
    AnswerFormat("(?i:</answer>)", "<answer>{answer}</answer>", 'ExactMatch(marker="<answer>", until="</answer>")'),
    AnswerFormat(r"\b(?i:answer is):? *\(", "The answer is ({answer}).", "MultipleChoice()"),
    AnswerFormat(r"\b(?i:answer is):? *(?:[\[{<$\"]|X\b)", "The answer is {answer}.", "MultipleChoice()"),
    AnswerFormat(r"\bAnswer:", "Answer: {answer}", "AnswerLine()"),
)
"""The formats that are recognised in prompts."""
IN_ANSWERS = ((r"\\boxed", FORMATS[0]), (r"####(?!#)[^\n]*\s*\Z", FORMATS[1]))
"""The formats in which data sets write worked solutions, each with a regular expression that finds it."""


@dataclasses.dataclass(frozen=True)
class Written:
    """A problem's answer as a response.

    Attributes:
        responses: texts, 1 or more, of which a verifier should accept one.
        because: says why the answer is written so.
        known: whether the format is known. If not, the response is the bare answer.
        format: the format, if it is one of `FORMATS`.
        guessed: whether only words of the prompt tell the format.
    """

    responses: tuple[str, ...]
    because: str
    known: bool = True
    format: AnswerFormat | None = None
    guessed: bool = False


def write_answer(problem: Problem, prompt: str, verifier: Verifier) -> Written:
    """The problem's answer in the format of the first of these that has one.

    The source (`Problem.answer_format`); the prompt, which may ask for several; the answer, if it is a worked solution;
    the verifier, if it is a `WritesAnswers`. Else the bare answer.

    Args:
        problem: the problem.
        prompt: its whole prompt as text, with what a chat template adds.
        verifier: verifies responses to it.
    """
    bare = bare_answer(problem.answer)
    if problem.answer_format:
        because = f"the source's answer_format is {quoted(problem.answer_format)}"
        known = next((one for one in FORMATS if one.text == problem.answer_format), None)
        return Written(filled(problem.answer_format, bare), because, format=known)
    if asked := [one for one in FORMATS if one.asked_in(problem, prompt)]:
        texts = tuple(text for one in asked for text in filled(one.text, bare))
        return Written(texts, f"the prompts ask for {quoted(texts[0])}", format=asked[0], guessed=True)
    for pattern, one in IN_ANSWERS:
        if re.search(pattern, problem.answer):
            shown = quoted(filled(one.text, bare)[0])
            return Written((problem.answer,), f"the answers themselves have the form {shown}", format=one)
    if (text := written(verifier, problem)) is not None:
        return Written((text,), "the verifier itself writes the answer so")
    return Written((bare,), "nothing says in which format an answer is written", known=False)


def bare_answer(answer: str) -> str:
    r"""The answer without the worked solution: what follows the last "####", or stands in the last \boxed."""
    _, marker, tail = answer.rpartition("####")
    return (tail if marker else last_boxed(answer) or "").strip() or answer.strip()


def filled(text: str, answer: str) -> tuple[str, ...]:
    """The text of a format with the answer in it, in the ways in which it may be meant, 1 or more.

    What the format has around "{answer}" is not doubled: "(A)" in "({answer})" is "(A)". Of "A. Paris" the letter alone
    is an answer, too.
    """
    before, _, after = text.partition("{answer}")
    doubled = not answer[:1].isalnum() and (answer[:1], answer[-1:]) == (before[-1:], after[:1])
    inner = answer[1:-1].strip() if doubled else ""
    letter = re.match(r"\(?([A-Z])[).:](?!\S)", answer)
    forms = (inner, answer, letter[1] if letter else "")
    return tuple(dict.fromkeys(text.replace("{answer}", form) for form in forms if form))
