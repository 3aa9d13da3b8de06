"""Multiple choice: the letter that a response chooses, and responses that choose none."""

from __future__ import annotations

import pytest

from prerl_jax.data import Problem
from prerl_jax.verify import MultipleChoice


def score(verifier, gold, response):
    return verifier(Problem("q", gold), response).reward


@pytest.mark.parametrize(
    ("gold", "response", "expected"),
    [
        ("B", r"\boxed{B}", 1),
        ("(B)", r"\boxed{(B)}", 1),
        ("b", r"\boxed{b}", 1),
        ("B", r"\boxed{\text{B}}", 1),
        ("B", r"\boxed{\textbf{(B)}}", 1),
        ("B", r"The answer is A. \boxed{B}", 1),
        ("B", "The answer is B.", 1),
        ("B", "The answer is (B) because A is wrong.", 1),
        ("B", "**Answer: B**", 1),
        ("B", "The correct option is **B**.", 1),
        ("B", "the answer is: $B$", 1),
        ("B", "The answer is option B", 1),
        ("B", "The answer is A. No, the answer is B.", 1),
        ("B", "B", 1),
        ("B", " (B) ", 1),
        ("B", "B.", 1),
        ("B", "B. Paris", 1),
        ("B", "(B) Paris", 1),
        ("A", r"\boxed{A, B}", 0),
        ("A", r"\boxed{B} \boxed{}", 0),
        ("A", "The answer is A or B.", 0),
        ("A", "The answer is (A) and (B).", 0),
        ("A", "(A) or (B)", 0),
        ("A", "A, B", 0),
        ("A", "The answer is Apple.", 0),
        ("A", "the answer is a number", 0),
        ("A", "Although it is late", 0),
        ("A", "A dog is an animal.", 0),
        ("B", "The answer is not B.", 0),
        ("A", "", 0),
        ("E", r"\boxed{E: A polygenic score}", 1),
        ("E", r"\boxed{E. foo}", 1),
        ("A", r"\boxed{\textbf{(A)}\ 12}", 1),
        ("B", r"\boxed{\text{(B)}}", 1),
        ("G", "(G)", 1),
        ("(A)", r"\boxed{A}", 1),
        ("a", r"\boxed{A}", 1),
        ("A", "A. B. C. D. E.", 0),
        ("E", "A. B. C. D. E.", 0),
        ("A", "A or B", 0),
        ("A", r"\boxed{A or B}", 0),
        ("A", r"\boxed{A. B. C.}", 0),
        ("A", r"\boxed{AB}", 0),
        ("A", r"\boxed{A/B}", 0),
        ("A", r"\boxed{A B}", 0),
        ("A", r"\boxed{A polygenic score}", 0),
        ("A", r"\boxed{(A) \text{ or } (B)}", 0),
        ("A", r"\boxed{A}, \boxed{B}", 0),
        ("A", r"\boxed{A} or \boxed{B}", 0),
        ("B", r"\boxed{A} wait \boxed{B}", 1),
        ("B", r"\boxed{\text{Option B}}", 1),
        ("B", r"\boxed{Answer: B}", 1),
        ("B", r"\boxed{\textbf{B}\ 12}", 1),
        ("B", r"\boxed{\mathrm{B}}", 1),
        ("B", r"\boxed{B) Vitamin C.}", 1),
        ("A", r"\boxed{A) P(B) = 0.5}", 1),
        ("C", "The answer is C, I think.", 1),
        ("I", "The answer is I think C", 0),
        ("A", "The answer is A because", 1),
        ("c", "The answer is c", 1),
        ("c", "the answer is c ) 30", 1),
        ("c", "the answer is (c)", 1),
        ("C", "C ) 30", 1),
        ("J", "The answer is J.", 1),
        ("J", r"\boxed{J}", 1),
        ("A", "The answer is A. Hmm, the answer is A or B.", 0),
        ("B", "**B** Paris", 1),
        ("B", "**(B)** Paris", 1),
        ("B", "**B. Paris**", 1),
        ("A", r"\boxed{A: 5 and B: 6}", 0),
        ("A", r"\boxed{A. 5, B. 6}", 0),
        ("A", "(A) 12 (B) 13", 0),
        ("B", "B. Paris\nC. London", 0),
        ("B", "\\boxed{\uff22}", 1),
        ("B", r"$\boxed{B}$", 1),
        ("B", r"\boxed{\text{B: 12 cm}}", 1),
        ("B", r"\boxed{\text{(B) } 12}", 1),
        ("B", r"\boxed{\textbf{(B) }12}", 1),
        ("B", r"\boxed{(B)\ \text{foo}}", 1),
        ("B", r"\boxed{12}", 0),
        ("A", r"\boxed{Apple}", 0),
        ("B", "Answer: **B**", 1),
        ("B", "Final answer: (B).", 1),
        ("B", r"The correct choice is $\textbf{(B)}$.", 1),
        (r"\text{(B)}", r"\boxed{B}", 1),
        ("B", "The answer is either A or B", 0),
        ("E", r"\boxed{\mathbf{E}}", 1),
        ("D", r"\boxed{\text{D}. 4}", 1),
        ("D", r"\boxed{D, 4}", 0),
        ("D", "Answer: D\n", 1),
        ("A", "Answer: A\nAnswer: B", 0),
        ("A", "(A)\n(B)", 0),
        ("B", "The answer is B: Paris", 1),
        ("B", "The answer is: B) Paris", 1),
        ("B", "The answer is B and not A", 1),
        ("B", "I choose B", 0),
        ("A", r"\boxed{(A) or B}", 0),
        ("A", r"\boxed{A) and B}", 0),
        ("B", "C", 0),
    ],
)
def test_multiple_choice(gold, response, expected):
    assert score(MultipleChoice(), gold, response) == expected


def test_multiple_choice_letters():
    assert score(MultipleChoice("ABCDEFGHIJ"), "J", "The answer is J.") == 1.0
    assert score(MultipleChoice("AB"), "B", "The answer is C.") == 0.0
    for letters in ("", "A", "AA", "ab", "A]"):
        with pytest.raises(ValueError, match="distinct capital letters"):
            MultipleChoice(letters)
