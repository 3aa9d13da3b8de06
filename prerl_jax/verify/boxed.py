r"""The reward of the published numbers: whether the last \boxed answer equals the ground truth, both normalised.

The rule is that of the MATH data set (Hendrycks et al., 2021, arXiv 2103.03874) as the paper's published code applies
it: take the last box, remove differences of LaTeX spelling on both sides, compare the strings. It does no algebra: 2/4
is not 1/2, and 5.0 is not 5. It is as strict here, so that accuracies can be compared, and its special cases are kept
for the same reason, each with a comment. The time is linear in the length of the response.
"""

from __future__ import annotations

import dataclasses
import re

from prerl_jax.data.problems import Problem
from prerl_jax.verify.batch import require_truth
from prerl_jax.verify.judgement import Judgement, right_or_wrong

NO_ANSWER = ("proof", "notfound")
"""What NuminaMath writes where a problem has no answer to compare with."""

_RESPELLED = (
    ("\n", ""),
    (r"\!", ""),
    (r"\\", "\\"),
    ("tfrac", "frac"),
    ("dfrac", "frac"),
    (r"\left", ""),
    (r"\right", ""),
    (r"^{\circ}", ""),
    (r"^\circ", ""),
    (r"\$", ""),
)
_UNIT = r"\text{ "
_BRACE = re.compile("[{}]")
_BARE_ROOT = re.compile(r"\\sqrt([^{])", re.DOTALL)
_SLASH = re.compile(r"(0|-?[1-9][0-9]*)/(0|-?[1-9][0-9]*)")


@dataclasses.dataclass(frozen=True)
class BoxedAnswer:
    r"""Right if the last \boxed{...} of the response equals the problem's answer after normalisation."""

    def __call__(self, problem: Problem, response: str) -> Judgement:
        """The judgement of one response; never raises on a response.

        Raises:
            ValueError: the problem's ground truth is empty, so that an empty box would be right.
        """
        require_truth(problem)
        answer = last_boxed(response)
        if answer is None:
            return right_or_wrong(False, format_ok=False)
        return right_or_wrong(equivalent(answer, problem.answer), normal_form(answer), bool(answer.strip()))

    def check(self, problem: Problem) -> None:
        """Raises ValueError if no box is right: see `require_answer`, and for a truth with a brace too many."""
        require_answer(problem)
        if self(problem, self.write(problem)).verdict != "right":
            raise ValueError(f"the ground truth cannot be written in a box: {problem}")

    def write(self, problem: Problem) -> str:
        """The ground truth in a box; after "\\boxed " if its braces do not match."""
        box = rf"\boxed{{{problem.answer}}}"
        return box if last_boxed(box) == problem.answer else rf"$\boxed {problem.answer}$"


def require_answer(problem: Problem) -> None:
    """Raises ValueError if a mathematical problem has no answer: an empty one, or a word of `NO_ANSWER`."""
    require_truth(problem)
    if problem.answer.strip().casefold() in NO_ANSWER:
        raise ValueError(f"the ground truth is {problem.answer!r}, which stands for a missing answer: {problem}")


def last_boxed(text: str) -> str | None:
    r"""The content of the last \boxed, or None if there is no complete one.

    A "\boxed " with a space anywhere in the text takes precedence: the answer is all that follows its last occurrence,
    up to a dollar sign. A trailing \fbox is no answer: the published reward finds it, but cannot read its content.
    """
    if r"\boxed " in text:
        return text.rsplit(r"\boxed ", 1)[1].split("$", 1)[0]
    start = text.rfind(r"\boxed")
    if start < 0 or not text.startswith("{", start + len(r"\boxed")):
        return None
    start += len(r"\boxed{")
    depth = 1
    for brace in _BRACE.finditer(text, start):
        depth += 1 if brace.group() == "{" else -1
        if depth == 0:
            return text[start : brace.start()]
    return None


def equivalent(answer: str, truth: str) -> bool:
    """Whether two answers are equal after `normalize`; as they are, if one of them is malformed LaTeX."""
    try:
        left, right = normalize(answer), normalize(truth)
    except ValueError:
        return answer == truth
    # A truth that consists of nothing but markup, such as a lone unit, must not make the empty box right.
    return left == right and (left != "" or answer == truth)


def normal_form(answer: str) -> str:
    """`normalize`, or the answer as it is, if it is malformed."""
    try:
        return normalize(answer)
    except ValueError:
        return answer


def normalize(text: str) -> str:
    r"""The MATH data set's normal form of an answer.

    Drops line breaks, spaces, \left, \right, degree, dollar and percent signs, a trailing \text{ unit} and a short
    "x = "; writes \dfrac and \tfrac as \frac, .5 as 0.5, \frac12 as \frac{1}{2}, \sqrt2 as \sqrt{2}, a/b of integers as
    \frac{a}{b}, and 0.5 as \frac{1}{2}.

    Raises:
        ValueError: two units, or a \sqrt or \frac with nothing after it.
    """
    for old, new in _RESPELLED:
        text = text.replace(old, new)
    if text.count(_UNIT) > 1:
        raise ValueError("more than one unit")
    text = text.split(_UNIT, 1)[0].replace(r"\%", "")
    text = text.replace(" .", " 0.").replace("{.", "{0.")
    if text.startswith("."):
        text = "0" + text
    name, equals, value = text.partition("=")
    if equals and len(name) <= 2 and "=" not in value:  # "x=5" and "x =5" are 5, "x = 5" and "f(x)=5" are themselves
        text = value
    text = _brace_fractions(_brace_roots(text).replace(" ", ""))
    if text == "0.5":  # this one decimal and no other
        return r"\frac{1}{2}"
    ratio = _SLASH.fullmatch(text)
    return rf"\frac{{{ratio[1]}}}{{{ratio[2]}}}" if ratio else text


def _brace_roots(text: str) -> str:
    if any(part == "" for part in text.split(r"\sqrt")[1:]):
        raise ValueError(r"a \sqrt of nothing")
    return _BARE_ROOT.sub(r"\\sqrt{\1}", text)


def _brace_fractions(text: str) -> str:
    head, *parts = text.split(r"\frac")
    fixed = [head]
    for part in parts:
        if part == "":
            raise ValueError(r"a \frac of nothing")
        if part[0] != "{":
            if len(part) < 2:
                return text  # half a fraction leaves the whole answer as it is
            denominator = part[1] if part[1] == "{" else f"{{{part[1]}}}"
            part = f"{{{part[0]}}}{denominator}{part[2:]}"
        fixed.append(part)
    return r"\frac".join(fixed)
